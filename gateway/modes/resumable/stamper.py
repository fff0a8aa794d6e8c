"""Give the blocks of one kept stream their IDs."""

from eventstream import split_blocks

from ...streams.stamping import guard_mark, stamp

_LINE_ENDS = b"\r\n"


class Stamper:
    """Stamps blocks of any kind. Blocks of only comments become the beginning of the next block.

    Clients that have received an ID would take such a block for an event without data. After the last block it is dropped.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.comments = bytearray()
        """Comments for the beginning of the next block."""

    def __repr__(self) -> str:
        return f"<Stamper {self._stream[:8]} comments={len(self.comments)}>"

    def stamp(self, data: bytes, number: int) -> tuple[list[bytes], list[str | None]]:
        """Return blocks with IDs, the first with `number`, and the upstream's own IDs of each."""
        blocks: list[bytes] = []
        ids: list[str | None] = []
        for block in split_blocks(data):
            stamped = stamp(block, self._stream, number + len(blocks))
            if stamped is None:
                self._add_comments(block)
                continue
            blocks.append(guard_mark(bytes(self.comments) + stamped[0] if self.comments else stamped[0]))
            ids.append(stamped[1])
            self.comments.clear()
        return blocks, ids

    def finish(self, rest: bytes) -> bytes:
        """Return the unfinished block at the end of the upstream's response. It is not an event, and gets no ID."""
        return guard_mark(bytes(self.comments) + rest)

    def _add_comments(self, block: bytes) -> None:
        """Keep comments. Heartbeats are left out: each connection has its own, and some clients lose an event that begins with one."""
        lines = block.strip(_LINE_ENDS)
        if lines.strip(b":\r\n"):
            self.comments += lines + b"\n"
