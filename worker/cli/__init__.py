"""The command line: each command is a few lines over jobs and queries, loaded when it is called."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from worker import __version__
from worker.logs import run_command

COMMANDS = {
    "run": ("worker.cli.run:run", "Score a file on this machine, with nothing configured, and sum it up."),
    "enqueue": ("worker.cli.enqueue:enqueue", "Put review files into the queue."),
    "worker": ("worker.cli.worker:worker", "Run the worker pool of this host."),
    "web": ("worker.cli.web:web", "Serve the live page and the HTTP API."),
    "jobs": ("worker.cli.jobs:jobs", "List the jobs."),
    "status": ("worker.cli.status:status", "Show how far a job is, and why nothing moves."),
    "results": ("worker.cli.results:results", "Show or export a job's labels."),
    "agreement": (
        "worker.cli.agreement:agreement",
        "Show how far gold, adapter and oracle agree, now and before.",
    ),
    "stats": ("worker.cli.jobs:stats", "Sum up all jobs, with a table by day."),
    "review": ("worker.cli.review:review", "Give people reviews to judge, and take their corrections."),
    "report": ("worker.cli.results:report", "Write a page about a job: what its labels are worth."),
    "cancel": ("worker.cli.jobs:cancel", "Stop a job; its labels are kept."),
    "retry": ("worker.cli.jobs:retry", "Score again what failed in a job."),
    "delete": ("worker.cli.deletion:delete", "Delete a job, or its texts, for good."),
    "purge": (
        "worker.cli.deletion:purge",
        "Delete all jobs, or their texts, that are older than so many days.",
    ),
    "plan": ("worker.cli.oracle:plan", "Estimate what asking the oracle about a file would cost."),
    "threshold": ("worker.cli.oracle:threshold", "Show what each --below of a cascade would cost and give."),
    "certify": ("worker.cli.certify:certify", "Work out again what a job's guarantee promises."),
    "bulk": ("worker.cli.oracle:bulk", "Submit to and collect from OpenAI's Batch API."),
    "distill": ("worker.cli.distill:distill", "Train an adapter on an oracle's labels, and label with it."),
    "score": ("worker.cli.run:score", "Score a text at once, without a job."),
    "train": ("trainer.cli.train:train", "Train an adapter on labelled reviews."),
    "evaluate": ("trainer.cli.evaluate:evaluate", "Measure an adapter on labelled reviews."),
    "compare": ("worker.cli.compare:compare", "Compare models on labelled reviews, or stored jobs."),
    "adapters": ("worker.cli.adapters:adapters", "List, check and choose the adapters of new jobs."),
    "doctor": ("worker.cli.doctor:doctor", "Check host, servers, database, device and adapter."),
    "db": ("worker.cli.db:db", "Upgrade, check or back up the database, or overwrite its free space."),
    "completion": ("worker.cli.completion:completion", "Let your shell complete commands and options."),
    "health": ("worker.cli.health:health", "Check whether the workers of this host live."),
    "metrics": ("worker.cli.metrics:metrics", "Give figures to Prometheus."),
}


class LazyGroup(click.Group):
    """Imports a command's module only when that command runs, so that `--help` costs no torch and no SQL."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As usual, but the commands that a slip of the keyboard may have meant are named."""
        near = [] if args[0] in COMMANDS else difflib.get_close_matches(args[0], COMMANDS)
        if near:
            ctx.fail(f"No such command '{args[0]}'. Did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """The commands that begin so, without importing them, and the options."""
        found = [
            CompletionItem(name, help=said)
            for name, (_, said) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        # Past Group's own, which imports them all.
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with a line each, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="loracle")
def cli() -> None:
    """Labels the sentiment of review files at scale: a LoRA adapter does the work, an oracle checks it.

    Try `loracle run reviews.csv` first: it needs no server and no configuration. `loracle COMMAND --help` has
    an example.
    """


def main(arguments: list[str] | None = None) -> None:
    """The entry point `loracle`."""
    run_command(cli, "loracle", arguments)
