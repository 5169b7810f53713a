"""`loracle health`: the health check of a container."""

from __future__ import annotations

import click

from worker.pool.health import read_signs
from worker.settings import find_env_files


@click.command()
def health() -> int:
    """Check the workers of this host: exit code 0 if they live, 1 if one hangs or none runs.

    A worker without work is healthy. So is a worker that waits for the database or Redis, because a restart would not
    help. A worker hangs if it gave no sign of life for two minutes, or if it took none of the waiting messages for
    five minutes. It also hangs if a child works for five minutes without a lease. (A child that hangs loses its lease
    after 15 minutes, plus a second for each review of its batch.)

    \b
    Example:
      loracle health
    """
    signs = read_signs(find_env_files().home)
    for sign in signs:
        click.echo(sign)
    if not signs:
        click.echo("No worker runs here.")
    return 0 if signs and all(sign.healthy for sign in signs) else 1
