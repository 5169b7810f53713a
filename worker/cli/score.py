"""`loracle score`: a quick look, without a job."""

from __future__ import annotations

import sys
from typing import Any

import click

from worker.bootstrap import adapter_files, load_directory
from worker.cli.common import echo_json, json_option, log_to_stderr
from worker.errors import Invalid
from worker.reviews import Failure, Review
from worker.settings import read_settings


@click.command()
@click.argument("text", nargs=-1)
@click.option(
    "--adapter", metavar="NAME|DIR", help="Adapter to score with (else LORACLE_ADAPTER, else the active)."
)
@json_option
def score(text: tuple[str, ...], adapter: str | None, as_json: bool) -> int:
    """Score each TEXT, or each line of stdin, at once; nothing is stored."""
    settings = read_settings()
    log_to_stderr(settings.log_level)
    texts = list(text) or [line.rstrip("\n") for line in sys.stdin]
    texts = [one for one in texts if one.strip()]
    if not texts:
        raise Invalid('there is no text to score. Try: loracle score "A wonderful little film."')
    scorer = load_directory(adapter_files(settings, adapter), settings)
    failed = 0
    reviews = [Review(row_no=number, text=one) for number, one in enumerate(texts, start=1)]
    for review, outcome in zip(reviews, scorer.score(reviews), strict=True):
        if isinstance(outcome, Failure):
            failed += 1
            shown: dict[str, Any] = {
                "text": review.text,
                "label": None,
                "score": None,
                "error": outcome.reason,
            }
            line = f"failed: {outcome.reason}"
        else:
            shown = {
                "text": review.text,
                "label": outcome.label,
                "score": outcome.score,
                "probabilities": dict(outcome.probabilities or {}),
            }
            line = f"{outcome.label:<10} {outcome.score or 0:.4f}"
        if as_json:
            echo_json(shown)
        else:
            click.echo(f"{line}  {review.text[:80]}")
    return 1 if failed else 0
