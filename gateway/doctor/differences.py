"""The first place where two byte strings differ, shown so that a person sees it."""

from dataclasses import dataclass

from .quoting import Quote

_BEFORE, _AFTER = 12, 20
_STRIDE = 4096


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two byte strings part, and what stands around that place in each."""

    offset: int
    direct_hex: str
    direct_text: str
    through_hex: str
    through_text: str


def first_difference(direct: bytes, through: bytes) -> int | None:
    """Gives the offset of the first byte that differs; None when one is the beginning of the other."""
    common = min(len(direct), len(through))
    for start in range(0, common, _STRIDE):
        end = min(start + _STRIDE, common)
        if direct[start:end] != through[start:end]:
            return next(at for at in range(start, end) if direct[at] != through[at])
    return None


def show_difference(direct: bytes, through: bytes, quote: Quote) -> Difference:
    """Shows the first difference of two byte strings that differ, be it only in length."""
    offset = first_difference(direct, through)
    if offset is None:
        offset = min(len(direct), len(through))
    parts = [quote.mask(side)[max(0, offset - _BEFORE) : offset + _AFTER] for side in (direct, through)]
    (direct_hex, direct_text), (through_hex, through_text) = [(part.hex(" "), quote(part, 4 * (_BEFORE + _AFTER))) for part in parts]
    return Difference(offset, direct_hex, direct_text, through_hex, through_text)
