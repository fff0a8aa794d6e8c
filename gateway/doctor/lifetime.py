"""Judges how a stream bears silence, and how it ended."""

import itertools
import statistics
from collections.abc import Iterator

from .anatomy import Anatomy
from .findings import Finding
from .observation import Observation
from .quoting import Quote

_HEARTBEAT_TYPES = {"ping", "heartbeat", "keepalive", "keep-alive"}
_LONGEST_SILENCE_SECONDS = 15.0
_LONGEST_INTERVAL_SECONDS = 55.0  # some routers cut at that, most load balancers at 60
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
    """Judges heartbeats, silences and the end."""
    yield _judge_heartbeat(seen, anatomy, quote)
    yield from _judge_glued_comments(anatomy, quote)
    yield _judge_end(seen, anatomy, quote)
    if (cut := _judge_idle_cut(seen)) is not None:
        yield cut


def longest_silence(seen: Observation) -> float:
    """Gives the longest time without a byte, from the head to the end, in seconds."""
    begin = seen.head.seconds if seen.head is not None else seen.asked_seconds
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
            "heartbeat", "ok", f"one in {seen.ended_seconds - seen.asked_seconds:.0f} s: {forms}; longest silence {silence:.1f} s"
        )
    interval = statistics.median(after - before for before, after in itertools.pairwise(times))
    shown = f"{len(times)}, {interval:.1f} s apart: {forms}"
    if interval > _LONGEST_INTERVAL_SECONDS:
        means = "proxies cut connections that are silent for a minute"
        return Finding("heartbeat", "warning", shown, means, "send one at least every 30 s")
    return Finding("heartbeat", "ok", f"{shown}; longest silence {silence:.1f} s")


def _judge_glued_comments(anatomy: Anatomy, quote: Quote) -> Iterator[Finding]:
    """Clients that know comments only as blocks of their own lose an event whose block begins with one."""
    glued = []
    for block in anatomy.blocks:
        if "id" in block.names():
            break  # from here on a comment in a block of its own is worse: OpenAI's SDK takes it for an event
        if block.event is not None and block.lines()[0][:1] == b":":
            glued.append(block)
    if glued:
        means = "clients that split at blank lines and skip blocks that begin with a comment lose these events"
        do = "while no event has an id, send a comment with a blank line (:\\n\\n); once one has, without (OpenAI's SDK fails on it then)"
        shown = f"{len(glued)} events without an id begin with a comment line: {quote(glued[0].raw, 40)}"
        yield Finding("comments ahead", "warning", shown, means, do)


def _form(text: bytes, alone: bool, quote: Quote) -> str:
    line = f"comment line {quote(b':' + (b' ' + text if text else b''), 30)}"
    return f"{line} and a blank line" if alone else line


def _judge_no_heartbeat(seen: Observation, silence: float) -> Finding:
    shown = f"none; longest silence {silence:.1f} s"
    if seen.ending != "open" or silence < _LONGEST_SILENCE_SECONDS:
        if seen.ending != "open" or seen.body:
            return Finding("heartbeat", "ok", f"{shown}: none was needed yet")
        return Finding("heartbeat", "note", shown, "too short to tell what happens in a silence", "listen longer (--seconds 40)")
    means = "a silent stream looks like a dead one: proxies cut it after a minute, and no client notices a lost connection"
    return Finding("heartbeat", "warning", shown, means, "send a comment line (:\\n) every 15 s")


def _judge_end(seen: Observation, anatomy: Anatomy, quote: Quote) -> Finding:
    after = f"after {seen.ended_seconds - seen.asked_seconds:.1f} s"
    has_length = seen.head is not None and seen.head.get("Content-Length") is not None
    match seen.ending:
        case "open":
            return Finding("end", "ok", f"still open {after}")
        case "reset":
            means = "clients see a network error and may lose what was sent last: a crash, a kill, or a proxy's timeout"
            return Finding(
                "end", "problem", f"reset {after}: {quote(seen.failure)}", means, "look into the logs of that moment, hop by hop"
            )
        case "cut":
            missing = "before Content-Length was reached" if has_length else "without the last chunk"
            means = "the answer was cut: whoever sent it went away in the middle, a crash or a timeout; clients see a network error"
            return Finding(
                "end", "problem", f"closed {after} {missing}{_left_over(anatomy)}", means, "look into the logs of that moment, hop by hop"
            )
        case _:
            return _judge_complete_end(seen, anatomy, after, quote)


def _left_over(anatomy: Anatomy) -> str:
    return f", {len(anatomy.unfinished)} bytes into a block" if anatomy.unfinished.strip(b"\r\n") else ""


def _judge_complete_end(seen: Observation, anatomy: Anatomy, after: str, quote: Quote) -> Finding:
    left = anatomy.unfinished.strip(b"\r\n")
    if not left:
        return Finding("end", "ok", f"ended in order {after}, behind a whole block")
    lines = left.splitlines()
    if all(line[:1] == b":" for line in lines):
        return Finding("end", "ok", f"ended in order {after}, behind a comment line")
    if all(line.startswith((b":", b"retry:")) for line in lines):
        return Finding("end", "ok", f"ended in order {after}, behind a line that says when to come back")
    shown = f"ended in order {after}, but inside a block: {quote(left[-40:])}"
    means = "clients discard a block without a blank line, and nothing tells them that something is missing"
    do = "send the blank line of the last event; a proxy has to abort what its upstream cut"
    if not anatomy.unfinished.endswith((b"\n", b"\r")) and seen.head is not None and not seen.head.delimited():
        means += "; where only the end of the connection delimits the answer, this cannot be told from a cut"
    elif sum(line.startswith(b"data") for line in lines) > 1:
        means = f"{len(lines)} lines, and no blank line behind any: clients see one event that never ends, and get none"
        do = "send a blank line behind each event: two line ends, not one"
    return Finding("end", "problem", shown, means, do)


def _judge_idle_cut(seen: Observation) -> Finding | None:
    """Says so when the stream ended after a silence, which is what idle timeouts do."""
    last = seen.body[-1].seconds if seen.body else seen.head.seconds if seen.head else seen.asked_seconds
    silence = seen.ended_seconds - last
    if seen.ending == "open" or seen.head is None or silence < _IDLE_LEAST_SECONDS:
        return None
    who = [name for seconds, name in _IDLE_TIMEOUTS if abs(silence - seconds) <= _TOLERANCE_SECONDS]
    shown = f"it ended after {silence:.1f} s without a byte" + (f", the time of {who[0]}" if who else "")
    means = "an idle timeout on the way, most likely: each silent subscriber is cut so, again and again"
    do = "send heartbeats more often than that, or raise the timeout for this path (nginx: proxy_read_timeout, HAProxy: timeout server)"
    return Finding("idle cut", "warning" if seen.ending == "complete" and not who else "problem", shown, means, do)
