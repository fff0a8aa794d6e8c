"""A request of the public port: aiohttp's, and what is known of it before a mode answers it."""

import re
import secrets
from typing import Any

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from .caller import Caller

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")


class Incoming(web.BaseRequest):
    """A request whose every answer, errors included, gets `answer_fields`."""

    client: str
    """Address of who asks, `unknown` when there is none."""
    subject: str
    """Whom its credentials name, empty when they name nobody."""
    request_id: str
    """What this request is called in logs and errors, here and upstream: the client's `X-Request-Id` if it has a sensible one."""
    answer_fields: CIMultiDict[str]
    """Fields that replace those of the same name in the answer."""
    caller: Caller | None = None
    """Who asks, where a route wants to know."""

    def identify(self) -> None:
        """Finds out who asks, and gives the request its id. Called once, before anything looks at it."""
        self.client = self.remote or "unknown"
        given = self._headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.answer_fields = CIMultiDict({"X-Request-Id": self.request_id})

    def forget(self, *names: str) -> None:
        """Takes header fields away, for instance credentials that are meant for the gateway."""
        fields = self._headers.copy()
        for name in names:
            fields.popall(name, None)
        self._headers = CIMultiDictProxy(fields)

    def set_field(self, name: str, value: str) -> None:
        """Puts a header field in the place of all that have its name."""
        fields = self._headers.copy()
        fields[name] = value
        self._headers = CIMultiDictProxy(fields)

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        fields = getattr(self, "answer_fields", None)  # aiohttp answers what is no HTTP by itself, without asking the gateway
        if fields:
            headers = response.headers
            vary = headers.getall("Vary", ()) if "Vary" in fields else ()
            for name in fields:
                headers.popall(name, None)
            headers.extend((name, value) for name, value in fields.items() if value)
            if vary:
                headers["Vary"] = _add_to_list(", ".join(vary), fields["Vary"])


def _add_to_list(values: str, value: str) -> str:
    """Gives a list of field names with `value` in it, which stands for one more unless they are all fields already."""
    known = [each.strip().lower() for each in values.split(",")]
    return values if "*" in known or value.lower() in known else f"{values}, {value}"
