// Show the gateway's snapshots, which arrive each second over its event stream.

import { Chart, linear, logarithmic } from "./chart.js";
import { Children, Table, find, make, mark, show } from "./elements.js";
import { bytes, clock, count, duration, figure, plural, rate, share } from "./format.js";
import { openTail } from "./tail.js";

const SECONDS_SHOWN = 180;
const MOST_MARKS_LISTED = 50;
const MOST_ENDED_LISTED = 12;
const CONFIRM_MS = 3000;

const KINDS = {
  lost: ["✕", "Upstream lost"],
  back: ["↻", "Upstream is back"],
  gap: ["◆", "Gap"],
  cut: ["✕", "Stream cut"],
  behind: ["▼", "Too slow, closed"],
  worker: ["■", "Worker ended"],
  reloaded: ["✓", "Routes reloaded"],
  "not-reloaded": ["!", "Routes not reloaded"],
};
const KIND_OF_STATE = {
  ready: "good",
  open: "good",
  running: "good",
  complete: "quiet",
  left: "quiet",
  drained: "quiet",
  stopped: "quiet",
  expired: "quiet",
  unknown: "quiet",
  connecting: "warn",
  reconnecting: "warn",
  draining: "warn",
  behind: "warn",
  "held back": "warn",
  orphaned: "warn",
};

let points = [];
let snapshot = null;

function showState(element, state, reason = "") {
  mark(element, `state ${KIND_OF_STATE[state] ?? "bad"}`);
  show(element, state);
  if (element.title !== reason) element.title = reason;
}

// Fill a cell with a main line and a muted one below it.
function showTwo(cell, main, below, { mono = false, state = null } = {}) {
  if (!cell.firstElementChild) cell.append(make("span", { className: mono ? "main mono" : "main" }), make("span", { className: "below" }));
  const [first, second] = cell.children;
  if (state) showState(first, state);
  else show(first, main);
  show(second, below);
  const whole = below ? `${main}\n${below}` : main;
  if (cell.title !== whole) cell.title = whole;
}

const text = (of) => (cell, item) => show(cell, of(item));
const number = (name, of, className = "") => ({ name, className: `number ${className}`, show: text(of) });

function workerOf(item) {
  return snapshot.workers.length ? ` · worker ${item.worker}` : "";
}

// Return the name of a kept answer, which the gateway has shortened.
function nameOf(item) {
  return item.name ? ` · name ${item.name}` : "";
}

const routes = new Table(find("routes"), [
  { name: "Route", className: "wide", show: (cell, route) => showTwo(cell, route.path, route.upstream, { mono: true }) },
  { name: "Mode", className: "word", show: text((route) => route.mode) },
  number("Streams", (route) => count(route.streams)),
  number("Subscribers", (route) => count(route.subscribers)),
  number("In /s", (route) => rate(route.in)),
  number("Out /s", (route) => rate(route.out)),
  number("Sent /s", (route) => bytes(route.bytes_out)),
  number("History", (route) => (route.mode === "direct" ? "–" : bytes(route.history_bytes))),
]);

const streams = new Table(find("streams"), [
  { name: "Stream", className: "wide", show: (cell, stream) => showTwo(cell, stream.path, `${stream.route} · ${stream.mode}${nameOf(stream)}${workerOf(stream)}`, { mono: true }) },
  { name: "State", className: "word", show: (cell, stream) => showTwo(cell, stream.state, stateOf(stream), { state: stream.state }) },
  number("Subscribers", (stream) => count(stream.subscribers)),
  number("Events /s", (stream) => rate(stream.rate)),
  { name: "Behind", className: "number", show: (cell, stream) => showTwo(cell, stream.lag === null ? "–" : count(stream.lag), stream.slow ? `${count(stream.slow)} slow` : "") },
  {
    name: "History",
    className: "number",
    show: (cell, stream) => showTwo(cell, bytes(stream.history_bytes), stream.history_blocks === null ? "" : plural(stream.history_blocks, "block", "blocks")),
  },
  { name: "Last event ID", className: "id", show: (cell, stream) => showTwo(cell, stream.last_id || "–", "", { mono: true }) },
  { name: "Actions", className: "action", unseen: true, show: showButtons },
]);

