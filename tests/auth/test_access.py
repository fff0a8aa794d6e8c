"""Test which credentials open a route, and what the upstream sees of them."""

import asyncio
import re
import time

import jwt
import pytest

from tests.auth.conftest import AUDIENCE, FILE_KEY, ISSUER, NEWS_KEY, SHOP_KEY, World
from tests.auth.signing import EVERYTHING, OTHER_SECRET, bearer, claims, hs_token, private_key, token, unsigned_token
from tests.kit.waiting import GUARD_SECONDS

NAMES = {SHOP_KEY: "shop", NEWS_KEY: "news", FILE_KEY: "file"}

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_client_without_a_credential_learns_which_is_required_and_the_upstream_gets_no_request(world: World) -> None:
    reply = await world.ask("/token/none")
    assert reply.status == 401
    assert reply.head.value("WWW-Authenticate") == 'Bearer realm="gateway"'
    assert reply.head.value("Cache-Control") == "no-store"
    assert reply.problem == (
        "a token, in `Authorization: Bearer …` or the query parameter 'access_token' or the cookie 'session', is required"
    )
    assert (await world.ask("/token/none", ("Authorization", "Basic YTpi"))).status == 401
    assert world.asked("/token/none") == []


async def test_routes_without_auth_require_nothing_and_forward_credentials(world: World) -> None:
    assert (await world.ask("/open", bearer("x"), ("Cookie", "session=y"))).status == 200
    (asked,) = world.asked("/open")
    assert (asked.header("Authorization"), asked.header("Cookie")) == ("Bearer x", "session=y")


@pytest.mark.parametrize("key", [SHOP_KEY, NEWS_KEY, FILE_KEY])
@pytest.mark.parametrize("way", ["bearer", "field", "query"])
async def test_api_key_opens_its_route_and_is_not_forwarded(world: World, key: str, way: str) -> None:
    target = f"/keys/news/{way}-{key.split('-')[-2]}"
    fields = {"bearer": [("Authorization", f"bEARER {key}")], "field": [("X-API-Key", key)]}.get(way, [])
    query = f"?a=1&k%65y={key}&b=2" if way == "query" else "?a=1&b=2"
    assert (await world.ask(target + query, *fields)).status == 200
    (asked,) = world.asked(target)
    assert asked.target == f"{target}?a=1&b=2"
    assert key not in repr(asked)
    assert asked.header("X-Subject") == ("news" if key == NEWS_KEY else "shop")


@pytest.mark.parametrize("key", [SHOP_KEY + "x", SHOP_KEY[:-1], SHOP_KEY.upper(), "", "\xe9", "x" * 15_000])
async def test_unknown_keys_open_nothing(world: World, key: str) -> None:
    reply = await world.ask("/keys/wrong", ("Authorization", f"Bearer {key}"))
    assert reply.status == 401
    assert world.asked("/keys/wrong") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (hs_token(OTHER_SECRET), "the signature of the token is invalid"),
        (hs_token(exp=int(time.time()) - 1), "the token has expired"),
        (hs_token(nbf=int(time.time()) + 3600), "the token is not valid yet"),
        (hs_token(exp=None), "the token needs a claim 'exp'"),
        (unsigned_token(), "the algorithm of the token is not allowed"),
        (unsigned_token("HS256"), "the signature of the token is invalid"),
        (hs_token(algorithm="HS512", secret=OTHER_SECRET * 2), "the algorithm of the token is not allowed"),
        (token("RS256"), "the algorithm of the token is not allowed"),
        ("no-token", "the credential is not a JSON Web Token"),
        ("a.b.c", "the credential is not a valid JSON Web Token, or has malformed claims"),
    ],
    ids=lambda value: value[:20] if " " in value else "",
)
async def test_client_with_an_invalid_token_gets_401_with_the_reason(world: World, text: str, says: str) -> None:
    reply = await world.ask("/token/bad", bearer(text))
    assert (reply.status, reply.problem) == (401, says)
    challenge = reply.head.value("WWW-Authenticate") or ""
    assert challenge.startswith('Bearer realm="gateway", error="invalid_token", error_description="')
    assert re.fullmatch(r"[\x20-\x7e]*", challenge)
    assert world.asked("/token/bad") == []


