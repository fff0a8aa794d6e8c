import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.settings import Settings
from producer.text.streams import Split, split_text

FAMILY = "👨‍👩‍👧‍👦"
THUMB_WITH_SKIN_TONE = "👍🏽"
FLAG = "🇹🇼"
KEYCAP = "1️⃣"
E_WITH_ACCENT = "e\u0301"
DEVANAGARI = "नि"
HANGUL_FROM_JAMO = "\u1112\u1161\u11ab"


@pytest.mark.parametrize("character", [FAMILY, THUMB_WITH_SKIN_TONE, FLAG, KEYCAP, E_WITH_ACCENT, DEVANAGARI, HANGUL_FROM_JAMO, "\r\n"])
def test_a_user_perceived_character_stays_whole(character: str) -> None:
    assert split_text(f"a{character}b{character}", Split.GRAPHEME) == ["a", character, "b", character]


def test_the_demo_text_has_a_piece_per_character() -> None:
    text = Settings().text
    assert split_text(text, Split.GRAPHEME) == list(text)
    assert len(text) == 28


def test_words_keep_the_blanks_after_them_and_the_first_those_before() -> None:
    assert split_text("  one two\t three\n", Split.WORD) == ["  one ", "two\t ", "three\n"]


def test_a_text_of_blanks_only_is_one_word() -> None:
    assert split_text(" \n ", Split.WORD) == [" \n "]


def test_a_text_without_blanks_is_one_word() -> None:
    assert split_text("七夕情人节", Split.WORD) == ["七夕情人节"]


def test_lines_end_at_the_line_ends_of_an_event_stream_and_at_no_other() -> None:
    assert split_text("a\nb\r\nc\rd\u2028e\x0bf\n", Split.LINE) == ["a", "b", "c", "d\u2028e\x0bf", ""]


@given(st.text(min_size=1))
def test_graphemes_and_words_joined_are_the_text(text: str) -> None:
    assert "".join(split_text(text, Split.GRAPHEME)) == text
    assert "".join(split_text(text, Split.WORD)) == text


@given(st.text(alphabet=st.sampled_from("a \r\n"), min_size=1))
def test_lines_joined_are_the_text_with_plain_line_ends(text: str) -> None:
    assert "\n".join(split_text(text, Split.LINE)) == re.sub("\r\n|\r", "\n", text)
