// A server of the Model Context Protocol: `mcp_server.mjs [store]`. A line of the input allows its tools one step. It prints facts as lines of JSON.

import { randomUUID } from "node:crypto";
import http from "node:http";
import { createInterface } from "node:readline";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { isInitializeRequest } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const fact = (name, value) => process.stdout.write(JSON.stringify({ [name]: value }) + "\n");

let allowed = 0;
const waiting = [];
const step = () => (allowed > 0 ? (allowed--, Promise.resolve()) : new Promise((resolve) => waiting.push(resolve)));

class Events {
  events = [];
  async storeEvent(stream, message) {
    this.events.push({ id: `${stream}_${this.events.length}`, stream, message });
    return this.events.at(-1).id;
  }
  async replayEventsAfter(last, { send }) {
    const at = this.events.findIndex(({ id }) => id === last);
    const { stream } = this.events[at];
    for (const event of this.events.slice(at + 1)) if (event.stream === stream && event.message.jsonrpc) await send(event.id, event.message);
    return stream;
  }
}

function serverOfSession() {
  const server = new McpServer({ name: "slow", version: "1" });
  const tool = (name, reports) => server.registerTool(name, { inputSchema: { to: z.number() } }, async ({ to }, { _meta, sendNotification }) => {
    fact("called", name);
    for (let number = 1; number <= to; number++) {
      await step();
      const params = { progressToken: _meta?.progressToken, progress: number, total: to, message: `number ${number}, Zahl ${number} 🌊` };
      if (reports) await sendNotification({ method: "notifications/progress", params });
      fact("said", number);
    }
    return { content: [{ type: "text", text: `counted to ${to}` }] };
  });
  tool("count", true);
  tool("think", false);
  return server;
}

const sessions = new Map();

const listener = http.createServer(async (request, response) => {
  let text = "";
  for await (const piece of request) text += piece;
  const body = text ? JSON.parse(text) : undefined;
  const last = request.headers["last-event-id"];
  if (last) fact("resumed", last);
  if (request.method === "GET" && !last) {
    fact("own", 1);
    response.on("close", () => fact("own", -1));
  }
  let transport = sessions.get(request.headers["mcp-session-id"]);
  if (!transport && isInitializeRequest(body)) {
    const eventStore = process.argv[2] === "store" ? new Events() : undefined;
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID, eventStore, onsessioninitialized: (id) => sessions.set(id, transport),
    });
    await serverOfSession().connect(transport);
  }
  if (transport) await transport.handleRequest(request, response, body);
  else response.writeHead(404).end("no such session");
});
listener.listen(0, "127.0.0.1", () => fact("port", listener.address().port));

for await (const _ of createInterface({ input: process.stdin })) if (waiting.length) waiting.shift()(); else allowed++;
process.exit(0);
