// Run one JavaScript client: `main.mjs CLIENT URL OPTIONS`. It prints events and its end as lines of JSON, as clients.py says.

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const token = (text) => { if (text) say({ id: "", type: "delta", data: text }); };

async function eventSource({ EventSource }, url, options) {
  const fetchAs = (address, init) => fetch(address, {
    ...init, method: options.method ?? "GET", body: options.body, headers: { ...init.headers, ...options.headers },
  });
  const source = new EventSource(url, { fetch: fetchAs });
  const show = (event) => say({ id: event.lastEventId, type: event.type, data: event.data });
  for (const type of ["message", ...(options.types ?? [])]) source.addEventListener(type, show);
  return new Promise((resolve, reject) => {
    source.addEventListener("error", (error) => {
      if (source.readyState !== source.CLOSED) say({ lost: error.message ?? "the stream ended" });
      else if (error.code === 204) resolve("the server has no more");
      else reject(error);
    });
  });
}

async function eventSourceClient(url, options) {
  const { createEventSource } = await import("eventsource-client");
  return new Promise((resolve) => {
    let waits = false;
    const source = createEventSource({
      url, method: options.method, body: options.body, headers: options.headers,
      onMessage: (event) => say({ id: event.id ?? "", type: event.event ?? "message", data: event.data }),
      onConnect: () => { waits = false; },
      onScheduleReconnect: ({ delay }) => { waits = true; say({ lost: `comes back after ${delay} ms` }); },
      onDisconnect: () => { if (!waits) setImmediate(() => { if (source.readyState === "closed") resolve("the server has no more"); }); },
    });
  });
}

async function eventSourcePlus(url, options) {
  const { EventSourcePlus } = await import("event-source-plus");
  return new Promise((resolve, reject) => {
    let asked = 0;
    const source = new EventSourcePlus(url, {
      method: (options.method ?? "GET").toLowerCase(), body: options.body, headers: options.headers, retryStrategy: options.retryStrategy,
    });
    const controller = source.listen({
      onMessage: (event) => say({ id: event.id ?? "", type: event.event, data: event.data }),
      onRequest: () => { if (asked++) say({ lost: "asks again" }); },
      onResponseError: async ({ response, error }) => {
        controller.abort();
        reject(new Error(response ? `${response.status} ${JSON.stringify(response._data ?? "")}` : String(error)));
      },
    });
    controller.onAbort((event) => { if (event.type === "end-of-stream") resolve(event.reason); });
  });
}

function aiModel(kind) {
  return async (url, options) => {
    const { streamText } = await import("ai");
    const { createOpenAI } = await import("@ai-sdk/openai");
    const provider = createOpenAI({ baseURL: url + "/v1", apiKey: options.key, headers: options.headers });
    const result = streamText({ model: provider[kind](options.model), prompt: options.prompt, onError: () => {} });
    let end;
    for await (const part of result.fullStream) {
      if (part.type === "text-delta") token(part.text);
      else if (part.type === "finish") end = part.finishReason;
      else if (part.type === "error") throw part.error;
    }
    return end;
  };
}

async function aiPage(url, options) {
  const { DefaultChatTransport, readUIMessageStream } = await import("ai");
  const transport = new DefaultChatTransport({ api: url + "/v1/ui", headers: { Authorization: `Bearer ${options.key}`, ...options.headers }, body: { model: options.model, stream: true } });
  const message = { id: "1", role: "user", parts: [{ type: "text", text: options.prompt }] };
  const stream = await transport.sendMessages({ chatId: "1", trigger: "submit-message", messages: [message] });
  let failure;
  let text = "";
  let finished = false;
  const [shown, checked] = stream.tee();
  const watching = (async () => { for await (const part of checked) if (part.type === "finish") finished = true; })();
  for await (const state of readUIMessageStream({ stream: shown, onError: (error) => { failure ??= error; } })) {
    const now = state.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
    token(now.slice(text.length));
    text = now;
  }
  await watching.catch((error) => { failure ??= error; });
  if (failure) throw failure;
  return finished ? "stop" : "unfinished";
}

function agents(api) {
  return async (url, options) => {
    const { Agent, run, setDefaultOpenAIClient, setOpenAIAPI, setTracingDisabled } = await import("@openai/agents");
    const { default: OpenAI } = await import("openai");
    setTracingDisabled(true);
    setOpenAIAPI(api);
    setDefaultOpenAIClient(new OpenAI({ baseURL: url + "/v1", apiKey: options.key, defaultHeaders: options.headers }));
    const result = await run(new Agent({ name: "asker", model: options.model }), options.prompt, { stream: true });
    for await (const event of result) {
      if (event.type === "raw_model_stream_event" && event.data.type === "output_text_delta") token(event.data.delta);
    }
    await result.completed;
    if (result.error) throw result.error;
    return result.finalOutput === undefined ? "unfinished" : "stop";
  };
}

async function mcp(url, options) {
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const client = new Client({ name: "real-client", version: "1" });
  client.onerror = (error) => say({ lost: error.message });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  const onprogress = ({ progress, message }) => say({ id: String(progress), type: "progress", data: message });
  const result = await client.callTool({ name: "count", arguments: { to: options.to } }, undefined, { onprogress, resetTimeoutOnProgress: true });
  await client.close();
  return result.content[0].text;
}

const CLIENTS = {
  "eventsource 3": async (...asked) => eventSource(await import("eventsource-3"), ...asked),
  "eventsource 4": async (...asked) => eventSource(await import("eventsource-4"), ...asked),
  "eventsource-client": eventSourceClient,
  "event-source-plus": eventSourcePlus,
  "ai chat": aiModel("chat"),
  "ai responses": aiModel("responses"),
  "ai page": aiPage,
  "agents chat": agents("chat_completions"),
  "agents responses": agents("responses"),
  "mcp": mcp,
};

const [name, url, options] = process.argv.slice(2);
try {
  say({ end: await CLIENTS[name](url, JSON.parse(options)) });
} catch (error) {
  say({ error: `${error?.name}: ${error?.message ?? error}` });
}
process.exit(0);
