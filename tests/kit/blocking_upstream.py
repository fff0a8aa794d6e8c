"""An upstream like many servers: a thread for each connection that does one thing after the other, over plain TCP or TLS.

Unlike `ScriptedUpstream` it can be deaf: it detects only failed writes. Over TLS the end of its answer is sent like nginx's: the last
byte, the close_notify and the FIN at once, without waiting for the client.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RECORD_BYTES = 16 * 1024


class Connection:
    """One connection, which does only what the test calls. Failures are OSErrors."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None if context is None else context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._received = b""
        if self._tls is not None:
            self._until_done(self._tls.do_handshake)

    def _until_done(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(RECORD_BYTES)
                if not data:
                    raise ConnectionResetError("the client left") from None
                self._incoming.write(data)
            except ssl.SSLError:
                self._flush()  # the alert with the reason
                raise
            else:
                self._flush()
                return

    def _flush(self) -> None:
        self.socket.sendall(self._outgoing.read())

    def read(self) -> bytes:
        """Return the bytes that have arrived, empty when the client has ended the connection."""
        if self._tls is None:
            return self.socket.recv(RECORD_BYTES)
        received: list[bytes] = []
        tls = self._tls
        self._until_done(lambda: received.append(tls.read(RECORD_BYTES)))
        return received[0]

    def read_head(self) -> bytes | None:
        """Return the head of the next request, None when no more comes."""
        while b"\r\n\r\n" not in self._received:
            data = self.read()
            if not data:
                return None
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        if self._tls is None:
            self.socket.sendall(data)
        else:
            self._tls.write(data)
            self._flush()

    def end(self, last: bytes = b"") -> None:
        """Send `last` and the end of the connection, over TLS with a close_notify, in one go."""
        if self._tls is None:
            self.socket.sendall(last)
        else:
            if last:
                self._tls.write(last)
            with contextlib.suppress(ssl.SSLWantReadError):  # the client's close_notify
                self._tls.unwrap()
            self._flush()
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class BlockingUpstream:
    """Runs `play` in a thread for each connection, and closes the connection when it returns or fails with OSError."""

    def __init__(self, play: Callable[[Connection], None], context: ssl.SSLContext | None) -> None:
        self._play = play
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def open(self) -> int:
        """Return the number of connections that are being played."""
        return len(self._sockets)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._play(Connection(sock, self._context))
        with self._lock:
            self._sockets.discard(sock)
        sock.close()

    @contextmanager
    def running(self) -> Iterator["BlockingUpstream"]:
        """Serve until the context ends; connections that are still played then are aborted."""
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            self._listener.close()
            with self._lock:
                for sock in self._sockets:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(timeout=30)
