"""A way to a unix socket that can swallow everything for a while, as a network does that drops its packets."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType

CHUNK = 65_536


class BlackHole:
    """Passes bytes on both ways between `path` and `target`, but while `closed` is set it holds all of them back."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self._open = threading.Event()
        self._open.set()
        self._over = False
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self.held_back = 0
        """How many bytes waited for the hole to end."""

    def __enter__(self) -> BlackHole:
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._open.set()
        for one in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self.path.unlink()

    def close(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._open.clear()

    def open(self) -> None:
        """What was held back arrives now."""
        self._open.set()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.add(client)
            self._spawn(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        self._open.wait()
        server = socket.socket(socket.AF_UNIX)
        self._sockets.add(server)
        try:
            server.connect(str(self._target))
        except OSError:
            self._end(client, server)
            return
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server)
        back.join()
        self._end(client, server)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                if not self._open.is_set():
                    self.held_back += len(chunk)
                    self._open.wait()
                target.sendall(chunk)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _end(self, *sockets: socket.socket) -> None:
        for one in sockets:
            one.close()
            self._sockets.discard(one)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()
