"""content_codings: the codings of a body, whatever a server calls the absence of one."""

import pytest

from eventstream import content_codings


@pytest.mark.parametrize("field", ["", " ", "identity", "none", "None", " IDENTITY ", "identity, none", "none,,identity"])
def test_a_body_without_a_coding_has_none(field: str) -> None:
    assert content_codings(field) == ()


def test_codings_are_in_lower_case_and_in_their_order() -> None:
    assert content_codings("GZIP") == ("gzip",)
    assert content_codings("gzip, none") == ("gzip",)
    assert content_codings("identity, deflate , br") == ("deflate", "br")
    assert content_codings("rot13") == ("rot13",)
