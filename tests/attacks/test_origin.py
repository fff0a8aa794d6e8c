"""Clients that send the gateway's own words as their origin."""

from pathlib import Path

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence

PAGE = "https://page.example"


def allow_the_page(asked: Asked) -> Script:
    """Allow the page to read, and nothing else."""
    allowed = f"Access-Control-Allow-Origin: {PAGE}\r\n\r\n" if asked.header("Origin") == PAGE else "\r\n"
    return [EVENT_STREAM_HEAD.removesuffix(b"\r\n") + allowed.encode(), Silence()]


async def test_client_with_a_star_for_its_origin_opens_no_stream_for_others(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(allow_the_page) as upstream,
        running([shared("/", upstream.url)], tmp_path) as gateway,
        Downstream(gateway.port) as attacker,
        Downstream(gateway.port) as page,
    ):
        await attacker.ask("/", headers=[("Origin", "*")])
        assert (await attacker.answer()).head.value("Access-Control-Allow-Origin") is None
        await page.ask("/", headers=[("Origin", PAGE)])
        assert (await page.answer()).head.value("Access-Control-Allow-Origin") == PAGE
        assert [asked.header("Origin") for asked in upstream.requests] == ["*", PAGE]
