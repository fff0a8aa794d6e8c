"""What clients may hold by shared streams."""

from dataclasses import dataclass

from ...access.budget import Budget
from ...access.descriptors import Descriptors
from ...policy.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of what a request for a shared stream may leave behind."""

    streams: Budget
    """Upstream requests: those of live streams, lingering ones too, and of catch-ups."""
    histories: Budget
    """Bytes: histories, and what is written to connections that do not take it."""
    descriptors: Descriptors

    def refusal(self, owner: str) -> Refusal | None:
        """Return why a client may not open one more stream, None when it may."""
        return self.streams.refusal(owner) or self.histories.refusal(owner, 0) or self.descriptors.refuse_upstream()
