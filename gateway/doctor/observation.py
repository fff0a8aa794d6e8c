"""What was seen of one answer: the head, the bytes of the body and when they came, and how it ended."""

from dataclasses import dataclass
from typing import Literal

from eventstream import content_codings

Ending = Literal["open", "complete", "cut", "reset", "silent"]
"""`open`: still going on when enough was heard; `complete`: ended as HTTP says; `cut`: the connection closed before the answer was over;
`reset`: the connection was torn down; `silent`: no answer at all."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes of the body that one read brought, HTTP chunking undone, and when: seconds on a clock that all observations share."""

    seconds: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The head of the answer, as it came."""

    status: int
    reason: str
    version: tuple[int, int]
    fields: tuple[tuple[bytes, bytes], ...]
    """Names and values in their order, with the letter case that they came in."""
    seconds: float

    def get(self, name: str) -> str | None:
        """Gives the values of a header field, joined; None when there is none."""
        wanted = name.lower().encode()
        values = [value.decode("utf-8", "replace") for key, value in self.fields if key.lower() == wanted]
        return ", ".join(values) if values else None

    def media_type(self) -> str:
        """Gives the content type without parameters, in lower case."""
        return (self.get("Content-Type") or "").partition(";")[0].strip().lower()

    def coding(self) -> str:
        """Return the content codings in lower case, empty if there is none."""
        return ", ".join(content_codings(self.get("Content-Encoding") or ""))

    def delimited(self) -> bool:
        """Whether it says where the body ends, instead of ending with the connection."""
        return self.get("Content-Length") is not None or self.get("Transfer-Encoding") is not None

    def raw(self) -> bytes:
        """Gives the head as bytes, as HTTP/1.1 writes it."""
        first = f"HTTP/{self.version[0]}.{self.version[1]} {self.status} {self.reason}\r\n".encode()
        return first + b"".join(name + b": " + value + b"\r\n" for name, value in self.fields)


@dataclass(frozen=True, slots=True)
class Observation:
    """One request and what came of it."""

    asked_seconds: float
    head: Head | None = None
    body: tuple[Arrival, ...] = ()
    """Content coding undone."""
    ending: Ending = "silent"
    ended_seconds: float = 0.0
    """When it ended, or when enough was heard."""
    failure: str = ""
    """What the network or the decoder said, in its words."""
    undecodable: bool = False
    """The body is not what Content-Encoding says; `body` has what came before."""
    wire_bytes: int = 0
    """Size of the body before content coding was undone."""
    redirects: tuple[str, ...] = ()
    """Where the question was sent on to, as shown."""

    @property
    def first_byte_seconds(self) -> float | None:
        """From the question to the first byte of the body, None when there was none."""
        return self.body[0].seconds - self.asked_seconds if self.body else None

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(len(arrival.data) for arrival in self.body)
