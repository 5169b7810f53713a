"""`loracle metrics`: figures for Prometheus."""

from __future__ import annotations

import threading

import click

from worker.cli.common import Address, note, open_all
from worker.metrics.ledger import exposition, registry_of
from worker.metrics.server import serve


@click.command()
@click.option("--listen", type=Address(), help="Serve them at /metrics, such as 9464 or 0.0.0.0:9464.")
def metrics(listen: tuple[str, int] | None) -> None:
    """Print the ledger's figures for Prometheus: jobs, open batches, what stands still, failures, agreement, cost.

    Each request reads them from the database. So they are true after any crash, and many reviews cost no more than
    few. `loracle worker --metrics` serves what the workers of one host count.

    \b
    Example:
      loracle metrics --listen 9464
    """
    settings, store = open_all()
    if listen is None:
        click.echo(exposition(store, settings), nl=False)
        return
    serve(listen, registry_of(store, settings))
    note(f"Figures at http://{listen[0]}:{listen[1]}/metrics until Ctrl-C.")
    threading.Event().wait()