@pytest.mark.parametrize("way", ["bearer", "query", "cookie"])
async def test_token_from_each_place_opens_the_route_and_is_not_forwarded(world: World, way: str) -> None:
    text = hs_token(jti=way)
    target = f"/token/way-{way}"
    query = {"query": f"?x=%20y&access_token={text}&flag"}.get(way, "?x=%20y&flag")
    fields = {
        "bearer": [bearer(text), ("Cookie", "session=old; a=b")],
        "cookie": [("Cookie", f'a=b; session="{text}"; c="d e"'), ("Sec-Fetch-Site", "same-origin")],
    }.get(way, [])
    assert (await world.ask(target + query, *fields)).status == 200
    (asked,) = world.asked(target)
    assert asked.target == f"{target}?x=%20y&flag"
    assert text not in repr(asked)
    assert asked.header("Authorization") is None
    assert asked.header("Cookie") == {"bearer": "a=b", "cookie": 'a=b; c="d e"'}.get(way)


async def test_gateway_removes_the_parameter_in_any_spelling_even_if_the_token_is_elsewhere(world: World) -> None:
    text = hs_token(jti="both")
    for number, spelled in enumerate(("access_token=x", "%61ccess%5Ftoken=x", "access_token", "access_token=x&access_token=x")):
        assert (await world.ask(f"/token/cut-{number}?{spelled}", bearer(text))).status == 200
        (asked,) = world.asked(f"/token/cut-{number}")
        assert asked.target == f"/token/cut-{number}"


async def test_several_credentials_in_one_place_are_rejected(world: World) -> None:
    first, second = hs_token(jti="a"), hs_token(jti="b")
    for target, fields in (
        (f"/token/two?access_token={first}&access_token={second}", []),
        ("/token/two", [bearer(first), bearer(second)]),
        ("/token/two", [("Cookie", f"session={first}; session={second}"), ("Sec-Fetch-Site", "same-origin")]),
    ):
        reply = await world.ask(target, *fields)
        assert reply.status == 400
        assert "several credentials" in reply.problem
        assert 'error="invalid_request"' in (reply.head.value("WWW-Authenticate") or "")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 403),
        ([("Sec-Fetch-Site", "same-origin")], 200),
        ([("Sec-Fetch-Site", "none")], 200),
        ([("Sec-Fetch-Site", "same-site")], 403),
        ([("Sec-Fetch-Site", "cross-site")], 403),
        ([("Sec-Fetch-Site", "cross-site"), ("Origin", "https://app.example")], 200),
        ([("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")], 403),
        ([("Origin", "https://app.example")], 200),
        ([("Origin", "https://app.example.evil.example")], 403),
        ([("Origin", "http://app.example")], 403),
        ([("Origin", "null")], 403),
        ([("Origin", "http://127.0.0.1:{port}")], 200),
        ([("Origin", "https://127.0.0.1:{port}")], 200),
        ([("Origin", "http://127.0.0.1")], 403),
        ([("Origin", "http://[")], 403),
        ([("Sec-Fetch-Site", "cross-site"), ("Origin", "http://127.0.0.1:{port}")], 403),
        ([("Origin", "https://evil.example"), ("X-Forwarded-Host", "evil.example")], 403),
    ],
)
async def test_cookie_is_accepted_only_from_allowed_pages(world: World, fields: list[tuple[str, str]], status: int) -> None:
    fields = [(name, value.replace("{port}", str(world.port))) for name, value in fields]
    reply = await world.ask("/token/cookie", ("Cookie", f"session={hs_token()}"), *fields)
    assert reply.status == status
    if status == 403:
        assert "a cookie is accepted only from pages of this origin" in reply.problem
    other = await world.ask("/token/cookie", bearer(hs_token()), *fields)
    assert other.status == 200  # no browser sends this on its own


