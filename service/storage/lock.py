"""The lock that makes one process the owner of a directory."""

import fcntl
import os
import time
from pathlib import Path

_ATTEMPTS = 5  # a command that asks whether a directory is owned holds the lock for a moment
_PAUSE_SECONDS = 0.1


def lock(path: Path, *, mode: int = 0o600) -> int:
    """Lock a file, created if missing, until the returned handle is closed. Raises BlockingIOError if another process holds it, OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not attempts_left:
                os.close(handle)
                raise
        time.sleep(_PAUSE_SECONDS)
    return handle


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
