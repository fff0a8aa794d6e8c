"""Speed of the event-stream core on one CPU, without sockets: `Framer`, `Parser`, `encode`."""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable

from eventstream import Framer, Parser, encode

from .tables import table

_EVENT_BYTES = 200
_CHUNK_BYTES = 64 * 1024
_TOTAL_BYTES = 8 * 1024 * 1024
_LINE_ENDS = {"LF": ["\n"], "CRLF": ["\r\n"], "mixed LF, CRLF and CR": ["\n", "\r\n", "\r"]}


def report(repeat: int) -> str:
    """Measure everything `repeat` times and return the medians as a Markdown table."""
    rows = []
    for name, ends in _LINE_ENDS.items():
        chunks = _cut(_events(ends), _CHUNK_BYTES)
        rows.append([f"`Framer`: {_EVENT_BYTES}-byte events in 64 KiB chunks, {name}", _speed(functools.partial(_frame, chunks), repeat)])
    block = b"data: " + b"x" * (_TOTAL_BYTES - 8) + b"\n\n"
    pieces = _cut(block, 1024)
    rows.append(["`Framer`: one 8 MiB block in 1 KiB chunks", _speed(functools.partial(_frame, pieces), repeat)])
    stream = _cut(_events(["\n"]), _CHUNK_BYTES)
    framer = Framer()
    blocks = [framer.feed(chunk) for chunk in stream]
    count = _TOTAL_BYTES // _EVENT_BYTES
    rows.append([f"`Parser`: {_EVENT_BYTES}-byte events", _pace(functools.partial(_parse, blocks), count, repeat)])
    rows.append([f"`encode`: {_EVENT_BYTES}-byte events", _pace(functools.partial(_encode, count), count, repeat)])
    return f"### framer: the event-stream core, one CPU\n\n{table(['what', 'speed'], rows)}"


def _events(ends: list[str]) -> bytes:
    """Return events of `_EVENT_BYTES` with a data line and an ID, whose line ends alternate."""
    turns = itertools.cycle(ends)
    events = []
    for number in range(_TOTAL_BYTES // _EVENT_BYTES):
        end = next(turns)
        head = f"id: {number}{end}data: "
        events.append(head + "x" * (_EVENT_BYTES - len(head) - 2 * len(end)) + 2 * end)
    return "".join(events).encode()


def _cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def _frame(chunks: Iterable[bytes]) -> None:
    framer = Framer()
    for chunk in chunks:
        framer.feed(chunk)


def _parse(blocks: Iterable[bytes]) -> None:
    parser = Parser()
    for block in blocks:
        parser.feed(block)


def _encode(count: int) -> None:
    data = "x" * (_EVENT_BYTES - len(encode("", id="10000")))
    for number in range(count):
        encode(data, id=str(number))


def _seconds(work: Callable[[], None], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _speed(work: Callable[[], None], repeat: int) -> str:
    return f"{_TOTAL_BYTES / _seconds(work, repeat) / 1e6:,.0f} MB/s"


def _pace(work: Callable[[], None], count: int, repeat: int) -> str:
    return f"{count / _seconds(work, repeat):,.0f} events/s"