const ended = new Table(find("ended"), [
  { name: "At", className: "time", show: text((stream) => clock(stream.at)) },
  { name: "Stream", className: "wide", show: (cell, stream) => showTwo(cell, stream.path, `${stream.method} · route ${stream.route}${nameOf(stream)}`, { mono: true }) },
  { name: "Verdict", className: "verdict", show: (cell, stream) => showTwo(cell, stream.verdict, stream.reason, { state: stream.verdict }) },
  number("Events", (stream) => count(stream.blocks)),
  number("Sent", (stream) => bytes(stream.bytes)),
  number("Open for", (stream) => duration(stream.seconds)),
]);

function stateOf(stream) {
  if (stream.state !== "open" && stream.reason) return stream.reason;
  return stream.connections > 1 ? plural(stream.connections - 1, "reconnection", "reconnections") : "";
}

function showButtons(cell, stream) {
  if (!cell.firstElementChild) {
    const tail = make("button", { type: "button", text: "Tail", "aria-label": `Tail ${stream.path}` });
    tail.onclick = () => openTail(stream);
    if (stream.mode === "resumable") cell.append(makeStopButton(stream));
    cell.append(tail);
  }
}

// The second press within three seconds stops the answer.
function makeStopButton(stream) {
  const button = make("button", { type: "button", className: "stop" });
  let disarming = null;
  const arm = (armed) => {
    clearTimeout(disarming);
    disarming = armed ? setTimeout(arm, CONFIRM_MS, false) : null;
    button.classList.toggle("armed", armed);
    show(button, armed ? "Sure?" : "Stop");
    button.setAttribute("aria-label", armed ? `Press again to stop ${stream.path}` : `Stop ${stream.path}`);
  };
  button.onclick = () => {
    const confirmed = disarming !== null;
    arm(!confirmed);
    if (confirmed) stop(stream);
  };
  arm(false);
  return button;
}

async function stop(stream) {
  const note = find("stop-state");
  show(note, "");
  try {
    const answer = await fetch(`dashboard/stop/${stream.key}`, { method: "POST" });
    if (!answer.ok) show(note, `${stream.path} was not stopped: ${(await answer.json()).detail}`);
  } catch {
    show(note, `${stream.path} was not stopped: the gateway does not answer`);
  }
}

const services = new Children(
  find("services"),
  () =>
    make(
      "li",
      { className: "panel" },
      make("h3", {}, make("span", { className: "name" }), make("span", { className: "state" })),
      make("p", { className: "reason" }),
      make("dl", { className: "facts" }),
    ),
  (card, service) => {
    const [title, reason, facts] = card.children;
    show(title.children[0], service.name);
    showState(title.children[1], service.state === "gone" ? "unreachable" : service.state);
    show(reason, service.reason);
    if (facts.children.length !== service.facts.length) {
      facts.replaceChildren(...service.facts.map(() => make("div", {}, make("dt"), make("dd"))));
    }
    service.facts.forEach(([label, value], index) => {
      const [name, shown] = facts.children[index].children;
      show(name, label);
      show(shown, value);
    });
  },
);

function gatewayCard() {
  const { workers } = snapshot;
  const ready = workers.filter((worker) => worker.state === "ready").length;
  return {
    name: "gateway",
    state: snapshot.state,
    reason: snapshot.reason,
    facts: [
      workers.length ? ["workers", `${ready} of ${workers.length}`] : ["requests", count(snapshot.requests)],
      ["memory", bytes(snapshot.memory_bytes)],
      ["CPU", share(snapshot.cpu)],
    ],
  };
}

function showServices() {
  const others = snapshot.services.map(({ name, state, reason, figures }) => ({
    name,
    state,
    reason,
    facts: figures.map(({ label, value, unit }) => [label, figure(value, unit)]),
  }));
  services.show([gatewayCard(), ...others], (service) => service.name);
}

const charts = [
  new Chart(find("events-chart"), {
    title: "Events per second",
    seconds: SECONDS_SHOWN,
    format: rate,
    scale: linear(10),
    lines: [
      { key: "in", name: "in", className: "first" },
      { key: "out", name: "out", className: "second", filled: true },
    ],
  }),
  new Chart(find("latency-chart"), {
    title: "Added latency",
    seconds: SECONDS_SHOWN,
    format: duration,
    scale: logarithmic(1e-5, [0.1, 10]),
    lines: [
      { key: "latency_p50", name: "median", className: "first" },
      { key: "latency_p99", name: "99 %", className: "second" },
      { key: "loop_lag", name: "loop lag", className: "third" },
    ],
  }),
];

