"""Read the header field `Content-Encoding` (RFC 9110 section 8.4)."""

_NO_CODING = ("", "identity", "none")  # "none" is not registered, but guides to graphql-sse and Next.js tell servers to send it


def content_codings(field: str) -> tuple[str, ...]:
    """Return the codings that were applied to a body, in lower case and in their order; empty if the body is not encoded."""
    codings = (coding.strip().lower() for coding in field.split(","))
    return tuple(coding for coding in codings if coding not in _NO_CODING)
