"""Show a person where two byte strings first differ."""

from dataclasses import dataclass

from .quoting import Quote

_BEFORE, _AFTER = 12, 20
_STRIDE = 4096


@dataclass(frozen=True, slots=True)
class Difference:
    """The first byte at which two byte strings differ, with its surroundings in each."""

    offset: int
    direct_hex: str
    direct_text: str
    through_hex: str
    through_text: str


def first_difference(direct: bytes, through: bytes) -> int | None:
    """Return the offset of the first byte that differs, None if one string is a prefix of the other."""
    common = min(len(direct), len(through))
    for start in range(0, common, _STRIDE):
        end = min(start + _STRIDE, common)
        if direct[start:end] != through[start:end]:
            return next(at for at in range(start, end) if direct[at] != through[at])
    return None


def show_difference(direct: bytes, through: bytes, quote: Quote) -> Difference:
    """Return the first difference of two byte strings that differ in content or length."""
    offset = first_difference(direct, through)
    if offset is None:
        offset = min(len(direct), len(through))
    parts = [quote.mask(side)[max(0, offset - _BEFORE) : offset + _AFTER] for side in (direct, through)]
    (direct_hex, direct_text), (through_hex, through_text) = [(part.hex(" "), quote(part, 4 * (_BEFORE + _AFTER))) for part in parts]
    return Difference(offset, direct_hex, direct_text, through_hex, through_text)
