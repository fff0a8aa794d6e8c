"""Judge how a stream survives silence and how it ended."""

import itertools
import statistics
from collections.abc import Iterator

from .anatomy import Anatomy
from .findings import Finding
from .observation import Observation
from .quoting import Quote

_HEARTBEAT_TYPES = {"ping", "heartbeat", "keepalive", "keep-alive"}
_LONGEST_SILENCE_SECONDS = 15.0
_LONGEST_INTERVAL_SECONDS = 55.0  # Heroku's router closes idle connections after 55 s, most load balancers after 60 s
_IDLE_TIMEOUTS = (
    (10, "Vercel and some serverless platforms"),
    (15, "Akka and Play by default"),
    (30, "many proxies, HAProxy's examples among them"),
    (55, "Heroku"),
    (60, "nginx (proxy_read_timeout) and AWS load balancers"),
    (100, "Cloudflare"),
    (120, "IIS"),
    (230, "Azure App Service"),
    (300, "Envoy (stream_idle_timeout), Google Cloud Run"),
    (350, "AWS network load balancer"),
)
_TOLERANCE_SECONDS = 1.0
_IDLE_LEAST_SECONDS = 5.0


def judge_lifetime(seen: Observation, anatomy: Anatomy, quote: Quote) -> Iterator[Finding]:
    """Judge heartbeats, silences and the end of the stream."""
    yield _judge_heartbeat(seen, anatomy, quote)
    yield from _judge_glued_comments(anatomy, quote)
    yield _judge_end(seen, anatomy, quote)
    if (cut := _judge_idle_cut(seen)) is not None:
        yield cut


def longest_silence(seen: Observation) -> float:
    """Return the longest time without a byte between the head and the end, in seconds."""
    begin = seen.head.seconds if seen.head is not None else seen.sent_seconds
    times = [begin, *(arrival.seconds for arrival in seen.body), seen.ended_seconds]
    return max(after - before for before, after in itertools.pairwise(times))


def _judge_heartbeat(seen: Observation, anatomy: Anatomy, quote: Quote) -> Finding:
    beats = [(comment.seconds, _form(comment.text, comment.alone, quote)) for comment in anatomy.comments if comment.alone or comment.early]
    events = [block for block in anatomy.blocks if block.event is not None and block.event.type.lower() in _HEARTBEAT_TYPES]
    beats += [(block.seconds, f"an event of type {quote(block.event.type)}") for block in events if block.event is not None]
    silence = longest_silence(seen)
    if not beats:
        return _judge_no_heartbeat(seen, silence)
    beats.sort()
    times = [seconds for seconds, _ in beats]
    forms = ", ".join(dict.fromkeys(form for _, form in beats[:10]))
    if len(times) == 1:
        return Finding(
            "heartbeat", "ok", f"one in {seen.ended_seconds - seen.sent_seconds:.0f} s: {forms}; longest silence {silence:.1f} s"
        )
    interval = statistics.median(after - before for before, after in itertools.pairwise(times))
    shown = f"{len(times)}, {interval:.1f} s apart: {forms}"
    if interval > _LONGEST_INTERVAL_SECONDS:
        means = "proxies close connections that are silent for a minute"
        return Finding("heartbeat", "warning", shown, means, "send one at least every 30 s")
    return Finding("heartbeat", "ok", f"{shown}; longest silence {silence:.1f} s")


def _judge_glued_comments(anatomy: Anatomy, quote: Quote) -> Iterator[Finding]:
    """Report events whose block begins with a comment: some clients skip the whole block."""
    glued = []
    for block in anatomy.blocks:
        if "id" in block.names():
            break  # after the first ID a comment in its own block is worse: OpenAI's SDK treats it as an event
        if block.event is not None and block.lines()[0][:1] == b":":
            glued.append(block)
    if glued:
        means = "clients that skip blocks beginning with a comment lose these events"
        do = "before the first id, end a comment with a blank line (:\\n\\n); after it, do not (OpenAI's SDK fails on it then)"
        shown = f"{len(glued)} events without an id begin with a comment line: {quote(glued[0].raw, 40)}"
        yield Finding("comments ahead", "warning", shown, means, do)


