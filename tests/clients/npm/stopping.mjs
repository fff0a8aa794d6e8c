// Follows one POST stream with each of three clients, which reconnect for ever, until they wait for more than a day or ask too often.
// Prints for each the ids of its events, the last event ID of each request, and how long it waits in the end, in milliseconds:
// node stopping.mjs <URL> <body> <key>
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";

const [url, body, key] = process.argv.slice(2);
const headers = { "Content-Type": "application/json", Authorization: `Bearer ${key}` };
const MOST_REQUESTS = 5;
const DAY_MS = 86_400_000;
const realSetTimeout = globalThis.setTimeout;

globalThis.window = globalThis; // fetch-event-source is made for browsers
globalThis.document = { addEventListener() {}, removeEventListener() {} };

const clients = {
  eventsource(send, take) {
    new EventSource(url, { fetch: send }).onmessage = (event) => take(event.lastEventId);
  },
  "eventsource-client"(send, take) {
    createEventSource({ url, fetch: send, onMessage: (event) => take(event.id) });
  },
  "fetch-event-source"(send, take) {
    const onclose = () => { throw new Error("come back"); }; // without it, any clean end is the last
    fetchEventSource(url, { fetch: send, onmessage: (event) => take(event.id), onclose, openWhenHidden: true });
  },
};

function follow(client) {
  const outcome = { ids: [], requests: [], delay: null };
  return new Promise((resolve) => {
    globalThis.setTimeout = (callback, delay, ...rest) => {
      if (delay <= DAY_MS) return realSetTimeout(callback, delay, ...rest);
      outcome.delay = delay;
      return resolve(outcome);
    };
    const send = (target, init) => {
      const asked = new Headers(init.headers);
      outcome.requests.push(asked.get("Last-Event-ID"));
      if (outcome.requests.length > MOST_REQUESTS) return new Promise(() => resolve(outcome));
      return fetch(target, { ...init, method: "POST", body, headers: { ...Object.fromEntries(asked), ...headers } });
    };
    clients[client](send, (id) => outcome.ids.push(id));
  });
}

const outcomes = {};
for (const client of Object.keys(clients)) outcomes[client] = await follow(client);
console.log(JSON.stringify(outcomes));
process.exit();
