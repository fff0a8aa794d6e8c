"""How clients ask for a kept answer by its name: the `[routes.resume]` table of a resumable route."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from .field_names import is_name

MOST_NAME_CHARACTERS = 1024
"""Longest name. An answer with a longer one is kept without a name."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ai-sdk": {
        "name": "body:/id",
        "path": "{name}/stream",
        "when_over": "replay-if-message-id",
        "stop": "POST {name}/stop",
    },
    "openai-responses": {
        "name": "event:/response/id",
        "path": "**/responses/{name}",
        "position": "query:starting_after",
        "event_position": "data:/sequence_number",
        "when_missing": "pass",
        "stop": "POST **/responses/{name}/cancel",
    },
    "langgraph": {
        "name": "response-header:Content-Location",
        "path": "**/runs/{name}/stream",
        "when_missing": "pass",
        "location": "{content-location}/stream",
    },
    "mcp": {"first_block": True},
}
"""The keys that each preset sets."""

_SHOWN_CHARACTERS, _SHOWN_OF_SHORT = 8, 3
_NAME_SOURCES = ("body", "event", "header", "query", "response-header")
_POSITION_SOURCES = ("query", "header")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_SEGMENT = re.compile(r"\*|\{name\}|[A-Za-z0-9._~!$&'()+,;=:@%-]+")
_PLACEHOLDER = re.compile(r"\{([a-z0-9-]+)\}")


class Source(NamedTuple):
    """Where a value is found: in a JSON document, at a pointer (RFC 6901), or in a header field or query parameter, by its name."""

    kind: str
    key: str

    @property
    def pointer(self) -> tuple[str, ...]:
        """The keys of a JSON pointer, from the outermost one."""
        return tuple(token.replace("~1", "/").replace("~0", "~") for token in self.key.split("/")[1:])


class PathTemplate(NamedTuple):
    """A path with one segment `{name}`. A segment `*` matches any one."""

    segments: tuple[str, ...]
    anywhere: bool
    """Whether it is the end of a path, with at least one segment before it."""

    def match(self, path: str) -> str | None:
        """Return the name in a raw path without query, percent-decoded once, or None if the path does not match."""
        found = path.split("/")
        at = self._index(found)
        return (unquote(found[at], errors="surrogateescape") or None) if at is not None else None

    def shorten(self, path: str) -> str:
        """Return a path with its name shortened, or the same path if it does not match."""
        found = path.split("/")
        if (at := self._index(found)) is not None and found[at]:
            found[at] = quote(shorten_name(unquote(found[at], errors="replace")).removesuffix("…"), safe="") + "…"
        return "/".join(found)

    def _index(self, found: Sequence[str]) -> int | None:
        """Return the index of the name among the segments of a path, or None if the path does not match."""
        extra = len(found) - len(self.segments)
        if extra < 0 or (extra > 0) != self.anywhere:
            return None
        for wanted, segment in zip(self.segments, found[extra:], strict=True):
            if wanted != "{name}" and not (segment == wanted or (wanted == "*" and segment)):
                return None
        return extra + self.segments.index("{name}")


