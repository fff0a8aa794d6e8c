"""The version of this release, as in pyproject.toml, which images do not contain."""

VERSION = "0.1.0"
