// Sends a prompt, shows the events of the answer, and comes back for the rest when the connection was cut.

const RETURN_AFTER_MS = 1500;
const ROUTE = "/sse";

const element = (id) => document.getElementById(id);
const settings = await (await fetch("pages/settings.json")).json();
const publicUrl = settings.public_url || `${location.protocol}//${location.hostname}:${settings.public_port}`;
element("url").textContent = publicUrl + ROUTE;

let stream = null; // what is being received

function say(text, bad = false) {
  element("state").textContent = text;
  element("state").classList.toggle("bad", bad);
}

function allow({ send, cut, stop }) {
  element("send").disabled = !send;
  element("cut").disabled = !cut;
  element("stop").disabled = !stop;
}

// Gives the events of a response body, one after the other (HTML standard 9.2.6, as far as the producer's events need it).
async function* eventsOf(response) {
  let rest = "";
  let event = { data: [], id: null, type: "message" };
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const [, name, value = ""] = line.match(/^([^:]*)(?:: ?(.*))?$/);
      if (line === "") {
        if (event.data.length) yield { ...event, data: event.data.join("\n") };
        event = { data: [], id: null, type: "message" };
      } else if (name === "data") event.data.push(value);
      else if (name === "id") event.id = value;
      else if (name === "event") event.type = value;
    }
  }
}

async function upstreamCalls() {
  const metrics = await (await fetch("metrics")).text();
  const lines = metrics.split("\n").filter((line) => line.startsWith("gateway_upstream_requests_total{") && line.includes(`"${ROUTE}"`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
}

async function showCalls() {
  element("calls").textContent = (await upstreamCalls()) - stream.callsBefore;
}

async function receive(request) {
  stream.abort = new AbortController();
  const response = await request(stream.abort.signal);
  if (!response.ok) throw new Error(`${response.status}: ${(await response.json()).detail ?? response.statusText}`);
  stream.id ??= response.headers.get("Stream-Id");
  element("connections").textContent = ++stream.connections;
  allow({ cut: true, stop: true });
  say("Receiving…");
  for await (const event of eventsOf(response)) {
    if (event.id) element("last").textContent = stream.lastEventId = event.id;
    element("answer").textContent += event.data;
    element("events").textContent = ++stream.events;
  }
}

async function receiveAll(body) {
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  let request = (signal) => fetch(`${publicUrl}${ROUTE}?split=word&interval_ms=150`, { method: "POST", headers, body, signal });
  for (;;) {
    try {
      await receive(request);
      return;
    } catch (error) {
      if (stream.stopped || !stream.id || !["AbortError", "TypeError"].includes(error.name)) throw error;
    }
    allow({ stop: true });
    say(`The connection is gone. Back in ${RETURN_AFTER_MS / 1000} s, with the last event ID.`, true);
    await new Promise((resolve) => setTimeout(resolve, RETURN_AFTER_MS));
    const query = new URLSearchParams({ last_event_id: stream.lastEventId });
    request = (signal) => fetch(`${publicUrl}/streams/${stream.id}?${query}`, { signal });
  }
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  allow({});
  for (const id of ["answer", "last"]) element(id).textContent = "";
  for (const id of ["events", "connections", "calls"]) element(id).textContent = "0";
  say("Sending…");
  const message = element("prompt").value;
  stream = { id: null, lastEventId: "", events: 0, connections: 0, stopped: false, callsBefore: await upstreamCalls() };
  const watch = setInterval(showCalls, 500);
  try {
    await receiveAll(JSON.stringify({ message }));
    say(element("answer").textContent === message ? "Complete: the answer is whole, nothing came twice." : "Complete, but not what was sent.");
  } catch (error) {
    say(stream.stopped ? "Stopped, upstream too." : `Failed: ${error.message}`, !stream.stopped);
  } finally {
    clearInterval(watch);
    await showCalls();
    allow({ send: true });
  }
});

element("cut").addEventListener("click", () => stream.abort.abort());

element("stop").addEventListener("click", async () => {
  stream.stopped = true;
  await fetch(`${publicUrl}/streams/${stream.id}`, { method: "DELETE" });
});
