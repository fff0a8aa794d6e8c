package servers;

import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** What a stream may send so far, and how many streams were opened and left, for each key. */
class Topic {
    static final String REFUSAL = "{\"error\": {\"message\": \"too many requests\"}}";
    private static final Map<String, Topic> topics = new ConcurrentHashMap<>();

    final AtomicInteger opened = new AtomicInteger();
    final AtomicInteger left = new AtomicInteger();
    private final AtomicInteger sent = new AtomicInteger();
    private final Sinks.Many<Integer> signals = Sinks.many().replay().latestOrDefault(0);

    static Topic of(String key) {
        return topics.computeIfAbsent(key, unknown -> new Topic());
    }

    void go() {
        signals.emitNext(sent.incrementAndGet(), Sinks.EmitFailureHandler.FAIL_FAST);
    }

    Map<String, Integer> state() {
        return Map.of("opened", opened.get(), "left", left.get());
    }

    /** Completes when an event may be sent. */
    Mono<?> available(int number, int burst, int tick) {
        if (number <= burst) {
            return Mono.just(number);
        }
        if (tick > 0) {
            return Mono.delay(Duration.ofMillis(tick));
        }
        return signals.asFlux().filter(count -> number <= burst + count).next();
    }

    static String data(int number, int size) {
        return number + " " + "x".repeat(size);
    }
}
