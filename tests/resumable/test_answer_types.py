"""Only event streams are kept; every other answer passes as the upstream sent it."""

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import chunk
from tests.resumable.answers import END, HEAD, event, unstamped
from tests.resumable.conftest import Play, StartPlay

pytestmark = pytest.mark.asyncio(loop_scope="session")

ERROR = b'{"error": {"code": 401, "message": "bad key"}}'


@pytest.mark.parametrize("status", [201, 401, 500])
async def test_error_with_the_content_type_of_a_stream_passes_untouched(play: Play, status: int) -> None:
    head = b"HTTP/1.1 %d Error\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % (status, len(ERROR))
    async with play.ask("/ask", play.stage.scene(head + ERROR)) as answer:
        assert (answer.head.status, answer.head.value("Stream-Id")) == (status, None)
        assert await answer.to_end() == ERROR
        assert answer.end is End.COMPLETE


async def test_stream_whose_content_encoding_is_none_is_kept(play: Play) -> None:
    head = HEAD.replace(b"Transfer-Encoding", b"Content-Encoding: none\r\nTransfer-Encoding")
    async with play.ask("/ask", play.stage.scene(head, chunk(event(1)) + END)) as answer:
        assert answer.head.value("Stream-Id")
        assert unstamped(await answer.to_end()) == event(1)


async def test_stream_in_an_unknown_coding_passes_untouched_and_is_not_kept(play: Play) -> None:
    head = HEAD.replace(b"Transfer-Encoding", b"Content-Encoding: rot13\r\nTransfer-Encoding")
    async with play.ask("/ask", play.stage.scene(head, chunk(b"qngn: 1\n\nqn") + END)) as answer:
        assert answer.head.value("Stream-Id") is None
        assert await answer.to_end() == b"qngn: 1\n\nqn"
        assert answer.end is End.COMPLETE


async def test_answer_to_head_passes_and_is_not_kept(start_play: StartPlay) -> None:
    async with start_play(methods=["GET", "HEAD"]) as play, play.ask("/", play.stage.scene(HEAD), method="HEAD", body=b"") as answer:
        assert (answer.head.status, answer.head.value("Content-Type")) == (200, "text/event-stream")
        assert answer.head.value("Stream-Id") is None
