"""A request of the public port: aiohttp's, and what is known of it before a mode answers it."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy, istr

from service.request_ids import REQUEST_ID, keep_or_make

from .auth.caller import Caller
from .clients.address import CHAIN_FIELDS, FORWARDING_FIELDS, TrustedProxies, client_network, plain_address
from .cors import ORIGIN, Cors, is_preflight
from .messages import NO_FIELDS, Head
from .problems import ProblemAnswer

if TYPE_CHECKING:
    from .body import RequestBody

_CONNECTION, _REQUEST_ID = istr("Connection"), istr(REQUEST_ID)


class Incoming(web.BaseRequest):
    """A request whose every answer, errors included, gets `answer_fields`."""

    client: str
    """Address of who asks, `unknown` when there is none."""
    request_id: str
    """What this request is called in logs and errors, here and upstream: the client's `X-Request-Id` if it has a sensible one."""
    answer_fields: CIMultiDict[str]
    """Fields that replace those of the same name in the answer; an empty value removes the field, and `Vary` is added to."""
    caller: Caller | None = None
    """Who asks, where a route wants to know."""
    received: "RequestBody | None" = None
    """The body, where a mode has begun to read it before another answers."""
    counted_for: str = ""
    """Whom another worker of this gateway counted it for; empty when it came from a client."""
    recognized: str = ""
    """The subject of a credential that is good, where it is not known yet which route wants to know."""

    def __init__(self, *args: Any, trusted: TrustedProxies, **options: Any) -> None:
        super().__init__(*args, **options)
        self._trusted = trusted

    @property
    def counted_as(self) -> str:
        """Who this is for the limits: whom its credentials name, else the network of its address."""
        if self.counted_for:
            return self.counted_for
        subject = self.caller.subject if self.caller is not None else self.recognized
        return f"subject {subject!r}" if subject else client_network(self.client)

    def identify(self) -> None:
        """Finds out who asks, and gives the request its id. Called once, before anything looks at it.

        What others than trusted proxies say of who asked them is taken away, or an upstream might believe it.
        """
        peer = self.remote
        self.client = plain_address(peer) if peer else "unknown"
        if peer == "" or self._trusted.trust(self.client):  # empty: another worker of this gateway, which says who asked it
            believed, self.client = self.client, self._trusted.find_client(self.client, self._headers)
            self.forget(*(CHAIN_FIELDS if self.client == believed else ()))  # those that name nobody, or not the same
        else:
            self.forget(*FORWARDING_FIELDS)
        given = self._headers.get(_REQUEST_ID, "")
        self.request_id = keep_or_make(given)
        self.answer_fields = CIMultiDict({_REQUEST_ID: self.request_id})

    def apply_cors(self, cors: Cors, methods: Collection[str]) -> bool:
        """Lets the answer say which pages may have it, and tells whether this request only asks for that: a 204 is its answer.

        `methods` are those of what it asks for, all when there are none.
        """
        self.answer_fields.update(cors.answer_fields(self._headers.get(ORIGIN)))
        if not is_preflight(self.method, self._headers):
            return False
        self.answer_fields.update(cors.preflight_fields(self._headers, methods))
        return True

    def forget(self, *names: str) -> None:
        """Takes header fields away, for instance credentials that are meant for the gateway."""
        if self._headers.keys().isdisjoint(names):
            return
        fields = self._headers.copy()
        for name in names:
            fields.popall(name, None)
        self._replace_headers(fields)

    def set_field(self, name: str, value: str) -> None:
        """Replace all header fields of this name, also if the client's `Connection` names it, and with that says to drop it."""
        fields = self._headers.copy()
        fields[name] = value
        options = [option for option in ",".join(fields.popall(_CONNECTION, ())).split(",") if option.strip()]
        if options:
            fields[_CONNECTION] = ",".join(option for option in options if option.strip().lower() != name.lower())
        self._replace_headers(fields)

    def _replace_headers(self, fields: CIMultiDict[str]) -> None:
        self._headers = CIMultiDictProxy(fields)
        self._cache.pop("headers", None)  # aiohttp keeps what it gave whoever asked first

    def let_go(self) -> None:
        """Forgets its head and where it comes from: nobody asks for them once the head of an answer has left that may be open for days."""
        if isinstance(self._message, Head):
            self._message.clear()
            self._rel_url = self._message.url
        self._headers = NO_FIELDS
        self._transport_peername = self._transport_sockname = None
        self._cache.clear()
        self._protocol._cache.clear()  # aiohttp finds out again for the connection's next request

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        fields = getattr(self, "answer_fields", None)  # aiohttp answers what is no HTTP by itself, without asking the gateway
        if fields:
            if isinstance(response, ProblemAnswer):
                response.name_request(self.request_id)
            headers = response.headers
            if len(fields) == 1:
                headers[_REQUEST_ID] = self.request_id
                del self.answer_fields
                return
            vary = headers.getall("Vary", ()) if "Vary" in fields else ()
            for name in fields:
                headers.popall(name, None)
            headers.extend((name, value) for name, value in fields.items() if value)
            if vary:
                headers["Vary"] = _add_to_list(", ".join(vary), fields["Vary"])
            del self.answer_fields  # the answer may be open for days, and ten thousand others with it


def _add_to_list(values: str, value: str) -> str:
    """Gives a list of field names with `value` in it, which stands for one more unless they are all fields already."""
    known = [each.strip().lower() for each in values.split(",")]
    return values if "*" in known or value.lower() in known else f"{values}, {value}"
