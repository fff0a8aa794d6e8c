// Sends a prompt, shows the events of the answer, and comes back for the rest when the connection was cut.

const ROUTE = "/sse";
const RETURN_AFTER_MS = 1500;
const MOST_FAILURES = 40; // in a row: a gateway may take a minute to start again
const WATCH_EVERY_MS = 500;

const element = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let publicUrl = "";
let stream = null; // what was asked for last

class StreamEnded extends Error {}

function show(id, text) {
  element(id).textContent = text;
}

function say(text, kind = "") {
  show("state", text);
  element("state").className = kind;
}

// Buttons that cannot be used now keep the keyboard's focus, which they would lose when they were disabled.
function allow(...ids) {
  for (const id of ["send", "cut", "stop"]) element(id).ariaDisabled = String(!ids.includes(id));
}

function whenAllowed(id, does) {
  element(id).addEventListener("click", () => {
    if (element(id).ariaDisabled !== "true") does();
  });
}

// Gives the events of a response body, one after the other (HTML standard 9.2.6, as far as the producer's events need it).
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { data: [] };
  for (;;) {
    const { value: text, done } = await reader.read();
    if (done) return; // what has no blank line yet is no event
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const [, name, value = ""] = line.match(/^([^:]*)(?:: ?(.*))?$/);
      if (name === "data") event.data.push(value);
      else if (name === "id") event.id = value;
      else if (line === "") {
        if (event.data.length) yield { id: event.id, data: event.data.join("\n") };
        event = { data: [] };
      }
    }
  }
}

// Gives how often the gateway has asked the upstream for an answer, or null when it does not say.
async function countCalls() {
  const wanted = ["gateway_upstream_requests_total{", `route="${ROUTE}"`, 'method="POST"']; // a browser asks with OPTIONS before
  try {
    const lines = (await (await fetch("metrics")).text()).split("\n");
    const counts = lines.filter((line) => wanted.every((part) => line.includes(part)));
    return counts.reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
  } catch (error) {
    console.warn("the gateway's metrics cannot be read", error);
    return null;
  }
}

async function showCalls() {
  const calls = await countCalls();
  show("calls", calls === null || stream.callsBefore === null ? "unknown" : calls - stream.callsBefore);
}

async function readProblem(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).detail;
  } catch {
    return text; // not every answer is problem+json
  }
}

async function receive(path, request) {
  stream.connection = new AbortController();
  const response = await fetch(publicUrl + path, { ...request, signal: stream.connection.signal });
  if (response.status === 204) return; // all of it was seen
  if (!response.ok) throw new StreamEnded(`${response.status}, ${await readProblem(response)}`);
  stream.id = response.headers.get("Stream-Id");
  if (!stream.id) throw new StreamEnded(`${ROUTE} is no resumable route of this gateway, gateway/routes.toml has one`);
  show("connections", ++stream.connections);
  allow("cut", "stop");
  say("Receiving…");
  for await (const event of eventsOf(response)) {
    stream.failures = 0;
    show("last", (stream.lastEventId = event.id ?? stream.lastEventId));
    show("events", ++stream.events);
    element("answer").append(event.data);
  }
}

// Asks what has become of a stream whose connection is gone; a gateway that does not answer now may do so later.
async function checkStream() {
  let answer;
  try {
    answer = await fetch(`${publicUrl}/streams/${stream.id}`, { method: "HEAD" });
  } catch (error) {
    if (++stream.failures < MOST_FAILURES) return;
    throw error;
  }
  if (!answer.ok) throw new StreamEnded(`the gateway no longer has the stream (${answer.status})`);
  const state = answer.headers.get("Stream-State");
  const reason = answer.headers.get("Stream-Reason");
  if (state === "running" || state === "complete") return;
  throw new StreamEnded(`the stream is ${state}${reason ? `: ${reason}` : ""}`);
}

async function receiveAll(message) {
  let path = `${ROUTE}?split=word&interval_ms=150`;
  let request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ message }) };
  for (;;) {
    try {
      return await receive(path, request);
    } catch (error) {
      if (error instanceof StreamEnded || !stream.id) throw error;
    }
    if (!stream.stopped) {
      allow("stop");
      say(`The connection is gone. Back in ${RETURN_AFTER_MS / 1000} s, with the last event ID.`, "gone");
      await pause(RETURN_AFTER_MS);
    }
    await checkStream();
    path = `/streams/${stream.id}?${new URLSearchParams({ last_event_id: stream.lastEventId })}`;
    request = {};
  }
}

async function send() {
  const message = element("prompt").value;
  allow();
  show("answer", "");
  show("last", "–");
  for (const id of ["events", "connections", "calls"]) show(id, "0");
  say("Sending…");
  stream = { id: null, lastEventId: "", events: 0, connections: 0, failures: 0, stopped: false, callsBefore: await countCalls() };
  const watch = setInterval(showCalls, WATCH_EVERY_MS);
  try {
    await receiveAll(message);
    if (element("answer").textContent === message) say("Complete. Nothing was lost, nothing came twice.", "good");
    else say("Complete, but it is not what was sent.", "bad");
  } catch (error) {
    if (stream.stopped) say("Stopped, and the upstream with it.", "gone");
    else say(`Failed: ${error instanceof StreamEnded ? error.message : `${publicUrl} does not answer (${error.message})`}`, "bad");
  } finally {
    clearInterval(watch);
    await showCalls();
    allow("send");
  }
}

async function stop() {
  stream.stopped = true;
  allow();
  say("Stopping…");
  try {
    await fetch(`${publicUrl}/streams/${stream.id}`, { method: "DELETE" });
  } catch (error) {
    stream.stopped = false;
    say(`It was not stopped: ${error.message}`, "bad");
    allow("cut", "stop");
  }
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (element("send").ariaDisabled !== "true") send();
});
whenAllowed("cut", () => stream.connection.abort()); // closes the connection, as a lost network does
whenAllowed("stop", stop);

const settings = await (await fetch("pages/settings.json")).json();
publicUrl = settings.public_url ?? `${location.protocol}//${location.hostname}:${settings.public_port}`;
show("url", publicUrl + ROUTE);
allow("send");
