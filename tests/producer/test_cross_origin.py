import pytest
from pydantic import ValidationError

from producer.settings import Settings
from producer.web.origins import parse_origins
from tests.kit.producer import serve

PAGE = "http://127.0.0.1:5500"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("http://a.example", ("http://a.example",)),
        ("http://a.example, https://b.example:8443", ("http://a.example", "https://b.example:8443")),
        ('["http://a.example", "http://[::1]:80"]', ("http://a.example", "http://[::1]:80")),
        ('["*"]', ("*",)),
        ("[]", ()),
    ],
)
def test_origins_are_read_from_a_json_list_or_separated_by_commas(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins
    assert Settings(cors_origins=text).allowed_origins == origins


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "http://a.example/",
        "http://A.example",
        "http://a.example,",
        "http://u@a.example",
        "*,http://a.example",
        "[1]",
        "[",
        "null",
    ],
)
def test_origin_that_no_browser_sends_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=text)


def test_any_origin_with_credentials_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="name the origins"):
        Settings(cors_credentials=True)
    assert Settings(cors_credentials=True, cors_origins=PAGE).credentials_allowed


@pytest.mark.parametrize("path", ["/", "/plain", "/nothing", "/?repeat=0"])
async def test_any_page_may_read_by_default_but_not_with_credentials(path: str) -> None:
    async with serve(Settings(interval_ms=0)) as producer:
        answer = await producer.http.get(path, headers={"Origin": PAGE})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/plain", "/nothing"])
async def test_named_page_may_read_with_credentials_and_no_other_page_may(path: str) -> None:
    async with serve(Settings(interval_ms=0, cors_origins=f"{PAGE},http://other.example")) as producer:
        named = await producer.http.get(path, headers={"Origin": PAGE})
        foreign = await producer.http.get(path, headers={"Origin": "http://foreign.example"})
    assert named.headers["Access-Control-Allow-Origin"] == PAGE
    assert named.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in named.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in foreign.headers


async def test_preflight_of_a_post_that_resumes_is_allowed() -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,last-event-id"}
    async with serve(Settings(cors_origins=PAGE)) as producer:
        answer = await producer.http.options("/sse", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type,last-event-id"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
