"""`python -m trainer`: train, evaluate and compare where no service library is installed."""

from __future__ import annotations

import sys

import click

from trainer.cli.compare import compare
from trainer.cli.evaluate import evaluate
from trainer.cli.train import train
from worker.errors import LoracleError


@click.group()
def main() -> None:
    """Make LoRA adapters for Loracle and measure them."""


main.add_command(train)
main.add_command(evaluate)
main.add_command(compare)

if __name__ == "__main__":
    try:
        main(prog_name="python -m trainer", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except LoracleError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