def _form(text: bytes, alone: bool, quote: Quote) -> str:
    line = f"comment line {quote(b':' + (b' ' + text if text else b''), 30)}"
    return f"{line} and a blank line" if alone else line


def _judge_no_heartbeat(seen: Observation, silence: float) -> Finding:
    shown = f"none; longest silence {silence:.1f} s"
    if seen.ending != "open" or silence < _LONGEST_SILENCE_SECONDS:
        if seen.ending != "open" or seen.body:
            return Finding("heartbeat", "ok", f"{shown}: none needed so far")
        return Finding("heartbeat", "note", shown, "too short to tell how silence is handled", "listen longer (--seconds 40)")
    means = "a silent stream looks dead: proxies close it after a minute, and clients do not notice a lost connection"
    return Finding("heartbeat", "warning", shown, means, "send a comment line (:\\n) every 15 s")


def _judge_end(seen: Observation, anatomy: Anatomy, quote: Quote) -> Finding:
    after = f"after {seen.ended_seconds - seen.sent_seconds:.1f} s"
    has_length = seen.head is not None and seen.head.get("Content-Length") is not None
    match seen.ending:
        case "open":
            return Finding("end", "ok", f"still open {after}")
        case "reset":
            means = "clients see a network error and may lose the last events: a crash, a kill, or a proxy's timeout"
            return Finding("end", "problem", f"reset {after}: {quote(seen.failure)}", means, "check the logs of that moment, hop by hop")
        case "cut":
            missing = "before Content-Length was reached" if has_length else "without the last chunk"
            means = "the sender closed the connection before the end of the response: a crash or a timeout; clients see a network error"
            return Finding(
                "end", "problem", f"closed {after} {missing}{_left_over(anatomy)}", means, "check the logs of that moment, hop by hop"
            )
        case _:
            return _judge_complete_end(seen, anatomy, after, quote)


def _left_over(anatomy: Anatomy) -> str:
    return f", {len(anatomy.unfinished)} bytes into a block" if anatomy.unfinished.strip(b"\r\n") else ""


def _judge_complete_end(seen: Observation, anatomy: Anatomy, after: str, quote: Quote) -> Finding:
    left = anatomy.unfinished.strip(b"\r\n")
    if not left:
        return Finding("end", "ok", f"ended cleanly {after}, after a complete block")
    lines = left.splitlines()
    if all(line[:1] == b":" for line in lines):
        return Finding("end", "ok", f"ended cleanly {after}, after a comment line")
    if all(line.startswith((b":", b"retry:")) for line in lines):
        return Finding("end", "ok", f"ended cleanly {after}, after a retry line")
    shown = f"ended cleanly {after}, but inside a block: {quote(left[-40:])}"
    means = "clients discard a block without a blank line, and do not notice that an event is missing"
    do = "send a blank line after the last event; a proxy must abort a response that its upstream cut"
    if not anatomy.unfinished.endswith((b"\n", b"\r")) and seen.head is not None and not seen.head.delimited():
        means += "; where only the end of the connection ends the response, this cannot be told from a cut"
    elif sum(line.startswith(b"data") for line in lines) > 1:
        means = f"{len(lines)} lines without a blank line: to clients they are one event that never ends, so they get none"
        do = "send a blank line after each event: two line ends, not one"
    return Finding("end", "problem", shown, means, do)


def _judge_idle_cut(seen: Observation) -> Finding | None:
    """Return a finding if the stream ended after a silence, as idle timeouts do."""
    last = seen.body[-1].seconds if seen.body else seen.head.seconds if seen.head else seen.sent_seconds
    silence = seen.ended_seconds - last
    if seen.ending == "open" or seen.head is None or silence < _IDLE_LEAST_SECONDS:
        return None
    who = [name for seconds, name in _IDLE_TIMEOUTS if abs(silence - seconds) <= _TOLERANCE_SECONDS]
    shown = f"ended after {silence:.1f} s without a byte" + (f", the timeout of {who[0]}" if who else "")
    means = "probably an idle timeout on the way: every silent stream is cut like this, again and again"
    do = "send heartbeats more often than that, or raise the timeout for this path (nginx: proxy_read_timeout, HAProxy: timeout server)"
    return Finding("idle cut", "warning" if seen.ending == "complete" and not who else "problem", shown, means, do)
