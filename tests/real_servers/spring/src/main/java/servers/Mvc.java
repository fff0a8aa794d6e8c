package servers;

import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.SseEmitter;

@RestController
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
class Mvc {
    private final ExecutorService senders = Executors.newCachedThreadPool();

    @RequestMapping("/{server}/{mode}/events")
    SseEmitter events(@RequestParam String key, @RequestParam int count, @RequestParam int burst, @RequestParam int size,
            @RequestParam int tick, @RequestHeader(name = "Last-Event-ID", defaultValue = "0") int last) {
        var emitter = new SseEmitter(0L);
        var topic = Topic.of(key);
        topic.opened.incrementAndGet();
        senders.execute(() -> {
            try {
                for (int number = last + 1; number <= count; number++) {
                    topic.available(number, burst, tick).block();
                    emitter.send(SseEmitter.event().id("" + number).data(Topic.data(number, size)));
                }
                emitter.complete();
            } catch (Exception left) { // the only way that this server notices
                topic.left.incrementAndGet();
            }
        });
        return emitter;
    }

    @GetMapping("/{server}/{mode}/refusal")
    ResponseEntity<byte[]> refusal() {
        return ResponseEntity.status(429).contentType(MediaType.TEXT_EVENT_STREAM).body(Topic.REFUSAL.getBytes());
    }

    @GetMapping("/go")
    void go(@RequestParam String key) {
        Topic.of(key).go();
    }

    @GetMapping("/state")
    Map<String, Integer> state(@RequestParam String key) {
        return Topic.of(key).state();
    }
}
