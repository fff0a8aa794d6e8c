"""Find the client's address behind trusted proxies."""

import ipaddress
import re
from collections.abc import Sequence

from multidict import CIMultiDictProxy, istr

from .field_names import FIELD_NAME

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDING_FIELDS = tuple(
    map(
        istr,
        (
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded-Proto",
            "X-Forwarded-Server",
            "X-Real-IP",
        ),
    )
)
"""Fields with which proxies describe their client. Only trusted proxies may set them, because some upstreams believe them."""

CHAIN_FIELDS = _FORWARDED, _X_FORWARDED_FOR = FORWARDING_FIELDS[:2]
"""Fields that list the addresses of client and proxies."""

_MOST_HOPS = 100  # no real chain is longer, and a head full of addresses would take long to parse
_CLIENT_NETWORK_BITS = 64  # the smallest IPv6 network that providers assign to one customer
_PAIR = re.compile(rf"[ \t]*({FIELD_NAME})=({FIELD_NAME}|\"(?:[^\"\\]|\\.)*\")[ \t]*(;|,|\Z)")


class TrustedProxies:
    """Proxies whose forwarding fields are trusted."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = networks

    def __repr__(self) -> str:
        return f"<TrustedProxies {', '.join(map(str, self._networks)) or 'none'}>"

    @classmethod
    def parse(cls, text: str) -> "TrustedProxies":
        """Parse comma-separated addresses and networks (`10.0.0.0/8`). Raises ValueError if a part is neither."""
        networks = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError as error:
                raise ValueError(
                    f"must be addresses such as 192.0.2.7 or networks such as 10.0.0.0/8 or fd00::/8, got {part!r}: {error}"
                ) from None
        return cls(tuple(networks))

    def trust(self, address: str) -> bool:
        """Return whether the proxy at this address is trusted."""
        if not self._networks:
            return False
        parsed = _parse_address(address)
        return parsed is not None and any(parsed.version == network.version and parsed in network for network in self._networks)

    def find_client(self, peer: str, headers: CIMultiDictProxy[str]) -> str:
        """Return the client of `peer`, a trusted proxy: from right to left, the first address that is not a trusted proxy.

        A proxy may write one of `Forwarded` (RFC 7239) and `X-Forwarded-For`, and forward the other as the client sent it. So if one is
        malformed, or they name different clients, neither is trusted and `peer` counts as the client.
        """
        found = set()
        for name, read in ((_FORWARDED, _read_forwarded), (_X_FORWARDED_FOR, _read_x_forwarded_for)):
            if name in headers:
                client = self._walk(read(headers))
                if client is None:
                    return peer
                found.add(client)
        outsiders = {client for client in found if not self.trust(client)}
        return (outsiders or found).pop() if len(outsiders or found) == 1 else peer

    def _walk(self, chain: Sequence[str]) -> str | None:
        """Return the client of a chain, None if there is none. Entries to the left of a malformed address are not trusted."""
        client = None
        for node in reversed(chain[-_MOST_HOPS:]):
            address = _read_node(node)
            if address is None:
                return client
            client = address
            if not self.trust(address):
                return client
        return client


def plain_address(address: str) -> str:
    """Return an address in its plain form: without a zone, and IPv4 instead of IPv4-mapped IPv6."""
    parsed = _parse_address(address) if ":" in address else None
    return str(parsed) if parsed is not None else address


def client_network(address: str) -> str:
    """Return the key by which a client is counted: its address, for IPv6 the /64, because it may use any address in that."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address, _CLIENT_NETWORK_BITS), strict=False))
    except ValueError:
        return address


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _read_node(node: str) -> str | None:
    """Return the address of a node (RFC 7239 section 6) without its port, None for `unknown`, an obfuscated or malformed one."""
    host = node.strip()
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    parsed = _parse_address(host)
    return str(parsed) if parsed is not None else None


def _read_x_forwarded_for(headers: CIMultiDictProxy[str]) -> list[str]:
    return [node for value in headers.getall(_X_FORWARDED_FOR, ()) for node in value.split(",")]


def _read_forwarded(headers: CIMultiDictProxy[str]) -> list[str]:
    """Return the `for` of each element, empty if missing. Return no nodes if the syntax is wrong: an open quote may hide elements."""
    nodes: list[str] = []
    text = ",".join(headers.getall(_FORWARDED, ()))
    at, node, end = 0, "", ","
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return []
        name, value, end = pair.groups()
        if name.lower() == "for":
            node = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        if end != ";":
            nodes.append(node)
            node = ""
        at = pair.end()
    return nodes if end != ";" else [*nodes, node]
