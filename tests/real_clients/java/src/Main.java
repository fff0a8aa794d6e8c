import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.FaultEvent;
import com.launchdarkly.eventsource.MessageEvent;
import com.launchdarkly.eventsource.StreamEvent;
import com.launchdarkly.eventsource.StreamHttpErrorException;
import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.http.StreamResponse;
import com.openai.models.chat.completions.ChatCompletionChunk;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.responses.ResponseCreateParams;
import com.openai.models.responses.ResponseStreamEvent;
import java.net.URI;
import java.time.Duration;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;
import org.springframework.core.ParameterizedTypeReference;
import org.springframework.http.HttpMethod;
import org.springframework.http.MediaType;
import org.springframework.http.codec.ServerSentEvent;
import org.springframework.web.reactive.function.client.WebClient;

/** Run one JVM client: `Main CLIENT URL OPTIONS`. It prints events and its end as lines of JSON, as clients.py says. */
public final class Main {
    private static final ObjectMapper JSON = new ObjectMapper();

    private record Options(String method, String body, Map<String, String> headers, String key, String model, String prompt) {
    }

    private interface Client {
        String run(String url, Options options) throws Exception;
    }

    private static synchronized void say(String... members) {
        Map<String, String> line = new LinkedHashMap<>();
        for (int index = 0; index < members.length; index += 2) {
            line.put(members[index], members[index + 1]);
        }
        try {
            System.out.println(JSON.writeValueAsString(line));
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static void event(String id, String type, String data) {
        say("id", id == null ? "" : id, "type", type == null ? "message" : type, "data", data);
    }

    private static void token(String text) {
        if (!text.isEmpty()) {
            event("", "delta", text);
        }
    }

    private static String okHttp(String url, Options options) throws Exception {
        OkHttpClient http = new OkHttpClient.Builder().readTimeout(0, TimeUnit.SECONDS).build();
        Request.Builder request = new Request.Builder().url(url).header("Accept", "text/event-stream");
        options.headers().forEach(request::header);
        request.method(options.method(), options.body() == null ? null : RequestBody.create(options.body().getBytes()));
        CompletableFuture<String> end = new CompletableFuture<>();
        EventSources.createFactory(http).newEventSource(request.build(), new EventSourceListener() {
            @Override
            public void onEvent(okhttp3.sse.EventSource source, String id, String type, String data) {
                event(id, type, data);
            }

            @Override
            public void onClosed(okhttp3.sse.EventSource source) {
                end.complete("the stream ended");
            }

            @Override
            public void onFailure(okhttp3.sse.EventSource source, Throwable error, Response response) {
                end.completeExceptionally(error != null ? error : new IllegalStateException("status " + response.code()));
            }
        });
        return end.get();
    }

    private static String launchDarkly(String url, Options options) throws Exception {
        ConnectStrategy connect = ConnectStrategy.http(URI.create(url));
        try (EventSource source = new EventSource.Builder(connect)
                .errorStrategy(ErrorStrategy.alwaysContinue())
                .retryDelay(50, TimeUnit.MILLISECONDS)
                .build()) {
            for (StreamEvent happened : source.anyEvents()) {
                if (happened instanceof MessageEvent message) {
                    event(message.getLastEventId(), message.getEventName(), message.getData());
                } else if (happened instanceof FaultEvent fault) {
                    if (fault.getCause() instanceof StreamHttpErrorException refused) {
                        if (refused.getCode() == 204) {
                            return "the server has no more";
                        }
                        throw refused;
                    }
                    say("lost", fault.getCause().toString());
                }
            }
        }
        return "the stream ended";
    }

    private static String webClient(String url, Options options) {
        WebClient.RequestBodySpec request = WebClient.create()
                .method(HttpMethod.valueOf(options.method()))
                .uri(URI.create(url))
                .accept(MediaType.TEXT_EVENT_STREAM)
                .headers(fields -> options.headers().forEach(fields::set));
        if (options.body() != null) {
            request.bodyValue(options.body());
        }
        request.retrieve()
                .bodyToFlux(new ParameterizedTypeReference<ServerSentEvent<String>>() { })
                .filter(received -> received.data() != null)
                .doOnNext(received -> event(received.id(), received.event(), received.data()))
                .blockLast();
        return "the stream ended";
    }

    private static OpenAIClient openAi(String url, Options options) {
        OpenAIOkHttpClient.Builder client = OpenAIOkHttpClient.builder()
                .baseUrl(url + "/v1").apiKey(options.key()).timeout(Duration.ofMinutes(5));
        options.headers().forEach(client::putHeader);
        return client.build();
    }

    private static String chat(String url, Options options) {
        ChatCompletionCreateParams asked = ChatCompletionCreateParams.builder()
                .model(options.model()).addUserMessage(options.prompt()).build();
        String end = "unfinished";
        try (StreamResponse<ChatCompletionChunk> answer = openAi(url, options).chat().completions().createStreaming(asked)) {
            for (Iterator<ChatCompletionChunk> chunks = answer.stream().iterator(); chunks.hasNext();) {
                for (ChatCompletionChunk.Choice choice : chunks.next().choices()) {
                    choice.delta().content().ifPresent(Main::token);
                    end = choice.finishReason().map(Object::toString).orElse(end);
                }
            }
        }
        return end;
    }

    private static String responses(String url, Options options) {
        ResponseCreateParams asked = ResponseCreateParams.builder().model(options.model()).input(options.prompt()).build();
        String end = "unfinished";
        try (StreamResponse<ResponseStreamEvent> answer = openAi(url, options).responses().createStreaming(asked)) {
            for (Iterator<ResponseStreamEvent> events = answer.stream().iterator(); events.hasNext();) {
                ResponseStreamEvent received = events.next();
                received.outputTextDelta().ifPresent(delta -> token(delta.delta()));
                received.error().ifPresent(error -> {
                    throw new IllegalStateException(error.message());
                });
                if (received.isCompleted()) {
                    end = "completed";
                }
            }
        }
        return end;
    }

    private static String cause(Throwable error) {
        String text = error.toString();
        return error.getCause() == null ? text : text + ": " + cause(error.getCause());
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Client> clients = Map.of(
                "okhttp-sse", Main::okHttp,
                "okhttp-eventsource", Main::launchDarkly,
                "WebClient", Main::webClient,
                "openai-java chat", Main::chat,
                "openai-java responses", Main::responses);
        Map<String, Object> given = JSON.readValue(arguments[2], new TypeReference<Map<String, Object>>() { });
        given.putIfAbsent("method", "GET");
        given.putIfAbsent("headers", Map.of());
        given.keySet().retainAll(java.util.List.of("method", "body", "headers", "key", "model", "prompt"));
        Options options = JSON.convertValue(given, Options.class);
        try {
            say("end", clients.get(arguments[0]).run(arguments[1], options));
        } catch (Exception error) {
            say("error", cause(error));
        }
        System.exit(0);
    }
}
