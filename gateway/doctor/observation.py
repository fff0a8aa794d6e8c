"""Observation of one answer: the head, the bytes of the body with their times of arrival, and how it ended."""

from dataclasses import dataclass
from typing import Literal

from eventstream import content_codings

Ending = Literal["open", "complete", "cut", "reset", "silent"]
"""`open`: still open when listening stopped; `complete`: ended as HTTP requires; `cut`: the connection closed before the answer ended;
`reset`: the connection was reset; `silent`: no answer at all."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes of the body from one read, without HTTP chunking, and their time in seconds on a clock that all observations share."""

    seconds: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The head of the answer, as received."""

    status: int
    reason: str
    version: tuple[int, int]
    fields: tuple[tuple[bytes, bytes], ...]
    """Names and values in their order and original letter case."""
    seconds: float

    def get(self, name: str) -> str | None:
        """Return the joined values of a header field, None if it is missing."""
        wanted = name.lower().encode()
        values = [value.decode("utf-8", "replace") for key, value in self.fields if key.lower() == wanted]
        return ", ".join(values) if values else None

    def media_type(self) -> str:
        """Return the content type without parameters, in lower case."""
        return (self.get("Content-Type") or "").partition(";")[0].strip().lower()

    def coding(self) -> str:
        """Return the content codings in lower case, joined; empty if there are none."""
        return ", ".join(content_codings(self.get("Content-Encoding") or ""))

    def delimited(self) -> bool:
        """Return whether the head delimits the body, which else ends with the connection."""
        return self.get("Content-Length") is not None or self.get("Transfer-Encoding") is not None

    def raw(self) -> bytes:
        """Return the head in HTTP/1.1 syntax."""
        first = f"HTTP/{self.version[0]}.{self.version[1]} {self.status} {self.reason}\r\n".encode()
        return first + b"".join(name + b": " + value + b"\r\n" for name, value in self.fields)


@dataclass(frozen=True, slots=True)
class Observation:
    """One request and its result."""

    sent_seconds: float
    head: Head | None = None
    body: tuple[Arrival, ...] = ()
    """The body without content coding."""
    ending: Ending = "silent"
    ended_seconds: float = 0.0
    """Time at which the answer ended or listening stopped."""
    failure: str = ""
    """The error message of the network or the decoder."""
    undecodable: bool = False
    """Whether the body does not match Content-Encoding; `body` then holds the part before the error."""
    wire_bytes: int = 0
    """Size of the body as transferred, with content coding."""
    redirects: tuple[str, ...] = ()
    """URLs of the redirects, without secrets."""

    @property
    def first_byte_seconds(self) -> float | None:
        """Seconds from the request to the first byte of the body, None if there was none."""
        return self.body[0].seconds - self.sent_seconds if self.body else None

    @property
    def size(self) -> int:
        """Size of the body in bytes, without content coding."""
        return sum(len(arrival.data) for arrival in self.body)
