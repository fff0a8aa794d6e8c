"""The chat of examples/chat/ behind the gateway, with its page built for each major version of the AI SDK."""

import asyncio
import json
import shlex
import shutil
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page

from tests.browser.pages import SHOWN_MS
from tests.doctor.proxies import program
from tests.kit.routed_gateway import Gateway, running
from tests.kit.stack import REPOSITORY, free_ports
from tests.kit.waiting import GUARD_SECONDS

EXAMPLE = REPOSITORY / "examples/chat"
CURES = REPOSITORY / "tests/browser/cures.jsx"
MAJORS: dict[str, dict[str, str]] = {
    "7": {},
    "6": {"ai": "6.0.326", "@ai-sdk/react": "3.0.328"},
    "5": {"ai": "5.0.277", "@ai-sdk/react": "2.0.280"},
}
"""For each major version of `ai`, the packages that the example has in another version."""
_BUILD_SECONDS = 250
_DRAIN_SECONDS = 100
_TEXTS = "[...document.querySelectorAll('li.assistant')].map((message) => message.textContent)"
_STATUS = "document.querySelector('#status')?.textContent"


async def build(major: str, directory: Path) -> Path:
    """Bundle the example's page and `cures.jsx` with the packages of a major version. Return the directory of the bundles."""
    directory.mkdir()
    package = json.loads((EXAMPLE / "package.json").read_text())
    package["dependencies"] |= MAJORS[major]
    (directory / "package.json").write_text(json.dumps(package))
    for page in (EXAMPLE / "page.jsx", CURES):
        shutil.copy(page, directory)
    quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
    await _run(directory, "npm", "install", *quiet)
    bundle = package["scripts"]["build"].replace("page.jsx", "page.jsx cures.jsx").replace("--outfile=page.js", "--outdir=.")
    program, *arguments = shlex.split(bundle)
    await _run(directory, f"node_modules/.bin/{program}", *arguments)
    return directory


async def _run(directory: Path, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_BUILD_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()


class Service:
    """The example's service, and the gateway before it with the example's routes."""

    def __init__(self, port: int, script: Path, gateway: Gateway) -> None:
        self.port = port
        self.gateway = gateway
        self._script = script
        self._bundle = Path()

    def show(self, bundle: Path) -> None:
        """Serve this bundle to pages that load from now on."""
        if bundle != self._bundle:  # another page may read it at this moment
            shutil.copy(bundle, self._script)
            self._bundle = bundle


@asynccontextmanager
async def running_service(directory: Path, seconds_per_word: float) -> AsyncIterator[Service]:
    """Run the service and the gateway."""
    [port] = free_ports(1)
    for name in ("service.py", "page.html"):
        shutil.copy(EXAMPLE / name, directory)
    command = ["env", f"SECONDS_PER_WORD={seconds_per_word}", sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    routes = tomllib.loads((EXAMPLE / "routes.toml").read_text())["routes"]
    async with program(command, directory, port) as url:
        (directory / "gateway").mkdir()
        routes = [route | {"upstream": url} for route in routes]
        async with running(routes, directory / "gateway", drain_seconds=_DRAIN_SECONDS) as gateway:
            yield Service(port, directory / "page.js", gateway)


class Tab:
    """A page of a chat."""

    def __init__(self, page: Page, chat: "Chat") -> None:
        self.page = page
        self._chat = chat
        page.set_default_timeout(SHOWN_MS)

    async def load(self, url: str = "") -> None:
        """Load the address, or reload the page."""
        self._chat.service.show(self._chat.bundle)
        await (self.page.goto(url) if url else self.page.reload())
        await self.page.wait_for_selector("button")

    async def shows_words(self, count: int) -> None:
        """Return when the page shows at least this many words of the answer."""
        await self.page.wait_for_function(f"count => {_TEXTS}.join('').split(' ').length > count", arg=count)

    async def shows_answer(self) -> None:
        """Return when the page shows the answer that the service has saved, and nothing else."""
        text = await self._chat.answer()
        await self.page.wait_for_function(f"length => {_STATUS} !== 'streaming' && {_TEXTS}.join('').length >= length", arg=len(text))
        assert await self.texts() == [text]
        assert await self.page.evaluate(_STATUS) == "ready"

    async def texts(self) -> list[str]:
        """Return the answers that the page shows."""
        texts: list[str] = await self.page.evaluate(_TEXTS)
        return texts

    async def becomes(self, status: str) -> None:
        """Return when the page has this status."""
        await self.page.wait_for_function(f"status => {_STATUS} === status", arg=status)

    async def is_quiet(self) -> None:
        """Return when no answer arrives."""
        await self.page.wait_for_function(f"['ready', 'error'].includes({_STATUS})")

    async def becomes_visible(self) -> None:
        """Say to the page that it became visible, as after the sleep of a phone."""
        await self.page.evaluate("() => { document.dispatchEvent(new Event('visibilitychange')); }")


class Chat:
    """A chat with its tabs."""

    def __init__(self, context: BrowserContext, service: Service, bundle: Path) -> None:
        self.context = context
        self.service = service
        self.bundle = bundle
        self._url = ""

    async def open(self, url: str) -> Tab:
        """Open a new chat."""
        tab = await self._new_tab(url)
        self._url = tab.page.url
        return tab

    async def open_again(self) -> Tab:
        """Open the same chat in another tab."""
        return await self._new_tab(self._url)

    async def _new_tab(self, url: str) -> Tab:
        tab = Tab(await self.context.new_page(), self)
        await tab.load(url)
        return tab

    async def ask(self, tab: Tab, question: str = "Why?") -> None:
        """Send the question, and return when the service has it."""
        await tab.page.fill("input", question)
        await tab.page.click("button")
        await self._saved(1)

    async def answer(self) -> str:
        """Return the text that the service has saved, once it has. Raises AssertionError if the service was asked more than once."""
        messages = await self._saved(2)
        assert [message["role"] for message in messages] == ["user", "assistant"]
        text: str = messages[1]["parts"][0]["text"]
        return text

    async def _saved(self, count: int) -> list[dict[str, Any]]:
        """Return the messages that the service has saved, once they are this many."""
        messages: list[dict[str, Any]] = []
        chat = self._url.partition("#")[0].rpartition("/")[2]
        async with asyncio.timeout(GUARD_SECONDS):
            while len(messages) < count:
                await asyncio.sleep(0.05)
                answer = await self.context.request.get(f"http://localhost:{self.service.port}/chats/{chat}/messages")
                messages = await answer.json()
        return messages
