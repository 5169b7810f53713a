"""`loracle health`: the health check of a container."""

from __future__ import annotations

import click

from worker.pool.health import read_signs
from worker.settings import find_env_files


@click.command()
def health() -> int:
    """Check the workers of this host: exit code 0 if they live, 1 if one hangs or none runs.

    A worker without work is healthy, and so is one that waits for the database or Redis: starting it anew would
    mend nothing. One hangs if it gave no sign of life for two minutes, if a child works on without a lease for five
    (one that hangs loses it after 15 minutes and a second for each review of its batch), or if it takes none of the
    messages that wait for five.

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
