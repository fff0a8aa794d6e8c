"""TLS to a route's upstream: the authorities to trust, and the client certificate."""

import hashlib
import ssl
from pathlib import Path

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_NO_CERTIFICATE = "contains no PEM certificate (-----BEGIN CERTIFICATE-----)"
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


class UpstreamTls:
    """A route's TLS files, with their content at the time when the route was read.

    Two are equal if the names and contents of their files are, so that a reload picks up renewed certificates.

    Raises ValueError if a file is not usable. It names the key, the file, and what is needed.
    """

    __slots__ = ("_digest", "context")

    def __init__(self, upstream: str, ca_file: str, client_certificate_file: str, client_key_file: str) -> None:
        files = {"ca_file": ca_file, "client_certificate_file": client_certificate_file, "client_key_file": client_key_file}
        named = {name: path for name, path in files.items() if path}
        self._digest = ""
        self.context: ssl.SSLContext | bool = True
        """Value for aiohttp's `ssl`. True: the defaults of the process."""
        if not named:
            return
        if not upstream.startswith("https:"):
            raise ValueError(f"{next(iter(named))} needs an https upstream, got {upstream!r}")
        if client_key_file and not client_certificate_file:
            raise ValueError("client_key_file needs client_certificate_file, the certificate of that key")
        contents = {name: _read(name, path) for name, path in named.items()}
        self._digest = hashlib.sha256(repr((named, contents)).encode()).hexdigest()
        if ca_file:
            _check_authorities(ca_file, contents["ca_file"])
        self.context = ssl.create_default_context(cafile=ca_file or None)
        self.context.set_alpn_protocols(["http/1.1"])
        if client_certificate_file:
            key_name = "client_key_file" if client_key_file else "client_certificate_file"
            _check_pair(client_certificate_file, contents["client_certificate_file"], key_name, named[key_name], contents[key_name])
            _load_pair(self.context, client_certificate_file, key_name, named[key_name])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UpstreamTls) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"<UpstreamTls {self._digest[:8] or 'of the process'}>"

    def __str__(self) -> str:
        return self._digest


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"{name} = {path!r}: cannot be read: {reason}") from None


def _check_authorities(path: str, content: bytes) -> None:
    if _BEGIN not in content:
        raise ValueError(f"ca_file = {path!r}: {_NO_CERTIFICATE}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ValueError(f"ca_file = {path!r}: contains a malformed certificate: {error.reason or error}") from None


def _check_pair(certificate: str, content: bytes, key_name: str, key: str, key_content: bytes) -> None:
    if _BEGIN not in content:
        raise ValueError(f"client_certificate_file = {certificate!r}: {_NO_CERTIFICATE}")
    if b"PRIVATE KEY-----" not in key_content:
        where = "" if key_name == "client_key_file" else "; name the file that has it with client_key_file"
        raise ValueError(f"{key_name} = {key!r}: contains no PEM private key (-----BEGIN PRIVATE KEY-----){where}")
    if any(mark in key_content for mark in _ENCRYPTED):
        raise ValueError(f"{key_name} = {key!r}: the private key is encrypted; decrypt it with openssl pkey")


def _load_pair(context: ssl.SSLContext, certificate: str, key_name: str, key: str) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key_name} = {key!r}: does not match the certificate in {certificate!r}") from None
        raise ValueError(f"{certificate!r} and {key!r} must be a certificate and its key: {error.reason or error}") from None
