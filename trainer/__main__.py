"""`python -m trainer`: train, evaluate and compare where no service library is installed."""

from __future__ import annotations

import click

from trainer.cli.compare import compare
from trainer.cli.evaluate import evaluate
from trainer.cli.train import train
from worker.logs import run_command


@click.group()
def main() -> None:
    """Make LoRA adapters for Loracle and measure them."""


main.add_command(train)
main.add_command(evaluate)
main.add_command(compare)

if __name__ == "__main__":
    run_command(main, "python -m trainer")
