"""A strict client accepts the certificates of a test run, and no others."""

import asyncio
import contextlib
import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from tests.kit.certificates import Authority, Certificate


async def shake_hands(server: Certificate, client: ssl.SSLContext, *, client_authority: Path | None = None) -> bytes:
    """Return what a client reads from a TLS server that says "hello"."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    context = server.server_context(client_authority=client_authority)
    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context) as listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        try:
            return await reader.read()
        finally:
            writer.close()


def trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return context


async def test_strict_client_trusts_a_certificate_of_the_authority_for_the_local_host(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert await shake_hands(authority.issue("server"), trusting(authority)) == b"hello"


async def test_server_that_requires_a_certificate_accepts_one_of_its_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = trusting(authority)
    client = authority.issue("client", client=True)
    context.load_cert_chain(client.file, client.key_file)
    assert await shake_hands(authority.issue("server"), context, client_authority=authority.file) == b"hello"
    received = b""
    with contextlib.suppress(OSError):  # in TLS 1.3 the refusal may come as an alert, a reset or an end
        received = await shake_hands(authority.issue("server"), trusting(authority), client_authority=authority.file)
    assert received == b""


async def test_expired_foreign_and_misnamed_certificates_are_refused(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    cases = {
        "expired": authority.issue("expired", lifetime=timedelta(hours=-1)),
        "unable to get local issuer": stranger.issue("foreign"),
        "IP address mismatch": authority.issue("misnamed", hosts=("example.test",)),
    }
    for reason, certificate in cases.items():
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            await shake_hands(certificate, trusting(authority))
