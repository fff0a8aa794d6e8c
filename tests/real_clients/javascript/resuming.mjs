// Make calls of libraries that resume. Each line of the input is one: {"number", "library", "does", "url", …}; the output carries its number.

import { createInterface } from "node:readline";

const shown = (event) => ({ id: String(event.sequence_number), type: event.type, data: event.delta ?? "" });

async function openai({ url, key, does, ...options }, say) {
  const { default: OpenAI } = await import("openai");
  const { responses } = new OpenAI({ baseURL: url + "/v1", apiKey: key });
  if (does === "cancel" || does === "object") return JSON.stringify(await responses[does === "object" ? "retrieve" : does](options.id));
  if (does === "helper") {
    const stream = responses.stream({ response_id: options.id, starting_after: options.after });
    for await (const event of stream) say(shown(event));
    const { status, output_text: text } = await stream.finalResponse();
    return `${status}: ${text}`;
  }
  const stream = does === "create"
    ? await responses.create({ model: options.model, input: "?", stream: true })
    : await responses.retrieve(options.id, { stream: true, starting_after: options.after });
  for await (const event of stream) say(shown(event));
  return "the stream ended";
}

async function langgraph({ url, key, does, ...options }, say) {
  const { Client } = await import("@langchain/langgraph-sdk");
  const { runs } = new Client({ apiUrl: url, apiKey: key });
  const created = [];
  const stream = does === "stream"
    ? runs.stream(options.thread, options.assistant, { input: {}, streamMode: "values", onRunCreated: (run) => created.push(run.run_id) })
    : runs.joinStream(options.thread, options.run, options.mode ? { streamMode: options.mode } : undefined);
  for await (const { id, event, data } of stream) say({ id: id ?? "", type: event, data: JSON.stringify(data) });
  return created.join();
}

async function mcp({ url, tool, to }, say) {
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const client = new Client({ name: "real-client", version: "1" });
  client.onerror = (error) => say({ lost: error.message });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  const onprogress = ({ progress, message }) => say({ id: String(progress), type: "progress", data: message });
  const result = await client.callTool({ name: tool, arguments: { to } }, undefined, { onprogress, timeout: 100_000 });
  await client.close();
  return result.content[0].text;
}

const LIBRARIES = { openai, langgraph, mcp };

async function serve({ number, library, ...asked }) {
  const say = (line) => process.stdout.write(JSON.stringify({ number, ...line }) + "\n");
  try {
    say({ end: await LIBRARIES[library](asked, say) });
  } catch (error) {
    say({ error: `${error?.name}: ${error?.message ?? error}` });
  }
}

for await (const line of createInterface({ input: process.stdin })) void serve(JSON.parse(line));
process.exit(0);
