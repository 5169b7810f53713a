"""`loracle evaluate`: how good an adapter is on labelled review files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trainer.cli.common import DATA, DEVICE, JSON, LABEL_COLUMN, LIMIT, TEXT_COLUMN


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("data", nargs=-1, required=True, type=DATA)
@TEXT_COLUMN
@LABEL_COLUMN
@click.option("--record", "record_as", metavar="NAME", help="Write the metrics into the adapter under NAME.")
@click.option("--fit-temperature", is_flag=True, help="Fit the temperature on these reviews and write it.")
@click.option("--token-budget", type=click.IntRange(min=1), help="Tokens of a micro-batch.")
@DEVICE
@click.option(
    "--dtype", type=click.Choice(["auto", "bf16", "fp16", "fp32"]), default="auto", show_default=True
)
@LIMIT
@JSON
def evaluate(
    adapter: Path,
    data: tuple[Path, ...],
    text_column: str | None,
    label_column: str | None,
    record_as: str | None,
    fit_temperature: bool,
    token_budget: int | None,
    device: str,
    dtype: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measure an adapter on labelled review files, through the scorer that the worker runs."""
    from trainer.data import read_labelled
    from worker.model.manifest import Manifest

    manifest = Manifest.read(adapter)
    reviews = read_labelled(
        data, labels=manifest.labels, text_column=text_column, label_column=label_column, limit=limit
    )
    for announcement in reviews.announcements:
        click.echo(announcement, err=True)
    # Only now, since torch takes seconds: a wrong name is told at once.
    from trainer import evaluate as evaluation

    measured, scores = evaluation.evaluate_file(
        adapter, reviews, device=device, dtype=dtype, token_budget=token_budget
    )
    result = measured.to_dict()
    if fit_temperature:
        result["temperature"] = evaluation.fit_temperature(scores, reviews.gold, current=manifest.temperature)
    if record_as or fit_temperature:
        kept = {key: result[key] for key in ("n", "accuracy", "interval")}
        evaluation.record(
            adapter, metrics={record_as: kept} if record_as else None, temperature=result.get("temperature")
        )
    if as_json:
        click.echo(json.dumps(result))
        return
    low, high = measured.interval
    click.echo(
        f"accuracy {measured.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}) on {measured.n:,} "
        f"reviews, "
        f"{measured.failed:,} without a label; log loss {measured.log_loss:.3f}; "
        f"{measured.seconds_per_review * 1000:.1f} ms a review"
    )
    for gold, row in measured.confusion.items():
        click.echo(f"gold {gold}: " + ", ".join(f"{count:,} {label}" for label, count in row.items()))
    if fit_temperature:
        click.echo(f"temperature: {result['temperature']:g}, was {manifest.temperature:g}")
