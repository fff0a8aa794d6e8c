"""HTTP/1.1 that stays HTTP/1.1, whatever other protocol a request offers (RFC 9110 7.8)."""

from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_BODY_FIELDS = (b"content-length", b"transfer-encoding")


class UpgradeIgnoringProtocol(HttpToolsProtocol):
    """Read requests with `Upgrade` like all others: Java's HttpClient and `curl --http2` offer h2c with their first request.

    httptools ends such a request after its head and takes the body for the next one. So it is fed another head there, with the same
    length and without `Upgrade`, whose body goes to the request.
    """

    reads_own_head = False
    """Whether the parser is reading that other head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def on_headers_complete(self) -> None:
        if not self.reads_own_head:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()


class _Parser(httptools.HttpRequestParser):
    def __init__(self, protocol: UpgradeIgnoringProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._feed_own_head()
                data = data[upgrade.args[0] :]
            else:
                return

    def _feed_own_head(self) -> None:
        fields = [b"%s: %s\r\n" % (name, value) for name, value in self._protocol.headers if name in _BODY_FIELDS]
        self._protocol.reads_own_head = True
        try:
            super().feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(fields))
        finally:
            self._protocol.reads_own_head = False