async def test_cookie_is_accepted_from_pages_that_the_cors_table_allows(world: World) -> None:
    cookie = ("Cookie", f"session={hs_token()}")
    assert (await world.ask("/cors", cookie, ("Origin", "https://page.example"), ("Sec-Fetch-Site", "cross-site"))).status == 200
    refused = await world.ask("/cors", cookie, ("Origin", "https://other.example"), ("Sec-Fetch-Site", "cross-site"))
    assert refused.status == 403
    unknown = await world.ask("/cors", ("Origin", "https://page.example"))
    assert (unknown.status, unknown.head.value("Access-Control-Allow-Origin")) == (401, "https://page.example")


async def test_cookie_of_a_typed_address_may_read_but_not_publish(world: World) -> None:
    fields = [("Cookie", f"session={hs_token()}"), ("Sec-Fetch-Site", "none")]
    assert (await world.ask("/token/typed", *fields, method="POST")).status == 403
    assert (await world.ask("/token/typed", *fields)).status == 200


async def test_forward_keeps_header_fields_but_never_the_parameter(world: World) -> None:
    text = hs_token()
    assert (await world.ask("/forward/fields", bearer(text), ("Cookie", "session=a; b=c"))).status == 200
    (asked,) = world.asked("/forward/fields")
    assert (asked.header("Authorization"), asked.header("Cookie")) == (f"Bearer {text}", "session=a; b=c")
    assert (await world.ask(f"/forward/query?access_token={text}")).status == 200
    (asked,) = world.asked("/forward/query")
    assert (asked.target, asked.header("Authorization")) == ("/forward/query", None)


async def test_upstream_gets_the_subject_in_a_field_that_clients_cannot_set(world: World) -> None:
    for subject, sent in (
        ("alice", "alice"),
        ("auth0|a b%é\r\nX: y", "auth0|a%20b%25%C3%A9%0D%0AX:%20y"),
        ("\ud800", "%ED%A0%80"),
        (None, None),
    ):
        target = f"/subject/{len(world.asked('/subject'))}"
        assert (await world.ask(target, bearer(hs_token(sub=subject)), ("x-subject", "root"), ("X-Subject", "root"))).status == 200
        (asked,) = world.asked(target)
        assert asked.header("X-Subject") == sent


async def test_upstream_gets_the_subject_even_if_connection_names_its_field(world: World) -> None:
    fields = [bearer(hs_token(sub="alice")), ("Connection", "keep-alive, x-subject"), ("Connection", "X-Own"), ("X-Own", "1")]
    assert (await world.ask("/subject/hop", *fields)).status == 200
    (asked,) = world.asked("/subject/hop")
    assert (asked.header("X-Subject"), asked.header("X-Own")) == ("alice", None)


@pytest.mark.parametrize("target", ["/subject/alike", "/keys/alike", "/open/alike"])
async def test_field_that_some_servers_read_as_the_subjects_is_rejected(world: World, target: str) -> None:
    fields = [("X_Subject", "root"), bearer(hs_token() if target.startswith("/subject") else SHOP_KEY)]
    assert (await world.ask(target, *fields)).status == 400
    assert world.asked(target) == []


async def test_client_cannot_forge_the_subject_on_a_route_without_auth_to_the_same_upstream(world: World) -> None:
    assert (await world.ask("/open/forged", ("X-Subject", "root"))).status == 200
    assert [asked.header("X-Subject") for asked in world.asked("/open/forged")] == [None]
    assert (await world.ask("/other/own", ("X-Subject", "own"))).status == 200
    assert world.other.requests[-1].header("X-Subject") == "own"


