"""Names of HTTP fields and methods."""

FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""Expression for a token, such as the name of a field (RFC 9110 section 5.6.2)."""
