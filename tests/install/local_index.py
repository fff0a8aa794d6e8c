"""A package index on this machine, with wheels that contain only their metadata."""

import base64
import functools
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

NEWER = "9999.0"
"""A version that was released after every lock."""


def stand_in(directory: Path, name: str, version: str, head: str = "") -> str:
    """Add a wheel without code to the index in `directory` and return its SHA-256; `head` is further metadata."""
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    files = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{head}".encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return _write_wheel(directory / canonicalize_name(name) / f"{stem}-py3-none-any.whl", f"{stem}.dist-info", files)


def requirements_of(distribution: metadata.Distribution) -> str:
    """Return the metadata of an installed distribution that a resolver reads: its requirements, with their extras."""
    fields = distribution.metadata
    names = ("Requires-Dist", "Provides-Extra")
    return "".join(f"{name}: {value}\n" for name in names for value in fields.get_all(name) or ())


def real_uv(directory: Path) -> tuple[str, str]:
    """Add the wheel of the uv that is installed here to the index in `directory`; return its version and SHA-256."""
    uv = metadata.distribution("uv")
    stem = f"uv-{uv.version}"
    files: dict[str, bytes] = {}
    for path in uv.files or ():
        name = path.as_posix()
        if name.startswith("../"):
            name = f"{stem}.data/scripts/{path.name}"
        if not name.endswith((".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")):
            files[name] = path.locate().read_bytes()
    tag, *_ = [line.removeprefix("Tag: ") for line in (uv.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")]
    return uv.version, _write_wheel(directory / "uv" / f"{stem}-{tag}.whl", f"{stem}.dist-info", files)


def _write_wheel(path: Path, dist_info: str, files: Mapping[str, bytes]) -> str:
    record = "".join(f"{name},{_record_hash(content)},{len(content)}\n" for name, content in files.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, content in {**files, f"{dist_info}/RECORD": f"{record}{dist_info}/RECORD,,\n".encode()}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            wheel.writestr(entry, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed.getvalue())
    return hashlib.sha256(packed.getvalue()).hexdigest()


def _record_hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


class _Handler(SimpleHTTPRequestHandler):
    """Serves directories, whose listings are pages of a simple index."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve the index in `directory` on loopback and yield its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def lock_lines(pins: Mapping[str, str]) -> str:
    """Return a lock of requirements and their SHA-256 sums."""
    return "".join(f"{pin} --hash=sha256:{sha256}\n" for pin, sha256 in pins.items())
