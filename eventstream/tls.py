"""TLS errors in words, without addresses."""

import ssl

_HOST_MISMATCH, _IP_MISMATCH = 62, 64  # X509_V_ERR_… of OpenSSL, whose own text names the host


def describe_tls(error: ssl.SSLError) -> str:
    """Return the TLS library's finding, such as "TLS: certificate verify failed: self-signed certificate"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = getattr(error, "verify_code", 0) in (_HOST_MISMATCH, _IP_MISMATCH)
        found = "it is not for this host" if mismatch else getattr(error, "verify_message", "") or "no reason given"
        return f"TLS: certificate verify failed: {found}"
    return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"


def find_tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS library's error that caused one of aiohttp's, None when there is none."""
    seen: set[int] = set()  # an exception may be its own cause
    while error is not None and id(error) not in seen:
        found = getattr(error, "os_error", error)
        if isinstance(found, ssl.SSLError):
            return found
        seen.add(id(error))
        error = error.__cause__
    return None
