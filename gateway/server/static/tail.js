// Show the bytes of one stream as they arrive: each chunk with the blocks that it completes, and the boundaries of chunks.

import { find, make, mark, show } from "./elements.js";
import { bytes, clock, plural } from "./format.js";

const MOST_ENTRIES = 200;
const LINE_END = /(\r\n|\r|\n)/;
const SHOWN_LINE_ENDS = { "\r\n": "\\r\\n\n", "\r": "\\r\n", "\n": "\\n\n" };

const dialog = find("tail");
const log = find("tail-log");
let source = null;
let paused = false;
let missed = 0;

function withLineEnds(text) {
  return text
    .split(LINE_END)
    .filter(Boolean)
    .map((part) => (part in SHOWN_LINE_ENDS ? make("span", { className: "end-of-line", text: SHOWN_LINE_ENDS[part] }) : part));
}

// Return the part of `sent` that was inserted into `block`.
function added(block, sent) {
  let begin = 0;
  while (begin < block.length && block[begin] === sent[begin]) begin++;
  let end = 0;
  while (end < block.length - begin && block.at(-1 - end) === sent.at(-1 - end)) end++;
  return sent.slice(begin, sent.length - end);
}

function showBlock({ parts, size, sent }) {
  const bytesShown = make("pre");
  parts.forEach((part, index) => {
    if (index) bytesShown.append(make("span", { className: "cut", text: "┃", title: "next chunk", role: "img", "aria-label": "chunk boundary" }));
    bytesShown.append(...withLineEnds(part));
  });
  const whole = parts.join("");
  const block = make("div", { className: "block" }, bytesShown);
  if (size > new TextEncoder().encode(whole).length) block.append(make("p", { text: `… ${bytes(size)} in total` }));
  if (sent === null) block.append(make("p", { text: "sent with the next event" }));
  else if (sent !== undefined) block.append(make("p", { className: "sent" }, "sent with ", make("code", { text: added(whole, sent).trim() })));
  return block;
}

function add(...entries) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(...entries);
  while (log.children.length > MOST_ENTRIES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function note(text) {
  add(make("li", { className: "note", text }));
}

function showChunk({ at, chunk, pending, blocks }) {
  const facts = [blocks.length ? `completes ${plural(blocks.length, "block", "blocks")}` : "completes no block"];
  if (pending) facts.push(`${bytes(pending)} pending`);
  const head = make(
    "p",
    { className: "chunk" },
    make("time", { text: clock(at, { milliseconds: true }) }),
    make("strong", { text: `chunk of ${bytes(chunk)}` }),
    make("span", { text: facts.join(", ") }),
  );
  return make("li", {}, head, ...blocks.map(showBlock));
}

function showChunks({ chunks, left_out_chunks: leftOut, left_out_blocks: leftOutBlocks }) {
  if (paused) {
    missed += chunks.length + leftOut;
    say(`Paused; ${plural(missed, "chunk has", "chunks have")} arrived meanwhile`, "warn");
    return;
  }
  add(...chunks.slice(-MOST_ENTRIES).map(showChunk));
  if (leftOut || leftOutBlocks) {
    note(`${plural(leftOut, "chunk", "chunks")} and ${plural(leftOutBlocks, "block", "blocks")} more arrived at the same time, too many to show`);
  }
}

function say(text, kind = "") {
  show(find("tail-state"), text);
  mark(find("tail-state"), kind);
}

function follow(stream) {
  say("Connecting…");
  source = new EventSource(`dashboard/streams/${stream.key}/tail`);
  source.onopen = () => say("Live");
  source.addEventListener("history", (event) => {
    const { blocks } = JSON.parse(event.data);
    if (blocks.length) add(make("li", { className: "earlier" }, make("p", { className: "chunk" }, make("span", { text: "earlier, as sent" })), ...blocks.map(showBlock)));
    note("Live from here");
  });
  source.addEventListener("chunks", (event) => showChunks(JSON.parse(event.data)));
  source.addEventListener("end", (event) => {
    const { verdict, reason } = JSON.parse(event.data);
    source.close();
    note(`The stream has ended: ${verdict}${reason ? ` (${reason})` : ""}`);
    say(`Ended: ${verdict}`, "quiet");
  });
  source.onerror = () => {
    const closed = source.readyState === EventSource.CLOSED;
    source.close(); // a stream's number is valid for one connection of this page
    say(closed ? "The stream has ended, or too many tails are open; close this and try again" : "Connection lost; close this and tail the stream again", "bad");
  };
}

function pause(wanted) {
  paused = wanted;
  missed = 0;
  find("tail-pause").setAttribute("aria-pressed", String(paused));
  if (source?.readyState === EventSource.OPEN) say(paused ? "Paused" : "Live", paused ? "warn" : "");
}

export function openTail(stream) {
  show(find("tail-title"), stream.path);
  log.replaceChildren();
  pause(false);
  dialog.showModal();
  find("tail-title").focus();
  follow(stream);
}

find("tail-pause").addEventListener("click", () => pause(!paused));
find("tail-clear").addEventListener("click", () => log.replaceChildren());
find("tail-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  source?.close();
  log.replaceChildren();
});
