"""Attacks by the head of a request: each is refused, or does not what the attacker hopes for."""

from tests.auth.signing import EVERYTHING, hs_token
from tests.soak.siege.attack import Attack, Attacker, status
from tests.soak.siege.llm import LLM_BODY, llm_key

_SLASHES = "/" * 4000
_KEYS_AHEAD = 20


def _host(attacker: Attacker) -> bytes:
    return b"Host: 127.0.0.1:%d\r\n" % attacker.port


async def _slashes(attacker: Attacker) -> str:
    return await attacker.ask("/evil/shared/none" + attacker.chance.choice((_SLASHES, "?" + _SLASHES, "?a=%2F" + _SLASHES)))


async def _last_event_id(attacker: Attacker) -> str:
    id = attacker.chance.choice(('\\"' * 4000, "-" * 8000, "/" * 8000, "0" * 8000))
    return await attacker.ask("/evil/shared/endless", headers=[("Last-Event-ID", id)])


async def _trace(attacker: Attacker) -> str:
    return await attacker.ask("/evil/direct/ok", "TRACE", [("Cookie", "session=1")])


async def _two_hosts(attacker: Attacker) -> str:
    return await attacker.send(b"GET /topics/trees.oak/events HTTP/1.1\r\n" + _host(attacker) + b"Host: admin\r\n\r\n")


async def _smuggle(attacker: Attacker) -> str:
    lengths = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /closed/data HTTP/1.1\r\n"
    return await attacker.send(b"POST /evil/direct/ok HTTP/1.1\r\n" + _host(attacker) + lengths + _host(attacker) + b"\r\n")


async def _vertical_tab(attacker: Attacker) -> str:
    return await attacker.ask("/evil/direct/vertical-tab")


async def _star_origin(attacker: Attacker) -> str:
    async with attacker.connect() as client:
        await client.ask("/evil/shared/endless", headers=[("Origin", "*")])
        head = (await client.answer()).head
        return f"{head.status} for {head.value('Access-Control-Allow-Origin') or 'no page'}"


async def _forge_subject(attacker: Attacker) -> str:
    """Ask in the name of an administrator, and return who the upstream took it for."""
    token = ("Authorization", f"Bearer {hs_token(sub='mallory', events=EVERYTHING)}")
    target, *headers = attacker.chance.choice(
        (
            ("/closed/subject", token, ("Connection", "X-User"), ("X-User", "admin")),
            ("/closed/subject", token, ("X_User", "admin")),
            ("/evil/direct/subject", ("X-User", "admin")),
        )
    )
    async with attacker.connect() as client:
        await client.ask(target, headers=headers)
        answer = await client.answer()
        body = await answer.to_end()
        return body.decode() if answer.head.status == 200 else str(answer.head.status)


async def _fold_case(attacker: Attacker) -> str:
    return await attacker.ask(attacker.chance.choice(("/CLOSED/ok", "/Closed/ok", "/%63LOSED/ok", "/closed/ok", "/x/../CLOSED/ok")))


async def _forge_token(attacker: Attacker) -> str:
    text = attacker.chance.choice((hs_token("x" * 40), "e30.e30.", "." * 8000, "{" * 8000, "A" * 8000 + ".e30.x"))
    return await attacker.ask("/closed/ok", headers=[("Authorization", f"Bearer {text}")])


async def _follow_redirect(attacker: Attacker) -> str:
    return await attacker.ask("/evil/shared/redirect")


async def _delete(attacker: Attacker) -> str:
    return await attacker.ask(attacker.chance.choice(("/evil/shared/endless", "/evil/shared/")), "DELETE")


async def _take_keys(attacker: Attacker) -> str:
    """Repeat a key that an ordinary client has had, or take one that it will have; return whose the answer is."""
    client, number = attacker.chance.randrange(4), attacker.rounds // 8 + attacker.chance.randrange(-_KEYS_AHEAD, _KEYS_AHEAD)
    headers = [("Idempotency-Key", llm_key(client, number)), *attacker.chance.choice(((), (("X-Api-Key", "mallory"),)))]
    body = attacker.chance.choice((LLM_BODY, b"{}"))
    async with attacker.connect() as stranger:
        await stranger.ask("/llm", "POST", headers, body)
        answer = await stranger.answer()
        text = await answer.to_end()
        return "the owner's" if b"alice" in text else str(answer.head.status)


async def _guess_stream(attacker: Attacker) -> str:
    id = f"{attacker.chance.getrandbits(128):032x}"
    async with attacker.connect() as client:
        await client.ask(f"/streams/{id}", attacker.chance.choice(("GET", "HEAD", "DELETE")))
        return await status(client, "HEAD")


HEADS = (
    Attack(3, "thousands of slashes in path and query of a shared stream that fails", _slashes, frozenset(("404", "400")), 5),
    Attack(3, "last event IDs of 8 KB", _last_event_id, frozenset(("200", "400")), 5),
    Attack(14, "TRACE", _trace, frozenset(("405",)), 5),
    Attack(14, "two Host fields", _two_hosts, frozenset(("400",)), 5),
    Attack(0, "smuggling by two lengths", _smuggle, frozenset(("400",)), 5),
    Attack(14, "a vertical tab in a field of the upstream", _vertical_tab, frozenset(("502",)), 5),
    Attack(10, "Origin: *", _star_origin, frozenset(("200 for no page",)), 5),
    Attack(11, "forged subjects", _forge_subject, frozenset(("mallory", "anonymous", "400")), 5),
    Attack(12, "a guarded path in other case", _fold_case, frozenset(("401", "400")), 5),
    Attack(0, "forged tokens", _forge_token, frozenset(("401",)), 5),
    Attack(8, "an open redirect to the admin port", _follow_redirect, frozenset(("302",)), 5),
    Attack(14, "DELETE that is answered 302", _delete, frozenset(("302",)), 2),
    Attack(1, "an ordinary client's Idempotency-Key, repeated or taken before it", _take_keys, frozenset(("200", "422")), 4),
    Attack(1, "guessed IDs of kept streams", _guess_stream, frozenset(("404", "405")), 5),
)
