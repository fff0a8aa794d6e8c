"""A disk under SQLite that can show, before each change of a file and in the middle of it, what a crash would leave then.

It is a VFS that passes everything to the default one, registered through ctypes with the library that Python's sqlite3 uses.
"""

import _sqlite3
import ctypes
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path

_SECTOR = 512

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))  # SQLite keeps a pointer to the path
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Methods(Structure):
    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", _Write),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("others", c_void_p * 13),
    )


class _Vfs(Structure):
    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _Open),
        ("delete", _Delete),
        ("others", c_void_p * 14),
    )


@dataclass(slots=True)
class _File:
    durable: bytes
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """The changes since the last sync: the offset and the written bytes, or None if the file was truncated there."""

    def content(self, keep: Callable[[], bool] | None = None) -> bytes:
        """Return the content of the file or, with `keep`, of the disk: each unsynced sector only if `keep` returns True."""
        content = bytearray(self.durable)
        for offset, data in self.changes:
            if data is None:
                if keep is None or keep():
                    del content[offset:]
                continue
            for begin in range(0, len(data), _SECTOR):
                if keep is None or keep():
                    end = offset + begin + len(data[begin : begin + _SECTOR])
                    content.extend(bytes(max(0, end - len(content))))
                    content[offset + begin : end] = data[begin : begin + _SECTOR]
        return bytes(content)


class Disk:
    """The changes of SQLite, and of `os.fsync`, to the files of one directory. `watcher` is called before each change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.watcher: Callable[[str], None] = lambda change: None
        self._files: dict[str, _File] = {}
        self._names: dict[int, str] = {}  # by the address of SQLite's file object

    def image(self, target: Path, *, keep: Callable[[], bool] | None = None) -> None:
        """Write what a crash of the process would leave now or, with `keep`, a power cut."""
        target.mkdir()
        for name, file in self._files.items():
            (target / name).write_bytes(file.content(keep))

    def open(self, address: int, path: bytes | None) -> None:
        if path is None or Path(os.fsdecode(path)).parent != self.directory or path.endswith(b"-journal"):
            return
        name = Path(os.fsdecode(path)).name
        self._names[address] = name
        if name not in self._files:  # closing any handle of a file releases the process's locks, so only before there are any
            self._files[name] = _File((self.directory / name).read_bytes())

    def delete(self, path: bytes) -> None:
        name = Path(os.fsdecode(path)).name
        if name in self._files:
            self.watcher(f"delete {name}")
            del self._files[name]

    def write(self, address: int, data: bytes, offset: int) -> None:
        if (file := self._file(address)) is None:
            return
        self.watcher(f"write {self._names[address]}")
        file.changes.append((offset, data[: len(data) // 2]))
        self.watcher(f"half written {self._names[address]}")
        file.changes[-1] = (offset, data)

    def truncate(self, address: int, size: int) -> None:
        if (file := self._file(address)) is not None:
            self.watcher(f"truncate {self._names[address]}")
            file.changes.append((size, None))

    def sync(self, address: int) -> None:
        if (file := self._file(address)) is not None:
            self.watcher(f"sync {self._names[address]}")
            self._synced(file)

    def fsync(self, handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.parent == self.directory and path.name in self._files:
            self.watcher(f"fsync {path.name}")
            self._synced(self._files[path.name])

    def _file(self, address: int) -> _File | None:
        return self._files.get(self._names.get(address, ""))

    def _synced(self, file: _File) -> None:
        file.durable = file.content()
        file.changes.clear()


@contextmanager
def disk(directory: Path) -> Iterator[Disk]:
    """Put a Disk under all files that SQLite opens in `directory` from now on, until they are closed and the context ends."""
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    usual = library.sqlite3_vfs_find(None)
    watched = Disk(directory)
    methods: dict[int, tuple[_Methods, _Methods]] = {}

    def methods_of(file: int) -> _Methods:
        return methods[ctypes.cast(file, POINTER(c_void_p))[0] or 0][0]

    def open_file(_vfs: int, path: int | None, file: int, flags: int, out: "ctypes._Pointer[c_int]") -> int:
        status: int = usual.contents.open(ctypes.addressof(usual.contents), path, file, flags, out)
        table = ctypes.cast(file, POINTER(c_void_p))
        if status == 0 and table[0]:
            watched.open(file, None if path is None else ctypes.string_at(path))
            original = _Methods.from_address(table[0])
            version = _Methods.from_buffer_copy(original)
            version.write, version.truncate, version.sync = write, truncate, sync
            methods[ctypes.addressof(version)] = (original, version)
            table[0] = ctypes.addressof(version)
        return status

    @_Write
    def write(file: int, data: int, size: int, offset: int) -> int:
        watched.write(file, ctypes.string_at(data, size), offset)
        return int(methods_of(file).write(file, data, size, offset))

    @_Truncate
    def truncate(file: int, size: int) -> int:
        watched.truncate(file, size)
        return int(methods_of(file).truncate(file, size))

    @_Sync
    def sync(file: int, flags: int) -> int:
        watched.sync(file)
        return int(methods_of(file).sync(file, flags))

    @_Delete
    def delete(_vfs: int, path: int, sync_directory: int) -> int:
        watched.delete(ctypes.string_at(path))
        return int(usual.contents.delete(ctypes.addressof(usual.contents), path, sync_directory))

    vfs = _Vfs.from_buffer_copy(usual.contents)
    vfs.name = b"watched"
    vfs.open, vfs.delete = _Open(open_file), delete
    real_fsync = os.fsync

    def fsync(handle: int) -> None:
        watched.fsync(handle)
        real_fsync(handle)

    library.sqlite3_vfs_register(ctypes.byref(vfs), 1)
    os.fsync = fsync
    try:
        yield watched
    finally:
        os.fsync = real_fsync
        library.sqlite3_vfs_unregister(ctypes.byref(vfs))


def lottery(seed: int, share: float) -> Callable[[], bool]:
    """Return a function that returns True in about `share` of the calls, the same ones for the same seed."""
    drawn = random.Random(seed)
    return lambda: drawn.random() < share
