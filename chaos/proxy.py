"""A TCP relay in front of Redis that can hold every answer back."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

PIECE_BYTES = 1 << 16


class SlowRelay:
    """Listens on `port` and passes bytes on to `target` port; each piece that comes back waits `delay_s`."""

    def __init__(self, target: int) -> None:
        self._target, self.delay_s = target, 0.0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections; those that are open end with the process."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                try:
                    upstream = socket.create_connection(("127.0.0.1", self._target), 1)
                except OSError:
                    client.close()
                    continue
                upstream.settimeout(None)
                threading.Thread(target=self._pass, args=(client, upstream, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(upstream, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, held: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                if held and self.delay_s:
                    time.sleep(self.delay_s)
                sink.sendall(piece)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
