"""Test a stream behind TLS, in a process, because trusted certificates are read only once."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doctor.proxies import caddy_with_tls
from tests.doctor.source import Source
from tests.kit.stack import REPOSITORY, clean_environment


async def consult_process(url: str, seconds: int, **environ: str) -> tuple[int | None, bytes, bytes]:
    """Run the doctor in a process; return exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "doctor", url, "--json", "--seconds", str(seconds), "--once"),
        cwd=REPOSITORY,
        env=clean_environment(**environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out, err


@pytest.mark.caddy
async def test_doctor_reports_http_2_behind_tls_and_gives_status_2_for_an_untrusted_certificate(tmp_path: Path) -> None:
    async with Source() as source, caddy_with_tls(source.url, tmp_path) as (url, authority), asyncio.timeout(60):
        trusting, doubting = await asyncio.gather(
            consult_process(f"{url}/live", 3, SSL_CERT_FILE=str(authority)),
            consult_process(f"{url}/live", 30),  # ends at once, when the certificate is rejected
        )
    assert trusting[0] == 0, trusting
    assert {finding["check"]: finding["severity"] for finding in json.loads(trusting[1])["findings"]}["http/2"] == "ok"
    assert doubting[0] == 2
    assert b"could not connect" in doubting[2]
    assert b"certificate verify failed" in doubting[2]
