"""Identify proxies between the source and the doctor by their header fields, and give the setting that turns off each one's buffering."""

from collections.abc import Callable
from dataclasses import dataclass

from .observation import Head
from .quoting import Quote


@dataclass(frozen=True, slots=True)
class Suspect:
    """A proxy or feature that may buffer the stream."""

    name: str
    evidence: str
    """The header field that reveals it."""
    remedy: str


_NGINX = "proxy_buffering off; and gzip off; in its location (or let the source send X-Accel-Buffering: no)"
_CDN = "pass this path through uncached and uncompressed (Cache-Control: no-cache, no-transform), or around the CDN"

_BY_SERVER = (
    ("nginx", "nginx", _NGINX),
    ("openresty", "OpenResty (nginx)", _NGINX),
    ("tengine", "Tengine (nginx)", _NGINX),
    ("cloudflare", "Cloudflare", _CDN),
    ("akamai", "Akamai", _CDN),
    ("varnish", "Varnish", "set beresp.do_stream = true, and return (pipe) or (pass) for this path"),
    ("envoy", "Envoy", "remove the buffer and compressor filters from this route"),
    ("caddy", "Caddy", "flush_interval -1 in its reverse_proxy, and no encode for this path"),
    ("apache", "Apache httpd", "flushpackets=on in its ProxyPass, and SetEnv no-gzip 1 for this path"),
    ("iis", "IIS", "responseBufferLimit=0 for ARR, dynamic compression off for text/event-stream"),
    ("awselb", "AWS load balancer", "it has no buffering to turn off: check the next hop"),
    ("gunicorn", "gunicorn", "serve the stream from an async worker, and return a generator"),
    ("werkzeug", "Werkzeug's development server", "yield each event from the generator at once"),
    ("traefik", "Traefik", "remove the buffering and compress middlewares from this route"),
    ("litespeed", "LiteSpeed", "let the source send X-LiteSpeed-No-Buffer: 1"),
)
_BY_FIELD = (
    ("CF-Ray", "Cloudflare", _CDN),
    ("X-Amz-Cf-Id", "CloudFront", _CDN),
    ("X-Azure-Ref", "Azure Front Door", _CDN),
    ("X-Akamai-Transformed", "Akamai", _CDN),
    ("X-Served-By", "Fastly", "set beresp.do_stream = true for this path"),
    ("X-Varnish", "Varnish", "set beresp.do_stream = true, and return (pipe) or (pass) for this path"),
    ("X-Envoy-Upstream-Service-Time", "Envoy", "remove the buffer and compressor filters from this route"),
    ("X-Vercel-Id", "Vercel", "stream from a function with streaming on"),
    ("X-Nf-Request-Id", "Netlify", "stream from an edge function"),
    ("Fly-Request-Id", "Fly.io's proxy", "it has no buffering to turn off: check the next hop"),
)
_BY_VIA = (
    ("varnish", "Varnish", "set beresp.do_stream = true, and return (pipe) or (pass) for this path"),
    ("cloudfront", "CloudFront", _CDN),
    ("google", "Google's load balancer", "raise its backend timeout; it does not buffer by itself"),
    ("vegur", "Heroku's router", "send a byte at least every 55 s; it does not buffer by itself"),
    ("caddy", "Caddy", "flush_interval -1 in its reverse_proxy, and no encode for this path"),
    ("squid", "Squid", "bypass it between the client and the source"),
)


_CORK_SECONDS = (0.15, 0.35)


def find_suspects(head: Head, quote: Quote) -> list[Suspect]:
    """Return the suspects, most likely first. Some proxies, such as HAProxy, leave no trace in the header."""
    found = []
    if head.coding():
        evidence = f"Content-Encoding: {quote(head.coding())}"
        found.append(Suspect("compression", evidence, "no compression for text/event-stream, or a flush after every event"))
    found += _of_the_body(head, quote)
    server = (head.get("Server") or "").lower()
    found += [Suspect(name, f"Server: {quote(server)}", remedy) for word, name, remedy in _BY_SERVER if word in server]
    via = (head.get("Via") or "").lower()
    found += [Suspect(name, f"Via: {quote(via)}", remedy) for word, name, remedy in _BY_VIA if word in via]
    found += [Suspect(name, f"{key}: {quote(head.get(key) or '')}", remedy) for key, name, remedy in _BY_FIELD if head.get(key) is not None]
    first: dict[str, Suspect] = {}
    for suspect in found:
        first.setdefault(suspect.name, suspect)
    return list(first.values())


def _of_the_body(head: Head, quote: Quote) -> list[Suspect]:
    """Return suspects whose fields show that the whole body was known before the head was sent."""
    kinds: tuple[tuple[str, str, str, Callable[[str], bool]], ...] = (
        ("X-Accel-Buffering", "nginx", _NGINX, lambda value: value.lower() == "yes"),
        ("X-Cache", "a cache", "let the source send Cache-Control: no-store, or exclude this path from the cache", lambda value: True),
        ("Age", "a cache", "let the source send Cache-Control: no-store, or exclude this path from the cache", lambda value: value != "0"),
        ("ETag", "a layer that computes the ETag from the whole body", "turn ETags off for this path (Rack::ETag, Express: etag)", bool),
        ("Content-Length", "a layer that buffers the whole body to count it", "send the response in chunks, as events occur", bool),
    )
    return [
        Suspect(name, f"{key}: {quote(value)}", remedy) for key, name, remedy, tells in kinds if (value := head.get(key)) and tells(value)
    ]


def advice(head: Head, quote: Quote, pause_seconds: float = 0.0) -> str:
    """Return where to look for the buffer and what to turn off there, given the pause between clumps in seconds."""
    suspects = find_suspects(head, quote)
    if not suspects:
        if _CORK_SECONDS[0] <= pause_seconds <= _CORK_SECONDS[1]:
            return "Linux waits 0.2 s when a sender announces more data: if HAProxy is on the path, set option http-no-delay"
        unbuffered = (head.get("X-Accel-Buffering") or "").lower() == "no"
        hint = " (X-Accel-Buffering: no arrived, so probably not nginx)" if unbuffered else ""
        return f"no header field identifies a proxy{hint}: test the source itself, then compare it with each hop by --through"
    return "; ".join(f"{suspect.name} ({suspect.evidence}): {suspect.remedy}" for suspect in suspects[:3])
