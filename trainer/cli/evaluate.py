"""`loracle evaluate`: how good an adapter is on labelled review files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from trainer.cli.common import BUNDLED_NAME, DEVICE, JSON, LIMIT, read_data, scoring_progress
from worker.errors import TrainingInvalid
from worker.files.languages import look_at
from worker.files.options import file_options, read_options
from worker.reviews import BACKENDS, DTYPES, Backend


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("data", metavar="FILE...", nargs=-1, required=True)
@file_options
@click.option(
    "--out",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write metrics.json, evaluation.md and reliability.png there.",
)
@click.option("--record", "record_as", metavar="NAME", help="Write the metrics into the adapter under NAME.")
@click.option(
    "--fit-temperature",
    is_flag=True,
    help="Fit temperature and exponent on these reviews, write them.",
)
@click.option(
    "--errors", type=click.IntRange(min=0), default=5, show_default=True, help="First errors to show."
)
@click.option("--base", help="Another place of the adapter's base model, such as a directory.")
@click.option("--token-budget", type=click.IntRange(min=1), help="Tokens of a micro-batch.")
@DEVICE
@click.option("--dtype", envvar="LORACLE_DTYPE", type=click.Choice(DTYPES), default="auto", show_default=True)
@click.option(
    "--backend",
    envvar="LORACLE_BACKEND",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What computes the model: auto is openvino on a CPU where it can be had, else torch.",
)
@LIMIT
@JSON
def evaluate(
    adapter: Path,
    data: tuple[str, ...],
    out: Path | None,
    record_as: str | None,
    fit_temperature: bool,
    errors: int,
    base: str | None,
    token_budget: int | None,
    device: str,
    dtype: str,
    backend: Backend,
    limit: int | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Measure an adapter on labelled review files, through the scorer that the worker runs.

    ADAPTER is a directory, or `bundled` for the one that comes with Loracle. The page shows the first errors with
    their texts. --record and --fit-temperature change the manifest, so afterwards it is another adapter. Jobs that
    were scored before keep the old one.

    \b
    Example:
      loracle evaluate my-adapter reviews.csv
    """
    from worker.model.manifest import BUNDLED, MANIFEST, Manifest

    if str(adapter) == BUNDLED_NAME:
        if record_as or fit_temperature:
            raise TrainingInvalid(
                "the bundled adapter is part of the package. Copy its directory to record something in it: "
                f"{BUNDLED}"
            )
        adapter = BUNDLED
    manifest = Manifest.read(adapter)
    reviews, _ = read_data(data, read_options(values), split="test", labels=manifest.labels, limit=limit)
    try:
        found_languages = look_at(reviews.texts, manifest.languages)
    except ImportError as error:
        click.echo(f"The texts' language isn't looked at: {error}.", err=True)
    else:
        if found_languages is not None and found_languages.notable:
            click.echo(f"{found_languages}: its labels of these are guesses", err=True)
    # Only now, since torch takes seconds: a wrong name is told at once.
    from trainer import evaluation
    from trainer.pages import record, text_page, write_evaluation, write_model_card
    from trainer.plots import NO_MATPLOTLIB, RELIABILITY, plots_available

    with scoring_progress(len(reviews.texts)) as scored:
        measured, scores = evaluation.evaluate_file(
            adapter,
            reviews,
            device=device,
            dtype=dtype,
            backend=backend,
            token_budget=token_budget,
            base_model=base,
            errors=errors,
            loaded=lambda how: click.echo(f"The adapter is computed in {how}.", err=True),
            scored=scored,
        )
    scaling, unfitted = None, None
    if fit_temperature:
        try:
            scaling = evaluation.fit_scaling(scores, reviews.gold, current=manifest.scaling)
        except TrainingInvalid as error:
            # What was measured is shown and recorded all the same; only then is this an error.
            unfitted = error
        else:
            measured = evaluation.evaluate_logits(
                manifest.labels,
                reviews.gold,
                reviews.texts,
                evaluation.logits_of(scores, manifest.labels, manifest.scaling),
                scaling,
                errors=errors,
                seconds_per_review=measured.seconds_per_review,
            )
    if out is not None:
        write_evaluation(out, record_as or ", ".join(Path(name).name for name in data), measured)
        if not plots_available():
            click.echo(f"{RELIABILITY} is left out: {NO_MATPLOTLIB}", err=True)
        if (out / MANIFEST).is_file():
            write_model_card(out, Manifest.read(out))
    if record_as or scaling is not None:
        record(
            adapter,
            metrics={record_as: measured.summary()} if record_as else None,
            scaling=scaling,
        )
    if as_json:
        click.echo(json.dumps(measured.to_dict(), allow_nan=False))
    else:
        click.echo(text_page(measured))
        if scaling is not None:
            click.echo(f"\ntemperature: {scaling}, was {manifest.scaling}")
    if unfitted is not None:
        raise unfitted
