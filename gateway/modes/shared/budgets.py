"""Limits on what clients hold by shared streams."""

from dataclasses import dataclass

from ...access.budget import Budget
from ...access.descriptors import Descriptors
from ...policy.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets for resources that outlive a request for a shared stream."""

    streams: Budget
    """Upstream requests of live streams, lingering ones included, and of catch-ups."""
    histories: Budget
    """Bytes of histories and of unsent data of slow connections."""
    descriptors: Descriptors

    def refusal(self, owner: str) -> Refusal | None:
        """Return why a client may not open another stream, or None."""
        return self.streams.refusal(owner) or self.histories.refusal(owner, 0) or self.descriptors.refuse_upstream()
