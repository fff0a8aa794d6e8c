"""Authenticate and authorize clients: credentials, tokens, keys, grants, and the end of streams whose credential expires."""
