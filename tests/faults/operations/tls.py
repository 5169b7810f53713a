"""TLS before a Valkey that has none: a proxy that ends it, and certificates made just now."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests import services

CHUNK = 65_536


class Certificate:
    """A key and a certificate for localhost, signed by itself: whoever trusts it takes it for a CA.

    Raises:
        ServiceUnavailableError: there is no `openssl` here.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            raise services.ServiceUnavailableError("there is no command openssl, which makes certificates")
        self.key, self.path = folder / f"{name}.key", folder / f"{name}.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", self.key, "-out", self.path, "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip


class TlsProxy:
    """Ends TLS on a port of this machine and passes on what it hears to a unix socket, for the time of a `with`.

    `heard`: all that clients said to it; `refused`: how many broke the handshake off.
    """

    def __init__(self, certificate: Certificate, target: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.path, certificate.key)
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = bytearray()
        self.refused = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> TlsProxy:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for one in left:
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with raw, socket.socket(socket.AF_UNIX) as server:
            try:
                client = self._context.wrap_socket(raw, server_side=True)
                server.connect(str(self._target))
            except OSError:
                self.refused += 1
                return
            with client, self._remembered(client, server):
                back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                back.start()
                _pass_on(client, server, self.heard)
                back.join()

    @contextlib.contextmanager
    def _remembered(self, *sockets: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.update(sockets)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(sockets)


def _pass_on(source: socket.socket, target: socket.socket, heard: bytearray | None = None) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            if heard is not None:
                heard += chunk
            target.sendall(chunk)
    _end(source)
    _end(target)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
