"""JavaScript modules from npm."""

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path

_PACKAGE = "@microsoft/fetch-event-source@2.0.1"
_SHA512 = "W6CLUJ2eBMw3Rec70qrsEW0jOm/3twwJv21mrmj2yORiaVmVYGS4sSS5yUwvQc1ZlDLYGPnClVWmUUMagKNsfA=="


def fetch_event_source(directory: Path) -> dict[str, str]:
    """Return the modules of fetch-event-source by path; `directory` holds the package meanwhile."""
    pack = ["npm", "pack", "--silent", "--pack-destination", str(directory), _PACKAGE]
    subprocess.run(pack, check=True, capture_output=True, timeout=100, cwd=directory)
    [package] = directory.glob("*.tgz")
    assert base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() == _SHA512
    with tarfile.open(package) as members:
        members.extractall(directory, filter="data")
    return {f"/fetch-event-source/{file.name}": file.read_text("utf-8") for file in (directory / "package/lib/esm").glob("*.js")}
