"""`python -m gateway hash-key NAME`: makes an API key, and what the routes say of it."""

import argparse
import json
import sys
from collections.abc import Sequence

from .secrets import SecretError, digest_of, make_api_key, read_api_key


def hash_key(arguments: Sequence[str]) -> int:
    """Prints a `[[routes.auth.keys]]` table on standard output, a new key on standard error; gives the exit status."""
    about = "Makes an API key. The key goes to whoever shall have it, the table into the file of routes, which has its SHA-256 only."
    parser = argparse.ArgumentParser("python -m gateway hash-key", description=about)
    parser.add_argument("name", help="what the key's holder is called")
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
        print(f"the key, which is shown only now: {key}", file=sys.stderr)
    print(f"[[routes.auth.keys]]\nname = {json.dumps(asked.name, ensure_ascii=False)}\nsha256 = {json.dumps(digest)}")
    return 0
