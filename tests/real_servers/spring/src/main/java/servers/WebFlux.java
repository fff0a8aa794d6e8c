package servers;

import java.util.Map;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.web.embedded.netty.NettyReactiveWebServerFactory;
import org.springframework.context.annotation.Bean;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.http.codec.ServerSentEvent;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import reactor.core.publisher.Flux;

@RestController
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.REACTIVE)
class WebFlux {
    /** Tomcat would be taken otherwise, because MVC has it here. */
    @Bean
    static NettyReactiveWebServerFactory server() {
        return new NettyReactiveWebServerFactory();
    }

    @RequestMapping("/{server}/{mode}/events")
    Flux<ServerSentEvent<String>> events(@RequestParam String key, @RequestParam int count, @RequestParam int burst,
            @RequestParam int size, @RequestParam int tick, @RequestHeader(name = "Last-Event-ID", defaultValue = "0") int last) {
        var topic = Topic.of(key);
        return Flux.range(last + 1, count - last)
                .concatMap(number -> topic.available(number, burst, tick)
                        .map(now -> ServerSentEvent.builder(Topic.data(number, size)).id("" + number).build()))
                .doOnSubscribe(subscription -> topic.opened.incrementAndGet())
                .doOnCancel(topic.left::incrementAndGet);
    }

    /** Negotiated: an event stream, a JSON array, or lines of JSON, as the request's Accept says. */
    @GetMapping("/{server}/{mode}/items")
    Flux<Map<String, Integer>> items() {
        return Flux.range(1, 3).map(number -> Map.of("number", number));
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