@pytest.mark.parametrize("path", ["/KEYS/news/a", "/Keys/news/a", "/%4bEYS/news/a", "/open/../KEYS/news/a", "/TOKEN"])
async def test_path_that_a_case_insensitive_upstream_reads_as_a_guarded_one_is_rejected(world: World, path: str) -> None:
    reply = await world.ask(path)
    assert reply.status == 400
    assert "in the letter case of the route" in reply.problem or "another route" in reply.problem
    assert world.asked(path) == []
    assert (await world.ask("/OPEN/a")).status == 200


async def test_token_without_grants_allows_nothing_unless_the_route_requires_none(world: World) -> None:
    text = hs_token(events=None)
    reply = await world.ask("/token/x", bearer(text))
    assert (reply.status, reply.problem) == (403, "the token needs a claim 'events' that lists its grants")
    assert 'error="insufficient_scope"' in (reply.head.value("WWW-Authenticate") or "")
    assert (await world.ask("/any/x", bearer(text))).status == 200
    broken = await world.ask("/token/x", bearer(hs_token(events={"read": ["/a/../b"]})))
    assert broken.status == 403
    assert "read, entry 1 is not a valid path" in broken.problem


async def test_grants_limit_reading_and_publishing(world: World) -> None:
    text = bearer(hs_token(events={"read": ["/token/a/*"], "publish": ["/token/b"]}))
    assert [
        (await world.ask(target, text, method=method)).status
        for method, target in (
            ("GET", "/token/a/x"),
            ("HEAD", "/token/a/x"),
            ("POST", "/token/a/x"),
            ("GET", "/token/b"),
            ("POST", "/token/b"),
        )
    ] == [200, 200, 403, 403, 200]
    assert (await world.ask("/token/a/x/y", text)).problem == "the credential does not grant the right to read this"


async def test_grants_of_api_keys_cover_topics(world: World) -> None:
    key = ("X-API-Key", NEWS_KEY)
    assert (await world.ask("/topics/secret/events", key)).status == 403
    assert (await world.ask("/events?topic=news.a&topic=secret", key)).status == 403
    assert (await world.ask("/topics/news.today", key, method="DELETE")).status == 403
    assert (await world.ask("/topics/news.other/events", key, method="POST", body=b"x")).status == 403
    assert world.asked("/topics/") == world.asked("/events") == []
    assert (await world.ask("/topics/news.a/events", key, method="HEAD")).status == 200
    assert [asked.target for asked in world.asked("/topics/")] == ["/topics/news.a/events"]


@pytest.mark.parametrize(
    "path",
    [
        "/open/../token/x",
        "/open/%2e%2e/token/x",
        "/open/..%2ftoken/x",
        "/open/%252e%252e/token/x",
        "/open/..;/token/x",
        "/open\\..\\token",
        "//token/x",
        "/open/..//token/x",
        "/%74oken/x",
        "/%2574oken/x",
        "/;%5ctoken;x/x",
        "/open;\\..\\token/x",
        "/token;a=b/x",
        "/./token/x",
        "/%2ftoken/x",
    ],
)
async def test_spelling_that_an_upstream_may_read_as_a_guarded_path_is_rejected(world: World, path: str) -> None:
    before = len(world.upstream.requests)
    reply = await world.ask(path)
    assert reply.status == 400
    assert len(world.upstream.requests) == before


@pytest.mark.parametrize("path", ["/open/a%2Fb", "/open/caf%C3%A9", "/open;a=b/x", "/open//x", "/opentoken/%41"])
async def test_odd_paths_pass_if_they_lead_to_no_guarded_route(world: World, path: str) -> None:
    assert (await world.ask(path)).status == 200
    assert world.upstream.requests[-1].target == path


