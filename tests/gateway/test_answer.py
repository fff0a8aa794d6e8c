"""The head of an answer that the gateway writes itself."""

import pytest
from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.http.answer import AnswerHead, make_head
from tests.gateway.scripted_transport import ScriptedTransport


def head_of(answer: AnswerHead) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b"])
def test_control_character_in_a_field_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        make_head(HttpVersion11, 200, "OK", CIMultiDict({"X-Field": value}))


@pytest.mark.parametrize(
    ("method", "status", "version", "fields", "wanted"),
    [
        ("GET", 200, HttpVersion11, {}, {"transfer-encoding": "chunked"}),
        ("GET", 200, HttpVersion11, {"Content-Length": "3"}, {"content-length": "3"}),
        ("GET", 200, HttpVersion10, {}, {}),
        ("HEAD", 200, HttpVersion11, {"Content-Length": "3"}, {"content-length": "3"}),
        ("HEAD", 200, HttpVersion11, {}, {}),
        ("GET", 204, HttpVersion11, {"Content-Length": "0"}, {}),
        ("GET", 304, HttpVersion11, {"Content-Length": "3"}, {"content-length": "3"}),
    ],
)
async def test_framing_fits_request_and_status(
    method: str, status: int, version: tuple[int, int], fields: dict[str, str], wanted: dict[str, str]
) -> None:
    request = make_mocked_request(method, "/", version=version, transport=ScriptedTransport())
    answer = AnswerHead(status=status, headers=fields)
    await answer.prepare(request)
    assert head_of(answer).items() >= wanted.items()
    assert {"transfer-encoding", "content-length"} & head_of(answer).keys() == wanted.keys()
    assert answer.chunked_here == ("transfer-encoding" in wanted)
    assert answer.keep_alive == (version == HttpVersion11)
