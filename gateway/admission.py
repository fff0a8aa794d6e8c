"""How many requests may be open."""

from collections import Counter


class Admission:
    """Counts open requests, in all and by client address."""

    def __init__(self, max_open: int, max_open_per_client: int) -> None:
        self.max_open = max_open
        self.max_open_per_client = max_open_per_client
        self.open = 0
        self._by_client: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Admission open={self.open} clients={len(self._by_client)}>"

    def refusal(self, client: str) -> tuple[int, str] | None:
        """Gives status and reason why a further request of `client` may not be opened now, None when it may."""
        if self.open >= self.max_open:
            return 503, f"{self.open} streams are open, the limit is {self.max_open}; come back later"
        if self._by_client[client] >= self.max_open_per_client:
            return 429, f"{client} has {self._by_client[client]} streams open, the limit is {self.max_open_per_client}; close one first"
        return None

    def enter(self, client: str) -> None:
        """Counts a request in."""
        self.open += 1
        self._by_client[client] += 1

    def leave(self, client: str) -> None:
        """Counts it out."""
        self.open -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
