"""The newest answer of each name."""

from functools import partial

from ...http.asking import UpstreamAnswer
from ...policy.routes import Route
from ..observer import Observer
from .kept_stream import KeptStream
from .naming import NameInEvents, name_in_fields
from .opening import Opening
from .opening_index import OpeningIndex


class Names(OpeningIndex):
    """The newest opening of each name. A newer one supersedes it, and stops it if its route says so."""

    def __init__(self, observer: Observer) -> None:
        super().__init__(lambda head: head.name)
        self._observer = observer

    def take(self, opening: Opening, route: Route, name: str = "") -> None:
        """Make an opening the one that its name means. `name` is the one that its answer brings."""
        if name:
            opening.rename(opening.private(name))
        older = self.put(opening)
        if older is None or older is opening or not older.is_running:
            return
        self._observer.superseded(route.path)
        if route.resume is not None and route.resume.when_named_again == "stop":
            older.stop("a newer answer has its name")

    def search(self, opening: Opening, stream: KeptStream, upstream: UpstreamAnswer) -> None:
        """Take the name of a stream from its header fields, or look for it in its first events."""
        resume = stream.route.resume
        source = resume.name_source if resume is not None else None
        if source is not None and source.kind == "event":
            stream.watch(NameInEvents(source.pointer, partial(self.take, opening, stream.route)).search)
        elif source is not None and (name := name_in_fields(source, upstream.headers)):
            self.take(opening, stream.route, name)
