"""What this release is called; the same as in pyproject.toml, which images do not have."""

VERSION = "0.1.0"
