"""One upstream stream with all its subscribers."""

import asyncio
import json
import secrets
from collections.abc import Callable
from functools import partial

import structlog

from eventstream import Event, encode

from ...policy.refusal import Refusal
from ...policy.routes import Route
from ...streams.fan_out import FanOut
from ...streams.history import Limits
from ...streams.relay import CUT
from ...streams.stamping import stamp
from ...streams.subscriber import Subscriber
from ...streams.wheel import TimerWheel
from ..observer import BACK, GAP, LOST, Observer
from .budgets import Budgets
from .catch_up import CatchUp
from .following import Attempt, Follower, Following, OpenSource
from .origin import Origin

log = structlog.get_logger()

_DRAINING = "the upstream is down, and the gateway is shutting down; retry later"
_LOST_BEFORE_ANY = "the upstream was lost before its first event, so missed events cannot be requested"
_ROUTE_CHANGED = "the upstream was lost, and its route has changed; reconnect"
_LOST_WITHOUT_IDS = "the upstream was lost and its events have no IDs, so missed events cannot be requested"


class SharedStream(Follower):
    """The live stream of one URL, and catch-ups for subscribers that are further back than its history.

    `owner` is the client that opens it. `opened` is called at the upstream's first answer with an event stream, and `done` when it
    has ended or was refused. Then it cannot be joined any more. `retired` returns whether its route has changed.
    """

    def __init__(
        self,
        route: Route,
        target: str,
        open_source: OpenSource,
        wheel: TimerWheel,
        budgets: Budgets,
        owner: str,
        origin: Origin,
        *,
        opened: Callable[["SharedStream"], None],
        done: Callable[["SharedStream"], None],
        retired: Callable[[], bool],
        observer: Observer,
    ) -> None:
        self.route = route
        self.target = target
        self.catch_ups: set[CatchUp] = set()
        self.slot = 0
        self._lingering: asyncio.TimerHandle | None = None
        self.is_over = False
        """Whether the upstream has ended."""
        self.has_begun = False
        """Whether an event has arrived."""
        self._wheel = wheel
        self._budgets = budgets
        self._open_source = open_source
        self._opened_first = opened
        self._done = done
        self._is_retired = retired
        self._observer = observer
        self._epoch = secrets.token_hex(4)
        self._without_ids = True  # so far
        self._lost = False
        self._draining = False
        self._limits = Limits(route.history_max_blocks, route.history_max_bytes, route.history_max_age_seconds)
        self.origin = origin
        self.fan_out = self._open_fan_out(owner)
        self.following = Following(
            self, open_source, target, "", self.fan_out, origin, budgets.streams.open(owner, 1), for_subscribers_alone=False
        )
        self.source = self.following.source
        wheel.add(self, wheel.now + self._expiry_ticks)

    def linger(self, end: asyncio.TimerHandle | None) -> None:
        """Set the timer that ends it while no request uses it, or None, and cancel the previous one."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._lingering = end

    def _open_fan_out(self, owner: str, moved: Callable[[], None] | None = None) -> FanOut:
        return FanOut(
            self._limits,
            self._wheel,
            self._budgets.histories,
            owner=owner,
            heartbeat_ticks=self._wheel.ticks(self.route.heartbeat_seconds),
            moved=moved,
            note_latency=self._observer.note_latency,
        )

    @property
    def _expiry_ticks(self) -> int:
        return max(1, self._wheel.ticks(self.route.history_max_age_seconds / 8))

    def fire(self, now: int) -> int:
        """Drop events that are too old. Return the tick of the next check."""
        self.fan_out.expire()
        return now + self._expiry_ticks

    def take(self, block: bytes, event: Event | None, id: str | None) -> None:
        own = event.id if event is not None and event.id else id
        if own:
            self._without_ids = False
        if event is not None:
            self.has_begun = True
        if self.route.ids == "assign" and event is not None and event.id is None:
            number = self.fan_out.history.end + 1
            stamped = stamp(block, self._epoch, number)
            if stamped is not None:
                block, id = stamped[0], f"{self._epoch}-{number}"
        self.fan_out.append(block, id)
        if id and self.catch_ups:
            for catch_up in tuple(self.catch_ups):
                catch_up.meet(id)

    def connected(self) -> None:
        if not self._lost:
            self._opened_first(self)
            return
        self._lost = False
        self._observer.reconnected(self.route.path)
        self._mark(BACK, "")
        log.info("upstream is back", **self._upstream_facts(), last_event_id=self.source.last_event_id[:100])
        if self._without_ids and self.route.gap_events:
            reason = _LOST_WITHOUT_IDS if self.has_begun else _LOST_BEFORE_ANY
            self._mark(GAP, reason)
            self.fan_out.append(gap_block("", reason))

    def lost(self) -> None:
        if not self.source.connections:
            self._wait_or_stop()
            return
        if not self._lost:
            log.warning("upstream lost", **self._upstream_facts(), upstream=self.route.upstream, reason=self.source.last_error)
            self._mark(LOST, self.source.last_error or "")
        self._lost = True
        self.end_if_retired()

    def _wait_or_stop(self) -> None:
        """Retry while subscribers may wait. Otherwise end: they get the error, and the next request makes a new attempt."""
        if self.following.opening.result().again_seconds > self.route.wait_seconds:
            self.following.stop()
            return
        if self.following.down is None:
            log.warning("upstream is down, subscribers wait", **self._upstream_facts(), reason=self.source.last_error)
        self.following.wait_on()
        if self._draining:
            self.drain()
        self.end_if_retired()

    def drain(self) -> None:
        """Answer requests that wait for an upstream that is down, because the gateway is shutting down."""
        self._draining = True
        if self.following.down is not None:
            self.following.give_up(Attempt("draining", _DRAINING))

    def end_if_retired(self) -> None:
        """End it if its upstream is lost and its route has changed: the old upstream may never return."""
        if self.following.down is not None and self._is_retired():
            self.following.give_up(Attempt("retired", _ROUTE_CHANGED))
        if self._lost and self._is_retired():
            for fan_out in (self.fan_out, *(catch_up.fan_out for catch_up in self.catch_ups)):
                _disconnect_all(fan_out, _ROUTE_CHANGED)
            self.following.stop()

    def _upstream_facts(self) -> dict[str, object]:
        return {"route": self.route.path, "request_id": self.source.request_id}

    def _mark(self, kind: str, reason: str) -> None:
        self._observer.note_incident(kind, self.route.path, self.target, reason)

    def ended(self, verdict: str, reason: str) -> None:
        self._done(self)
        self._wheel.remove(self)
        for catch_up in tuple(self.catch_ups):
            _disconnect_all(catch_up.fan_out, reason or "the stream has ended")  # they have not received every event
            catch_up.following.stop()
        if verdict == CUT:
            _disconnect_all(self.fan_out, reason)
        self.fan_out.finish(verdict, reason)
        self.is_over = True
        self.unused()

    def unused(self) -> None:
        """Free the history if the upstream has ended: until then, and while a request uses it, it counts."""
        if self.is_over and not self.following.users:
            self.fan_out.close()

    def forget(self) -> None:
        """Drop the history, because it was deleted. Live subscribers stay, and others must catch up from the upstream."""
        for fan_out in (self.fan_out, *(catch_up.fan_out for catch_up in self.catch_ups)):
            fan_out.clear("its next events were deleted")
        log.info("history dropped because of a DELETE", route=self.route.path, path=self.target.partition("?")[0])

    def find(self, id: str) -> tuple[FanOut, int] | None:
        """Return the fan-out and the cursor after event `id`, or None if no history has it."""
        if (cursor := self.fan_out.history.find(id)) is not None:
            return self.fan_out, cursor
        for catch_up in self.catch_ups:
            if (cursor := catch_up.find(id)) is not None:
                return catch_up.fan_out, cursor
        return None

    def why_not(self, id: str) -> str:
        """Return why the upstream cannot have the events after `id`, or an empty string if it may."""
        if not id.isprintable():
            return "its ID cannot be sent in a header field"
        if self.route.ids == "assign":
            return "the gateway assigned this ID, and no longer keeps the events after it"
        if self._without_ids and self.has_begun:
            return "the upstream's events have no IDs"
        return ""

    def catch_up(self, target: str, id: str, owner: str) -> CatchUp | Refusal:
        """Return the catch-up for the events after `id`, or for the beginning in `target` if `id` is empty.

        It counts for `owner`, or for no client if several use it. Return the refusal if the owner may not open another.
        """
        for catch_up in self.catch_ups:
            if catch_up.fetches(target, id):
                catch_up.following.used_by(owner)
                return catch_up
        if (refusal := self._budgets.refusal(owner)) is not None:
            return refusal
        place = self._budgets.streams.open(owner, 1)
        catch_up = CatchUp(self, target, id, self._open_source, partial(self._open_fan_out, owner), place)
        catch_up.following.start()
        return catch_up

    def join(self, fan_out: FanOut, cursor: int | None, subscriber: Subscriber) -> None:
        """Add a new subscriber at `cursor` of one of the stream's fan-outs, or at the next event. It gets the upstream's last `retry`."""
        self._send_retry(subscriber)
        if cursor is None and self.following.last_event_id:  # the next event may have no ID of its own, and the client could not resume
            subscriber.send_id_ahead(self.following.last_event_id)
        fan_out.join(subscriber, cursor)

    def join_behind_gap(self, asked: str, reason: str, subscriber: Subscriber) -> None:
        """Add a new subscriber, beginning with a gap event."""
        self._send_retry(subscriber)
        self.send_gap(subscriber, asked, reason)

    def _send_retry(self, subscriber: Subscriber) -> None:
        if self.source.reconnection_time is not None:
            subscriber.send_retry_ahead(self.source.reconnection_time)

    def send_gap(
        self, subscriber: Subscriber, asked: str, reason: str, first_retained: str | None = None, begin: int | None = None
    ) -> None:
        """Send a subscriber a gap event after event `asked`, and add it at the oldest kept block, or at `begin`."""
        history = self.fan_out.history
        self._mark(GAP, reason)
        if self.route.gap_events:
            subscriber.write(gap_block(asked, reason, first_retained or history.first_id()))
        self.fan_out.join(subscriber, history.first if begin is None else begin)


def _disconnect_all(fan_out: FanOut, reason: str) -> None:
    for subscriber in tuple(fan_out.subscribers):
        subscriber.disconnect(CUT, reason)


def gap_block(asked: str, reason: str, first_retained: str | None = None) -> bytes:
    """Return a gap event, for a subscriber that may have missed events."""
    return encode(json.dumps({"asked": asked or None, "first_retained": first_retained, "reason": reason}), type="gap")
