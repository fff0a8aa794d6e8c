"""How long to wait before the next attempt."""

import random
from collections.abc import Callable

_LONGEST_RETRY_SECONDS = 86_400  # a server that asks for more than a day has a typing error
_LEAST_BACKED_OFF_SECONDS = 0.1  # what `retry: 0` is multiplied from, or a server that asked for it and died would be hammered


class Reconnection:
    """Gives the delay before each reconnection: the server's reconnection time, backed off while attempts fail, with jitter.

    The first attempt after an open connection waits the reconnection time (the server's `retry`, else `initial_seconds`); each further
    failure multiplies it by `factor`, up to `maximum_seconds`, but never below what the server asked for. Jitter only lengthens:
    the delay is spread evenly over [d, d * (1 + jitter)], so that clients which were cut together do not come back together.
    """

    def __init__(
        self,
        *,
        initial_seconds: float = 3.0,
        maximum_seconds: float = 60.0,
        factor: float = 2.0,
        jitter: float = 0.25,
        rng: Callable[[], float] = random.random,
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
        self.failures = 0
        """Attempts in a row that got no event stream."""

    def __repr__(self) -> str:
        return f"<Reconnection seconds={self._seconds} failures={self.failures}>"

    def retry(self, milliseconds: int) -> None:
        """Takes the server's `retry`."""
        self._seconds = min(milliseconds, _LONGEST_RETRY_SECONDS * 1000) / 1000

    def succeeded(self) -> None:
        """Notes that an event stream was opened: the back-off starts over."""
        self.failures = 0

    def failed(self) -> None:
        """Notes an attempt that got no event stream."""
        self.failures += 1

    def next_delay(self) -> float:
        """Gives the seconds to wait before the next attempt."""
        backed_off = self._seconds if self.failures < 2 else max(self._seconds, _LEAST_BACKED_OFF_SECONDS)
        for _ in range(self.failures - 1):
            if backed_off >= self._maximum:
                break
            backed_off *= self._factor
        delay = max(self._seconds, min(backed_off, self._maximum))
        return delay * (1 + self._jitter * self._rng())