const lane = new Children(
  find("lane"),
  (item) => make("span", { className: `glyph ${item.kind}`, text: (KINDS[item.kind] ?? ["●"])[0], title: `${clock(item.at)} ${describe(item)}` }),
  (glyph, item) => {
    glyph.style.left = `${100 * (1 - (snapshot.at - item.at) / SECONDS_SHOWN)}%`;
  },
);
const marks = new Children(
  find("marks"),
  (item) =>
    make(
      "li",
      {},
      make("span", { className: `glyph ${item.kind}`, "aria-hidden": "true", text: (KINDS[item.kind] ?? ["●"])[0] }),
      make("time", { text: clock(item.at) }),
      make("span", { className: "what", text: KINDS[item.kind]?.[1] ?? item.kind }),
      make("span", { className: "times" }),
      make("span", { className: "where mono", text: item.path || item.route }),
      make("span", { className: "detail", text: item.detail }),
    ),
  (entry, item) => show(entry.querySelector(".times"), item.count > 1 ? `× ${count(item.count)}` : ""),
);

function describe(item) {
  const what = KINDS[item.kind]?.[1] ?? item.kind;
  return [`${what}${item.count > 1 ? ` × ${count(item.count)}` : ""}`, item.path || item.route, item.detail].filter(Boolean).join(", ");
}

function showMarks() {
  const keyOf = (item) => `${item.at} ${item.kind} ${item.route} ${item.path}`;
  lane.show(snapshot.marks.filter((item) => snapshot.at - item.at < SECONDS_SHOWN), keyOf);
  marks.show(snapshot.marks.slice(-MOST_MARKS_LISTED).reverse(), keyOf);
  find("no-marks").hidden = snapshot.marks.length > 0;
  find("marks").hidden = snapshot.marks.length === 0;
}

function showStreams() {
  const wanted = find("filter").value.trim().toLowerCase();
  const shown = snapshot.streams.filter((stream) => `${stream.path} ${stream.route} ${stream.mode}`.toLowerCase().includes(wanted));
  streams.show(shown, (stream) => `${stream.key} ${stream.mode} ${stream.path}`); // a restarted gateway numbers streams anew
  find("streams").hidden = shown.length === 0;
  const note = find("no-streams");
  const more = snapshot.streams_left_out;
  if (!snapshot.streams.length) show(note, "No event stream is open.");
  else if (!shown.length) show(note, "No listed stream matches.");
  else if (more) show(note, `${plural(more, "more stream is", "more streams are")} open, but less busy.`);
  note.hidden = shown.length > 0 && !more;
}

function showEnded() {
  const newest = snapshot.ended.slice(-MOST_ENDED_LISTED).reverse();
  ended.show(newest, (stream) => `${stream.at} ${stream.path}`);
  find("ended").hidden = newest.length === 0;
  find("no-ended").hidden = newest.length > 0;
}

function showAll() {
  show(find("subscribers"), count(snapshot.subscribers));
  show(find("stream-count"), count(snapshot.streams.length + snapshot.streams_left_out));
  show(find("in"), rate(snapshot.in));
  show(find("out"), rate(snapshot.out));
  show(find("sent"), bytes(snapshot.bytes_out));
  showServices();
  for (const chart of charts) chart.show(points, snapshot.marks, snapshot.at);
  showMarks();
  routes.show(snapshot.routes, (route) => route.path);
  showStreams();
  showEnded();
}

function say(state, what) {
  mark(find("connection"), `connection ${state}`);
  show(find("connection"), what);
  mark(find("main"), state === "live" ? "" : "stale");
}

function follow() {
  const source = new EventSource("dashboard/events");
  source.addEventListener("series", (event) => {
    const { names, points: known } = JSON.parse(event.data);
    points = known.map((values) => Object.fromEntries(names.map((name, index) => [name, values[index]])));
  });
  source.addEventListener("snapshot", (event) => {
    snapshot = JSON.parse(event.data);
    if (snapshot.at !== points.at(-1)?.at) points.push(snapshot);
    points = points.filter((point) => point.at > snapshot.at - SECONDS_SHOWN);
    say("live", "Live");
    showAll();
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      say("lost", "The gateway rejected the request; retrying");
      setTimeout(follow, 5000);
    } else say("lost", "Connection lost; reconnecting");
  };
}

find("filter").addEventListener("input", () => snapshot && showStreams());
follow();
