"""Run `python -m gateway hash-key NAME`: make an API key and its table for the routes."""

import argparse
import json
import sys
from collections.abc import Sequence

from ..policy.secrets import SecretError, digest_of, make_api_key, read_api_key


def hash_key(arguments: Sequence[str]) -> int:
    """Print a `[[routes.auth.keys]]` table on standard output and a new key on standard error. Return the exit status."""
    about = "Make an API key. Give the key to its holder; put the table, which has only the key's SHA-256, into the routes file."
    parser = argparse.ArgumentParser("python -m gateway hash-key", description=about)
    parser.add_argument("name", help="name of the key's holder")
    parser.add_argument("--stdin", action="store_true", help="read an existing key from standard input")
    asked = parser.parse_args(arguments)
    if asked.stdin:
        try:
            digest = read_api_key(sys.stdin.buffer.readline())
        except SecretError as error:
            print(f"gateway hash-key: {error}", file=sys.stderr)
            return 2
    else:
        key = make_api_key()
        digest = digest_of(key)
        print(f"the key, shown only once: {key}", file=sys.stderr)
    print(f"[[routes.auth.keys]]\nname = {json.dumps(asked.name, ensure_ascii=False)}\nsha256 = {json.dumps(digest)}")
    return 0
