"""The documentation for users: README.md, and the page of each service."""

from tests.kit.stack import REPOSITORY

PAGES = ("README.md", "gateway/README.md", "producer/README.md", "consumer/README.md")
DOCUMENTATION = "\n".join((REPOSITORY / page).read_text("utf-8") for page in PAGES)
