"""A small server of figures, from a thread of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, start_http_server

from worker.errors import Invalid


def serve(address: tuple[str, int], registry: CollectorRegistry) -> None:
    """Serves what the registry gives at /metrics of host and port until this process ends; returns at once.

    Raises:
        Invalid: nobody can listen there.
    """
    host, port = address
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise Invalid(
            f"{host}:{port} can't be listened on: {error.strerror}. Choose another address."
        ) from error