class Resume(BaseModel):
    """The `[routes.resume]` table of a route."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    preset: Literal["", "ai-sdk", "openai-responses", "langgraph", "mcp"] = ""
    """A client library whose own requests are answered: `ai-sdk`, `openai-responses`, `langgraph` or `mcp`. It sets the other keys; a key
    that is given wins."""
    name: str = ""
    """Where the name of an answer comes from: `body:` or `event:` and a JSON pointer (RFC 6901) into the request's body or an event's
    data, such as `body:/id`; `header:`, `query:` or `response-header:` and a name. Of a path in a response header the last segment counts.
    The newest answer of a name is the one that is meant. Only its opener's credentials find it."""
    path: str = ""
    """The path at which a GET gets the answer by its name, such as `/api/chat/{name}/stream`. Without a slash at its begin it is below the
    route's path. `**/` at its begin stands for any path of the route, `*` for any one segment. The query does not count."""
    position: str = ""
    """Where a request for a named answer says how far it got: `query:` or `header:` and a name. `Last-Event-ID` always works."""
    event_position: str = ""
    """Where an event says its position, an integer: `data:` and a JSON pointer."""
    when_over: Literal["replay", "no-content", "replay-if-message-id"] = "replay"
    """What `path` answers once the answer is complete: `replay` all of it, `no-content` (204), or `replay-if-message-id`: 204 unless its
    event of type `start` has a `messageId`."""
    when_missing: Literal["no-content", "pass", "not-found"] = "no-content"
    """What `path` answers if there is no such name, if its answer was stopped, or if it belongs to other credentials: 204, the upstream's
    answer, or 404."""
    when_named_again: Literal["leave", "stop"] = "leave"
    """What happens to an answer that still runs when another one gets its name."""
    location: str = ""
    """The `Location` of an answer if the upstream sends none, such as `{content-location}/stream`: `{…}` is a header field of the answer.
    Without that field, and by default, it is `/streams/<id>`."""
    first_block: bool = False
    """Whether the first block has an ID and empty data, so that a client can resume before the first event. With the preset `mcp` it is
    sent only to clients of protocol version 2025-11-25 or newer, and only if the first block of the upstream has no ID or takes longer
    than a second."""
    stop: str = ""
    """The method and path of the request that stops a named answer, such as `POST /api/chat/{name}/stop`. It gets 204."""
    stop_passes_on: bool = False
    """Whether the upstream gets the request that stops an answer too. Its answer is then the client's."""
    ids: bool = True
    """Whether blocks get IDs. Without them the bytes stay as the upstream sent them, and clients resume by name, `Idempotency-Key` or
    position."""

    @model_validator(mode="before")
    @classmethod
    def _preset_comes_first(cls, table: Any) -> Any:
        preset = PRESETS.get(str(table.get("preset", "")), {}) if isinstance(table, dict) else {}
        return {**preset, **table} if preset else table

    @field_validator("name", "position", "event_position")
    @classmethod
    def _source_is_known(cls, value: str, info: Any) -> str:
        if not value:
            return value
        allowed = {"name": _NAME_SOURCES, "position": _POSITION_SOURCES, "event_position": ("data",)}[info.field_name]
        kind, colon, key = value.partition(":")
        if kind not in allowed or not colon:
            raise ValueError(f"must begin with {', '.join(f'{each}:' for each in allowed)}")
        if kind in ("body", "event", "data") and not _POINTER.fullmatch(key):
            raise ValueError(f"{key!r} is not a JSON pointer such as /id or /response/id")
        if kind in ("header", "response-header") and not is_name(key):
            raise ValueError(f"{key!r} is not a field name")
        if not key:
            raise ValueError(f"needs a name after {kind}:")
        return value

    @field_validator("path")
    @classmethod
    def _path_is_a_template(cls, value: str) -> str:
        return _check_template(value) if value else value

    @field_validator("stop")
    @classmethod
    def _stop_is_method_and_template(cls, value: str) -> str:
        if not value:
            return value
        method, _, path = value.partition(" ")
        if method not in ("POST", "DELETE", "PUT", "PATCH"):
            raise ValueError("must be a method and a path, such as POST /api/chat/{name}/stop; the method is POST, DELETE, PUT or PATCH")
        return f"{method} {_check_template(path)}"

    @field_validator("location")
    @classmethod
    def _location_is_a_template(cls, value: str) -> str:
        rest = _PLACEHOLDER.sub("", value)
        if "{" in rest or "}" in rest or not re.fullmatch("[!-~]*", rest):
            raise ValueError("must be a path in which {field-name} stands for a header field of the answer, in lower case")
        return value

    @model_validator(mode="after")
    def _keys_belong_together(self) -> Self:
        if self.path and not self.name:
            raise ValueError("path needs name: where the name of an answer comes from")
        for key in ("position", "stop"):
            if getattr(self, key) and not self.path:
                raise ValueError(f"{key} needs path: where a named answer is asked for")
        if bool(self.position) != bool(self.event_position):
            raise ValueError("position and event_position need each other")
        if self.first_block and not self.ids:
            raise ValueError("first_block needs ids")
        return self

    @cached_property
    def name_source(self) -> Source | None:
        """Where names come from, or None without names."""
        return _source(self.name)

    @cached_property
    def position_source(self) -> Source | None:
        """Where a request says how far it got, or None."""
        return _source(self.position)

    @cached_property
    def event_pointer(self) -> tuple[str, ...]:
        """The JSON pointer of an event's position."""
        return _source(self.event_position).pointer if self.event_position else ()  # type: ignore[union-attr]

    def templates(self, route: str) -> "Templates":
        """Return the templates of `path` and `stop` on the route with the path `route`.

        Raises ValueError if one is not below it.
        """
        method, _, stop = self.stop.partition(" ")
        return Templates(_template("path", self.path, route), method, _template("stop", stop, route))

    def location_of(self, fields: Mapping[str, str]) -> str:
        """Return the `Location` of an answer with these header fields, empty if a field is missing."""
        if not all(fields.get(name) for name in _PLACEHOLDER.findall(self.location)):
            return ""
        return _PLACEHOLDER.sub(lambda match: fields[match[1]], self.location)


class Templates(NamedTuple):
    """The paths of requests for a named answer."""

    path: PathTemplate | None
    stop_method: str
    stop: PathTemplate | None


def shorten_name(name: str) -> str:
    """Return the begin of a name, for logs and the dashboard: the whole name may be enough to read the answer."""
    return f"{name[: _SHOWN_CHARACTERS if len(name) > _SHOWN_CHARACTERS else min(_SHOWN_OF_SHORT, len(name) - 1)]}…" if name else ""


def hide_name(path: str, templates: Templates | None) -> str:
    """Return the raw path of a request, without query, with the name of an answer shortened."""
    for template in (templates.path, templates.stop) if templates is not None else ():
        path = template.shorten(path) if template is not None else path
    return path


def _source(value: str) -> Source | None:
    kind, _, key = value.partition(":")
    return Source(kind, key) if value else None


def _check_template(path: str) -> str:
    segments = path.removeprefix("**/").removeprefix("/").split("/")
    if segments.count("{name}") != 1 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError(f"{path!r} is not a path with one segment {{name}}, such as /api/chat/{{name}}/stream")
    return path


def _template(key: str, path: str, route: str) -> PathTemplate | None:
    if not path:
        return None
    if path.startswith("**/"):
        return PathTemplate(tuple(path.split("/")[1:]), anywhere=True)
    prefix = route.rstrip("/") + "/"
    full = path if path.startswith("/") else prefix + path
    if not full.startswith(prefix):
        raise ValueError(f"{key} must be below the route's path {route}, got {path}")
    return PathTemplate(tuple(full.split("/")), anywhere=False)
