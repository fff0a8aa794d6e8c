// Send a prompt, show the events of the answer, and resume after a cut connection.

const ROUTE = "/sse";
const RETURN_AFTER_MS = 1500;
const MOST_FAILURES = 40; // consecutive: a gateway may take a minute to restart
const WATCH_EVERY_MS = 500;

const element = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let publicUrl = "";
let stream = null; // the latest request

class StreamEnded extends Error {}

function show(id, text) {
  element(id).textContent = text;
}

function say(text, kind = "") {
  show("state", text);
  element("state").className = kind;
}

// Buttons use aria-disabled, because a disabled button would lose the keyboard focus.
function allow(...ids) {
  for (const id of ["send", "cut", "stop"]) element(id).ariaDisabled = String(!ids.includes(id));
}

function whenAllowed(id, does) {
  element(id).addEventListener("click", () => {
    if (element(id).ariaDisabled !== "true") does();
  });
}

// Yield the events of a response body (HTML standard 9.2.6, as far as the producer's events need it).
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { data: [] };
  for (;;) {
    const { value: text, done } = await reader.read();
    if (done) return; // a block without a blank line is not an event
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

// Return the number of the gateway's upstream requests for answers, null if unknown.
async function countCalls() {
  const wanted = ["gateway_upstream_requests_total{", `route="${ROUTE}"`, 'method="POST"']; // excludes the browser's preflights
  try {
    const lines = (await (await fetch("metrics")).text()).split("\n");
    const counts = lines.filter((line) => wanted.every((part) => line.includes(part)));
    return counts.reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
  } catch (error) {
    console.warn("cannot read the gateway's metrics", error);
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
    return text; // not all answers are problem+json
  }
}

async function receive(path, request) {
  stream.connection = new AbortController();
  const response = await fetch(publicUrl + path, { ...request, signal: stream.connection.signal });
  if (response.status === 204) return; // the page has every event
  if (!response.ok) throw new StreamEnded(`${response.status}, ${await readProblem(response)}`);
  stream.id = response.headers.get("Stream-Id");
  if (!stream.id) throw new StreamEnded(`${ROUTE} must be a resumable route of this gateway; see gateway/routes.toml`);
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

// Query the state of a stream whose connection was lost. A gateway that does not answer now may answer later.
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
      say(`Connection lost. Reconnecting in ${RETURN_AFTER_MS / 1000} s with the last event ID.`, "gone");
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
    if (element("answer").textContent === message) say("Complete. No event was lost or repeated.", "good");
    else say("Complete, but the answer differs from the prompt.", "bad");
  } catch (error) {
    if (stream.stopped) say("Stopped, including the upstream.", "gone");
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
    say(`Not stopped: ${error.message}`, "bad");
    allow("cut", "stop");
  }
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (element("send").ariaDisabled !== "true") send();
});
whenAllowed("cut", () => stream.connection.abort()); // closes the connection, like a lost network
whenAllowed("stop", stop);

const settings = await (await fetch("pages/settings.json")).json();
publicUrl = settings.public_url ?? `${location.protocol}//${location.hostname}:${settings.public_port}`;
show("url", publicUrl + ROUTE);
allow("send");
