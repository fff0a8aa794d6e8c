"""Who stands between the source and us, as far as the header fields tell, and how each is told not to buffer."""

from collections.abc import Callable
from dataclasses import dataclass

from .observation import Head
from .quoting import Quote


@dataclass(frozen=True, slots=True)
class Suspect:
    """Somebody who may hold bytes back."""

    name: str
    evidence: str
    """The header field that gave it away."""
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
    ("envoy", "Envoy", "take the buffer and compressor filters off this route"),
    ("caddy", "Caddy", "flush_interval -1 in its reverse_proxy, and no encode for this path"),
    ("apache", "Apache httpd", "flushpackets=on in its ProxyPass, and SetEnv no-gzip 1 for this path"),
    ("iis", "IIS", "responseBufferLimit=0 for ARR, dynamic compression off for text/event-stream"),
    ("awselb", "AWS load balancer", "nothing to switch off there: look behind it"),
    ("gunicorn", "gunicorn", "serve the stream from an async worker, and return a generator"),
    ("werkzeug", "Werkzeug's development server", "yield each event from the generator at once"),
    ("traefik", "Traefik", "take the buffering and compress middlewares off this route"),
    ("litespeed", "LiteSpeed", "let the source send X-LiteSpeed-No-Buffer: 1"),
)
_BY_FIELD = (
    ("CF-Ray", "Cloudflare", _CDN),
    ("X-Amz-Cf-Id", "CloudFront", _CDN),
    ("X-Azure-Ref", "Azure Front Door", _CDN),
    ("X-Akamai-Transformed", "Akamai", _CDN),
    ("X-Served-By", "Fastly", "set beresp.do_stream = true for this path"),
    ("X-Varnish", "Varnish", "set beresp.do_stream = true, and return (pipe) or (pass) for this path"),
    ("X-Envoy-Upstream-Service-Time", "Envoy", "take the buffer and compressor filters off this route"),
    ("X-Vercel-Id", "Vercel", "stream from a function with streaming on"),
    ("X-Nf-Request-Id", "Netlify", "stream from an edge function"),
    ("Fly-Request-Id", "Fly.io's proxy", "nothing to switch off there: look behind it"),
)
_BY_VIA = (
    ("varnish", "Varnish", "set beresp.do_stream = true, and return (pipe) or (pass) for this path"),
    ("cloudfront", "CloudFront", _CDN),
    ("google", "Google's load balancer", "raise its backend timeout; it does not buffer by itself"),
    ("vegur", "Heroku's router", "send a byte at least every 55 s; it does not buffer by itself"),
    ("caddy", "Caddy", "flush_interval -1 in its reverse_proxy, and no encode for this path"),
    ("squid", "Squid", "let the client reach the source without it"),
)


_CORK_SECONDS = (0.15, 0.35)


def find_suspects(head: Head, quote: Quote) -> list[Suspect]:
    """Gives who may hold bytes back, the most likely first. Some, HAProxy among them, leave no trace in the header."""
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
    """Traces of somebody who had the whole body before he sent the head."""
    kinds: tuple[tuple[str, str, str, Callable[[str], bool]], ...] = (
        ("X-Accel-Buffering", "nginx", _NGINX, lambda value: value.lower() == "yes"),
        ("X-Cache", "a cache", "let the source send Cache-Control: no-store, or exclude this path from the cache", lambda value: True),
        ("Age", "a cache", "let the source send Cache-Control: no-store, or exclude this path from the cache", lambda value: value != "0"),
        ("ETag", "whoever computes the ETag from the whole body", "switch ETags off for this path (Rack::ETag, Express: etag)", bool),
        ("Content-Length", "whoever counted the whole body first", "send the answer in chunks, as it comes to be", bool),
    )
    return [
        Suspect(name, f"{key}: {quote(value)}", remedy) for key, name, remedy, tells in kinds if (value := head.get(key)) and tells(value)
    ]


def advice(head: Head, quote: Quote, pause_seconds: float = 0.0) -> str:
    """Says where to look for what holds bytes back, and what to switch off there; `pause_seconds` is how long it does."""
    suspects = find_suspects(head, quote)
    if not suspects:
        if _CORK_SECONDS[0] <= pause_seconds <= _CORK_SECONDS[1]:
            return "0.2 s is how long Linux waits for a sender that announced more: HAProxy, without option http-no-delay, if it is there"
        unbuffered = (head.get("X-Accel-Buffering") or "").lower() == "no"
        hint = " (X-Accel-Buffering: no came through, so hardly nginx)" if unbuffered else ""
        return f"no header field says who stands between{hint}: ask the source itself, then each hop, with --through for the next"
    return "; ".join(f"{suspect.name} ({suspect.evidence}): {suspect.remedy}" for suspect in suspects[:3])
