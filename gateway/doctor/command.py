"""`python -m gateway doctor URL`: asks, listens, and says what is wrong with an event stream."""

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
from .listening import CannotAsk, Question
from .progress import Progress
from .quoting import Quote, secrets_of_headers, secrets_of_url
from .report import Report, Section, write_json, write_text

_HEALTHY, _PROBLEMS, _CANNOT_ASK = 0, 1, 2
_USER_AGENT = "eventstream-doctor"
_DESCRIPTION = """Judges an event stream on any server, through whatever stands in between: whether it streams, whether clients can read
it, whether they can come back to it. Values of --header and of the query do not appear in the report."""
_EPILOG = """Exit status: 0 healthy, 1 problems found, 2 could not be asked. Ctrl-C ends the listening early and judges what came.
SSL_CERT_FILE names the certificates to trust in place of the system's."""


def doctor(arguments: Sequence[str], out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Gives the exit status: 0 healthy, 1 problems found, 2 could not be asked. Exits with 2 by itself for wrong usage."""
    out, err = out or sys.stdout, err or sys.stderr
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        question = _question(asked, asked.url)
        through = None if asked.through is None else _question(asked, asked.through)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    questions = [question] if through is None else [question, through]
    secrets = secrets_of_headers(question.headers).union(*(secrets_of_url(each.url) for each in questions))
    quote = Quote(secrets)
    once = asked.once if asked.once is not None else question.method not in ("GET", "HEAD")
    failures: list[BaseException] = []
    try:
        examinations = asyncio.run(_listen(questions, asked.seconds, once, err))
    except* CannotAsk as group:
        failures = list(group.exceptions)
    if failures:
        return _say_failure(failures[0], quote, asked.json, out, err)
    report = judge(examinations, quote)
    try:
        out.write(write_json(report) + "\n" if asked.json else write_text(report))
        out.flush()
    except BrokenPipeError:  # whoever read it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
    return _HEALTHY if report.healthy else _PROBLEMS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m gateway doctor", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("url", metavar="URL", help="the stream, http or https")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header field to send; may be repeated"
    )
    parser.add_argument("-X", "--method", help="default GET, with --data POST")
    parser.add_argument("-d", "--data", metavar="TEXT", help="the body to send; @FILE takes it from a file")
    parser.add_argument(
        "--through", metavar="URL", help="a second path to the same stream, to compare: what does that which stands there change?"
    )
    parser.add_argument("--json", action="store_true", help="write the report as JSON")
    parser.add_argument("--seconds", type=_seconds, default=30.0, metavar="N", help="how long to listen at most (default 30)")
    parser.add_argument(
        "--once",
        action=argparse.BooleanOptionalAction,
        help="ask only once: neither offer compression nor come back with Last-Event-ID (default for all methods but GET)",
    )
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return number


def _question(asked: argparse.Namespace, url: str) -> Question:
    """Reads what to ask. Raises ValueError, OSError when a file cannot be read."""
    try:
        target = parse_url(url)
    except ValueError as error:
        raise ValueError(f"the URL {error}, like https://example.org/events") from None
    body = None
    if asked.data is not None:
        body = Path(asked.data[1:]).read_bytes() if asked.data.startswith("@") else asked.data.encode()
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "User-Agent": _USER_AGENT}
    if body is not None:
        headers["Content-Type"] = "application/json" if _is_json(body) else "text/plain"
    method = (asked.method or ("GET" if body is None else "POST")).upper()
    if not method.isalpha():
        raise ValueError("--method has to be a word, like POST")
    question = Question(target, method, tuple(headers.items()), body)
    given = [_field(number, text) for number, text in enumerate(asked.header, 1)]
    for name, _ in given:
        question = question.without(name)
    return question.adding(given)


def _field(number: int, text: str) -> tuple[str, str]:
    """Reads a header field; a message about a bad one names its number, because the text may be a secret."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name or not name.isascii() or any(character in ' \t"(),/;<=>?@[\\]{}' for character in name):
        raise ValueError(f"--header number {number} is not of the form 'Name: value'")
    try:
        refuse_control_characters(name, value)
    except ValueError:
        raise ValueError(f"--header number {number} has a control character in it") from None
    return name, value


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


async def _listen(questions: list[Question], seconds: float, once: bool, err: TextIO) -> list[Examination]:
    enough = asyncio.Event()
    progress = Progress(err, seconds)
    with contextlib.suppress(NotImplementedError, RuntimeError):  # only the main thread of a Unix process has signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, enough.set)
    names = [""] if len(questions) == 1 else ["direct ", "through "]
    watchers = [progress.watcher(name) for name in names]
    async with asyncio.TaskGroup() as group:
        writer = group.create_task(progress.run())
        examinations = await examine(questions, seconds, once=once, enough=enough, watchers=watchers)
        writer.cancel()
    return examinations


def _say_failure(failure: BaseException, quote: Quote, as_json: bool, out: TextIO, err: TextIO) -> int:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, CannotAsk)
    url, reason = quote(failure.url, 300), quote(failure.reason, 300)
    if as_json:
        out.write(json.dumps({"healthy": False, "url": url, "error": reason}, ensure_ascii=False, indent=2) + "\n")
    err.write(f"doctor: {url} could not be asked: {reason}\n")
    return _CANNOT_ASK


def judge(examinations: Sequence[Examination], quote: Quote) -> Report:
    """Gives the report of one path, or of two that were listened to at once."""
    sections = [Section(each.url, tuple(diagnose(each, quote)), measure(each)) for each in examinations]
    if len(sections) == 1:
        return Report(sections[0])
    direct, through = (StreamPath(each.seen, each.anatomy) for each in examinations)
    return Report(sections[0], sections[1], compare(direct, through, quote))
