"""The delay before the next attempt to connect."""

import random
import time
from collections.abc import Callable

_LONGEST_RETRY_SECONDS = 86_400  # a server that asks for more than a day made a typing error
_SHORTEST_RETRY_SECONDS = 0.1  # `retry: 0` with streams that end at once would cause hundreds of connections a second
_LASTING_SECONDS = 10.0  # a stream without events that lasted this long counts as healthy: proxies end idle ones after 30 s and more


class Reconnection:
    """The delay before each reconnection: the server's reconnection time, with back-off while attempts fail, and jitter.

    The first attempt after an open stream waits for the reconnection time: the server's `retry`, at least 0.1 s, else `initial_seconds`.
    Each further setback multiplies it by `factor`, up to `maximum_seconds`, but never below the server's `retry`. A setback is an attempt
    that got no event stream, or a stream that ended within 10 s without a new event. Jitter only lengthens: the delay is spread evenly
    over [d, d * (1 + jitter)], so that clients that lost their connections together do not reconnect together.
    """

    def __init__(
        self,
        *,
        initial_seconds: float = 3.0,
        maximum_seconds: float = 60.0,
        factor: float = 2.0,
        jitter: float = 0.25,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if initial_seconds < 0 or maximum_seconds < 0 or factor < 1 or jitter < 0:
            raise ValueError(
                f"initial_seconds={initial_seconds}, maximum_seconds={maximum_seconds} and jitter={jitter} must not be negative, "
                f"factor={factor} must be at least 1"
            )
        self._seconds = initial_seconds
        self._maximum = maximum_seconds
        self._factor = factor
        self._jitter = jitter
        self._rng = rng
        self._clock = clock
        self._opened_at = 0.0
        self.quiet = True
        """Whether the newest stream has brought no new event."""
        self.failures = 0
        """The number of successive attempts that got no event stream."""
        self.setbacks = 0
        """The number of successive setbacks."""

    def __repr__(self) -> str:
        return f"<Reconnection seconds={self._seconds} failures={self.failures} setbacks={self.setbacks}>"

    def retry(self, milliseconds: int) -> None:
        """Set the reconnection time to the server's `retry`."""
        self._seconds = min(max(milliseconds, _SHORTEST_RETRY_SECONDS * 1000), _LONGEST_RETRY_SECONDS * 1000) / 1000

    def succeeded(self) -> None:
        """Record that an event stream was opened."""
        self.failures = 0
        self.quiet = True
        self._opened_at = self._clock()

    def progressed(self) -> None:
        """Record that the stream brought a new event, which resets the back-off."""
        self.setbacks = 0
        self.quiet = False

    def ended(self) -> None:
        """Record that the stream has ended or was lost."""
        if self._clock() - self._opened_at >= _LASTING_SECONDS:
            self.setbacks = 0
        elif self.quiet:
            self.setbacks += 1

    def failed(self) -> None:
        """Record an attempt that got no event stream."""
        self.failures += 1
        self.setbacks += 1

    def next_delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        backed_off = self._seconds if self.setbacks < 2 else max(self._seconds, _SHORTEST_RETRY_SECONDS)
        for _ in range(self.setbacks - 1):
            if backed_off >= self._maximum:
                break
            backed_off *= self._factor
        delay = max(self._seconds, min(backed_off, self._maximum))
        return delay * (1 + self._jitter * self._rng())
