"""Run `python -m gateway doctor URL`: request an event stream, listen to it, and report what is wrong."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from eventstream.request import parse_url, refuse_control_characters

from .comparison import Path as StreamPath
from .comparison import compare
from .diagnosis import Examination, diagnose, measure
from .examining import examine
from .listening import CannotConnect, Request
from .progress import Progress
from .quoting import Quote, secrets_of_headers, secrets_of_url
from .report import Report, Section, write_json, write_text

_HEALTHY, _PROBLEMS, _CANNOT_CONNECT = 0, 1, 2
_USER_AGENT = "eventstream-doctor"
_DESCRIPTION = """Diagnose an event stream on any server, through any proxies: whether it streams, whether clients can read it, and
whether they can resume it. Values of --header and of the query do not appear in the report."""
_EPILOG = """Exit status: 0 healthy, 1 problems found, 2 no connection or wrong usage. Ctrl-C stops listening and judges what arrived.
SSL_CERT_FILE names the certificates to trust instead of the system's."""


def doctor(arguments: Sequence[str], out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Return the exit status: 0 healthy, 1 problems found, 2 no connection. Exits with 2 itself on wrong usage."""
    out, err = out or sys.stdout, err or sys.stderr
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        request = _build_request(options, options.url)
        through = None if options.through is None else _build_request(options, options.through)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    requests = [request] if through is None else [request, through]
    secrets = secrets_of_headers(request.headers).union(*(secrets_of_url(each.url) for each in requests))
    quote = Quote(secrets)
    failures: list[BaseException] = []
    try:
        examinations = asyncio.run(_listen(requests, options.seconds, options.once, err))
    except* CannotConnect as group:
        failures = list(group.exceptions)
    if failures:
        return _say_failure(failures[0], quote, options.json, out, err)
    report = judge(examinations, quote)
    try:
        out.write(write_json(report) + "\n" if options.json else write_text(report))
        out.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports an error when it flushes at exit
    return _HEALTHY if report.healthy else _PROBLEMS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m gateway doctor", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("url", metavar="URL", help="the stream's http or https URL")
    parser.add_argument("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header field to send; repeatable")
    parser.add_argument("-X", "--method", help="HTTP method; default GET, POST with --data")
    parser.add_argument("-d", "--data", metavar="TEXT", help="the request body; @FILE reads it from a file")
    parser.add_argument("--through", metavar="URL", help="a second path to the same stream: report what the proxies there change")
    parser.add_argument("--json", action="store_true", help="write the report as JSON")
    parser.add_argument("--seconds", type=_seconds, default=30.0, metavar="N", help="listen for at most N seconds (default 30)")
    parser.add_argument(
        "--once",
        action=argparse.BooleanOptionalAction,
        help="send one request: neither offer compression nor reconnect with Last-Event-ID. By default other methods than GET and HEAD are "
        "sent once, followed by the GETs with which client libraries resume an answer",
    )
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return number


def _build_request(options: argparse.Namespace, url: str) -> Request:
    """Return the request to send.

    Raises ValueError if an argument is wrong, OSError if the body's file cannot be read.
    """
    try:
        target = parse_url(url)
    except ValueError as error:
        raise ValueError(f"the URL {error}, such as https://example.org/events") from None
    body = None
    if options.data is not None:
        body = Path(options.data[1:]).read_bytes() if options.data.startswith("@") else options.data.encode()
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "User-Agent": _USER_AGENT}
    if body is not None:
        headers["Content-Type"] = "application/json" if _is_json(body) else "text/plain"
    method = (options.method or ("GET" if body is None else "POST")).upper()
    if not method.isalpha():
        raise ValueError("--method must be a word such as POST")
    request = Request(target, method, tuple(headers.items()), body)
    given = [_field(number, text) for number, text in enumerate(options.header, 1)]
    for name, _ in given:
        request = request.without_field(name)
    return request.with_fields(given)


def _field(number: int, text: str) -> tuple[str, str]:
    """Parse a header field. Error messages give its number instead of its text, which may be a secret."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name or not name.isascii() or any(character in ' \t"(),/;<=>?@[\\]{}' for character in name):
        raise ValueError(f"--header number {number} must have the form 'Name: value'")
    try:
        refuse_control_characters(name, value)
    except ValueError:
        raise ValueError(f"--header number {number} must not contain control characters") from None
    return name, value


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


async def _listen(requests: list[Request], seconds: float, once: bool | None, err: TextIO) -> list[Examination]:
    enough = asyncio.Event()
    progress = Progress(err, seconds)
    with contextlib.suppress(NotImplementedError, RuntimeError):  # only the main thread of a Unix process has signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, enough.set)
    names = [""] if len(requests) == 1 else ["direct ", "through "]
    watchers = [progress.watcher(name) for name in names]
    async with asyncio.TaskGroup() as group:
        writer = group.create_task(progress.run())
        examinations = await examine(requests, seconds, once=once, enough=enough, watchers=watchers)
        writer.cancel()
    return examinations


def _say_failure(failure: BaseException, quote: Quote, as_json: bool, out: TextIO, err: TextIO) -> int:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, CannotConnect)
    url, reason = quote(failure.url, 300), quote(failure.reason, 300)
    if as_json:
        out.write(json.dumps({"healthy": False, "url": url, "error": reason}, ensure_ascii=False, indent=2) + "\n")
    err.write(f"doctor: {url} could not connect: {reason}\n")
    return _CANNOT_CONNECT


def judge(examinations: Sequence[Examination], quote: Quote) -> Report:
    """Return the report on one path, or on two examined at the same time."""
    sections = [Section(each.url, tuple(diagnose(each, quote)), measure(each)) for each in examinations]
    if len(sections) == 1:
        return Report(sections[0])
    direct, through = (StreamPath(each.seen, each.anatomy) for each in examinations)
    return Report(sections[0], sections[1], compare(direct, through, quote))