async def test_token_needs_the_issuer_and_the_audience_of_the_route(world: World) -> None:
    good = {"iss": ISSUER, "aud": AUDIENCE}
    assert (await world.ask("/pem", bearer(token("RS256", **good)))).status == 200
    assert (await world.ask("/pem", bearer(jwt.encode(claims(**good), private_key("RS256"), "PS256")))).status == 200
    assert (await world.ask("/pem", bearer(token("RS256", **good | {"iss": "https://x"})))).problem == "the token is from another issuer"
    assert (await world.ask("/pem", bearer(token("RS256", **good | {"aud": ["x"]})))).problem == "the token is for another audience"
    assert (await world.ask("/pem", bearer(hs_token(**good)))).status == 401


async def test_gateway_follows_rotated_keys_without_a_restart(world: World) -> None:
    url = world.issuer.key_url("rotated")
    first, second = (bearer(token("ES256", name, kid=name)) for name in ("first", "second"))
    assert (await world.ask("/jwks/rotated", first)).status == 200
    assert (await world.ask("/jwks/rotated", second)).problem == "the token is signed with an unknown key"
    url.publish("first", "second")
    while (await world.ask("/jwks/rotated", second)).status == 401:
        pass  # until REFETCH_SECONDS have passed
    assert (await world.ask("/jwks/rotated", first)).status == 200


async def test_keys_stay_valid_while_their_url_is_down(world: World) -> None:
    url = world.issuer.key_url("down")
    good = bearer(token("ES256", "first", kid="first"))
    assert (await world.ask("/jwks/down", good)).status == 200
    url.status = 503
    asked = url.asked
    while url.asked == asked:
        assert (await world.ask("/jwks/down", good)).status == 200
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(world.gateway.metric, "gateway_key_set_fetches_total", url=url.url, result="failed"):
            await asyncio.sleep(0.02)
    assert await asyncio.to_thread(world.gateway.metric, "gateway_key_set_keys", url=url.url) == 1


async def test_client_gets_503_while_there_are_no_keys(world: World) -> None:
    reply = await world.ask("/jwks/never", bearer(token("ES256", "first", kid="first")))
    assert reply.status == 503
    assert 1 <= int(reply.head.value("Retry-After") or 0) <= 10, "until the next fetch is allowed"
    assert reply.head.value("WWW-Authenticate") is None


async def test_slow_key_url_does_not_delay_clients_for_long(world: World) -> None:
    first = bearer(token("ES256", "first", kid="first"))
    async with asyncio.timeout(GUARD_SECONDS):
        while (await world.ask("/jwks/slow", first)).status != 200:  # the first fetch may have timed out on a busy machine
            await asyncio.sleep(0.05)
    world.issuer.key_url("slow").speaking.clear()
    assert (await world.ask("/jwks/slow", bearer(token("ES256", "unknown", kid="unknown")))).status == 401
    world.issuer.key_url("slow").speaking.set()
    assert (await world.ask("/jwks/slow", first)).status == 200


async def test_tokens_of_a_key_set_cannot_choose_their_algorithm(world: World) -> None:
    for text in (unsigned_token(), hs_token(), token("ES384", "first", kid="first"), token("RS256", "first", kid="first")):
        assert (await world.ask("/jwks/plain", bearer(text))).status == 401
    assert (await world.ask("/jwks/plain", bearer(token("ES256", "first")))).status == 200  # only one key fits


async def test_rejections_are_counted_by_reason(world: World) -> None:
    def rejected(reason: str, status: str) -> float:
        return world.gateway.metric("gateway_rejected_total", reason=reason, status=status)

    cases = {
        ("unauthenticated", "401"): bearer("x"),
        ("expired", "401"): bearer(hs_token(exp=1)),
        ("forbidden", "403"): bearer(hs_token(events={})),
        ("origin", "403"): ("Cookie", f"session={hs_token(events=EVERYTHING)}"),
    }
    for (reason, status), credential in cases.items():
        before = rejected(reason, status)
        assert str((await world.ask("/token/counted", credential)).status) == status
        assert rejected(reason, status) == before + 1
