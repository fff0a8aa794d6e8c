"""The event that tells of a lost upstream, member by member: clients of each API look for their own."""

import json

from eventstream import Parser
from gateway.streams.error_event import error_block

MESSAGE = "Upstream lost: line one\nline \u4e16"


def test_data_has_the_members_that_each_api_expects_and_none_of_an_answer() -> None:
    [event] = Parser().feed(error_block("line one\nline \u4e16"))
    assert event.type == "error"
    fault = {"message": MESSAGE, "type": "upstream_lost", "param": None, "code": "upstream_lost"}
    expected = {"error": fault, "type": "error", "code": "upstream_lost", "message": MESSAGE, "param": None, "sequence_number": 0}
    assert json.loads(event.data) == expected


def test_error_is_the_first_member_and_data_the_first_line() -> None:
    """go-openai knows the data by these bytes at the beginning of a line, and reads no further line before it looks at them."""
    first, second, *rest = error_block("reset").split(b"\n")
    assert first.startswith(b'data: {"error": {')
    assert (second, rest) == (b"event: error", [b"", b""])


def test_stream_of_ui_messages_gets_a_chunk_with_no_further_members() -> None:
    [event] = Parser().feed(error_block("line one\nline \u4e16", ui_messages=True))
    assert json.loads(event.data) == {"type": "error", "errorText": MESSAGE}
