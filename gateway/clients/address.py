"""Who asks, when proxies stand in between."""

import ipaddress
import re
from collections.abc import Sequence

from multidict import CIMultiDictProxy, istr

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
"""What proxies say of who asked them. From anybody else it is a claim, which some upstreams would believe."""

CHAIN_FIELDS = _FORWARDED, _X_FORWARDED_FOR = FORWARDING_FIELDS[:2]
"""Those that name whom each proxy was asked by."""

_MOST_HOPS = 100  # more are nobody's proxies; a request line's worth of addresses would take time to read
_CLIENT_NETWORK_BITS = 64  # what one customer gets of IPv6: each has 2^64 addresses at least
_PAIR = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[^\"\\]|\\.)*\")[ \t]*(;|,|\Z)")


class TrustedProxies:
    """The proxies that are believed when they say who asked them."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = networks

    def __repr__(self) -> str:
        return f"<TrustedProxies {', '.join(map(str, self._networks)) or 'none'}>"

    @classmethod
    def parse(cls, text: str) -> "TrustedProxies":
        """Reads addresses and networks (`10.0.0.0/8`) between commas. Raises ValueError for what is neither."""
        networks = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError as error:
                raise ValueError(f"{part!r} is no address like 192.0.2.7 or network like 10.0.0.0/8 or fd00::/8: {error}") from None
        return cls(tuple(networks))

    def trust(self, address: str) -> bool:
        """Tells whether whoever has this address is believed."""
        if not self._networks:
            return False
        parsed = _parse_address(address)
        return parsed is not None and any(parsed.version == network.version and parsed in network for network in self._networks)

    def find_client(self, peer: str, headers: CIMultiDictProxy[str]) -> str:
        """Gives the address of whoever asked `peer`, which is believed: from right to left the first that is not believed itself.

        A proxy may write one of `Forwarded` (RFC 7239) and `X-Forwarded-For` and pass the other on as clients send it. So where one of
        them makes no sense, or they name different clients, neither is believed, and `peer` counts as the client.
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
        """Gives the client that a chain names: beyond an address that cannot be read nobody is believed. None when it names nobody."""
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
    """Gives the usual form of an address: without a zone, and IPv4 where it stands in IPv6 because of a socket for both."""
    parsed = _parse_address(address) if ":" in address else None
    return str(parsed) if parsed is not None else address


def client_network(address: str) -> str:
    """Gives by what a client is counted: its address, of IPv6 the /64, in which it may choose any."""
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
    """Gives the address of a node (RFC 7239 section 6), with or without a port; None for `unknown`, a name of its own or nonsense."""
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
    """Gives the `for` of each element, empty where there is none; nobody when a quote is left open, which may have swallowed others."""
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
