"""Cut a text into the pieces that become events."""

import re
from enum import StrEnum

import regex  # type: ignore[import-untyped]

_GRAPHEME = regex.compile(r"\X")
_WORD = re.compile(r"\s*\S+\s*|\s+")
_LINE_END = re.compile(r"\r\n|\n|\r")


class Split(StrEnum):
    """Where to cut a text."""

    GRAPHEME = "grapheme"
    WORD = "word"
    LINE = "line"


def split_text(text: str, split: Split) -> list[str]:
    """Return the pieces of `text`, in order.

    - grapheme: user-perceived characters (extended grapheme clusters, Unicode Standard Annex 29). Joined, they are the text.
    - word: runs without blanks, each with the blanks that follow it, the first also with those before it. Joined, they are the text.
      A text without blanks, such as Chinese, is one word.
    - line: the text between line ends (CRLF, LF, CR; the line ends of an event stream). Joined by LF, they are the text.

    An event stream cannot carry a CR in data: a reader of the events gets each CRLF and CR in the pieces as LF.
    """
    match split:
        case Split.GRAPHEME:
            return [match.group() for match in _GRAPHEME.finditer(text)]
        case Split.WORD:
            return _WORD.findall(text)
        case Split.LINE:
            return _LINE_END.split(text)
