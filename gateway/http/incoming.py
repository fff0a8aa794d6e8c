"""A request on the public port: aiohttp's request, with what the gateway finds out before a mode answers it."""

from collections.abc import Collection
from typing import Any

from aiohttp import web
from multidict import CIMultiDict, istr

from service.request_ids import REQUEST_ID, keep_or_make

from ..policy.caller import Caller
from ..policy.cors import ORIGIN, Cors, is_preflight
from ..policy.trusted_proxies import CHAIN_FIELDS, FORWARDING_FIELDS, TrustedProxies, client_network, plain_address
from .problems import ProblemAnswer

_CONNECTION, _REQUEST_ID = istr("Connection"), istr(REQUEST_ID)


class Incoming(web.BaseRequest):
    """A request whose answers, including errors, all get `answer_fields`."""

    client: str
    """Address of the client, `unknown` if there is none."""
    request_id: str
    """ID of the request in logs, errors and the upstream: the client's `X-Request-Id` if that is usable."""
    answer_fields: CIMultiDict[str]
    """Fields that replace those of the same name in the answer. An empty value removes the field; `Vary` is extended."""
    caller: Caller | None = None
    """The authenticated caller, on a route that authenticates."""
    received: object | None = None
    """The body, if one mode has begun to read it before another answers."""
    owner_at_peer: str = ""
    """Owner for whom another worker counted a handed-off request, empty if it came from a client."""
    has_answer = False
    """Whether the head of an answer is made, so that an error cannot be answered."""
    recognized: str = ""
    """Subject of a valid credential, if the route is not known yet."""

    def __init__(self, *args: Any, trusted: TrustedProxies, **options: Any) -> None:
        super().__init__(*args, **options)
        self._trusted = trusted

    @property
    def owner(self) -> str:
        """Owner for the limits: the subject of the credential, else the network of the address."""
        if self.owner_at_peer:
            return self.owner_at_peer
        subject = self.caller.subject if self.caller is not None else self.recognized
        return f"subject {subject!r}" if subject else client_network(self.client)

    def identify(self) -> None:
        """Find the client and assign the request ID. Called once, before any other use of the request.

        Forwarding fields from peers other than trusted proxies are removed, because an upstream might trust them.
        """
        peer = self.remote
        self.client = plain_address(peer) if peer else "unknown"
        if peer == "" or self._trusted.trust(self.client):  # empty: another worker of this gateway, which names the client
            believed, self.client = self.client, self._trusted.find_client(self.client, self.headers)
            self.forget(*(CHAIN_FIELDS if self.client == believed else ()))  # fields that are malformed or disagree
        else:
            self.forget(*FORWARDING_FIELDS)
        given = self.headers.get(_REQUEST_ID, "")
        self.request_id = keep_or_make(given)
        self.answer_fields = CIMultiDict({_REQUEST_ID: self.request_id})

    def apply_cors(self, cors: Cors, methods: Collection[str]) -> bool:
        """Set the CORS fields of the answer. Return whether this is a preflight, whose answer is a 204.

        `methods` are those of the resource; empty means all.
        """
        self.answer_fields.update(cors.answer_fields(self.headers.get(ORIGIN)))
        if not is_preflight(self.method, self.headers):
            return False
        self.answer_fields.update(cors.preflight_fields(self.headers, methods))
        return True

    def forget(self, *names: str) -> None:
        """Remove header fields, such as credentials for the gateway."""
        if self.headers.keys().isdisjoint(names):
            return
        fields = self.headers.copy()
        for name in names:
            fields.popall(name, None)
        self._replace_headers(fields)

    def set_field(self, name: str, value: str) -> None:
        """Replace all header fields of this name, even if the client's `Connection` names it, which would drop it."""
        fields = self.headers.copy()
        fields[name] = value
        options = [option for option in ",".join(fields.popall(_CONNECTION, ())).split(",") if option.strip()]
        if options:
            fields[_CONNECTION] = ",".join(option for option in options if option.strip().lower() != name.lower())
        self._replace_headers(fields)

    def _replace_headers(self, fields: CIMultiDict[str]) -> None:
        """Let `headers` have these fields from now on."""
        raise NotImplementedError

    def answer_as_http_10(self) -> None:
        """Send the answer as HTTP/1.0, because the version of the request is not supported."""

    def release_memory(self) -> None:
        """Release the head and the addresses: they are not used after the answer's head, and the answer may stay open for days."""

    def complete(self, response: web.StreamResponse) -> None:
        """Add `answer_fields` to the head of an answer, once."""
        fields = getattr(self, "answer_fields", None)  # missing when aiohttp itself answers malformed HTTP
        if fields:
            if isinstance(response, ProblemAnswer):
                response.name_request(self.request_id)
            headers = response.headers
            vary = headers.getall("Vary", ()) if "Vary" in fields else ()
            for name in fields:
                headers.popall(name, None)
            headers.extend((name, value) for name, value in fields.items() if value)
            if vary:
                headers["Vary"] = _add_to_list(", ".join(vary), fields["Vary"])
            del self.answer_fields  # saves memory: ten thousand answers may stay open for days


def _add_to_list(values: str, value: str) -> str:
    """Return a list of field names with `value` added, unless it has that name or `*`."""
    known = [each.strip().lower() for each in values.split(",")]
    return values if "*" in known or value.lower() in known else f"{values}, {value}"
