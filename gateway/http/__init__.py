"""Sockets and HTTP/1.1 on both sides: accept, parse, request, answer. Nothing else knows aiohttp's internals."""
