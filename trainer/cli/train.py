"""`loracle train`: an adapter from labelled review files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from trainer.cli.common import BUNDLED_NAME, DEVICE, JSON, LIMIT, names, read_data, scoring_progress
from trainer.config import (
    CHECKPOINT,
    RECIPES,
    Schedule,
    TrainConfig,
    check_out,
    run_directory,
    starting_from,
)
from worker.agreement.intervals import score_interval
from worker.errors import AdapterInvalid, TrainingInvalid
from worker.files.languages import clear_language
from worker.files.options import NAMES, file_options, languages_option, read_options
from worker.lifeline import like_ctrl_c
from worker.model.devices import DTYPES
from worker.model.encoding import Cleaning, Encoding, Truncation
from worker.model.manifest import BUNDLED
from worker.model.scaling import UNSCALED

if TYPE_CHECKING:
    from trainer.data import LabelledReviews
    from worker.model.manifest import Manifest

LOOKED_AT = 300
"""Texts from which their language is guessed."""

DEFAULTS: Mapping[str, Any] = {
    field.name: field.default for field in dataclasses.fields(TrainConfig)
} | dataclasses.asdict(Encoding())


def setting(name: str, kind: Any, text: str, *, flag: str | None = None) -> Callable[[Any], Any]:
    """An option that overrides what the recipe says."""
    default = DEFAULTS[name]
    option = flag or f"--{name.replace('_', '-')}"
    if kind is bool:
        option = f"{option}/--no-{option.removeprefix('--')}"
        default = "on" if default else "off"
    shown = "none" if default is None else f"{default:g}" if isinstance(default, float) else default
    return click.option(option, name, type=kind, default=None, help=f"{text}  [default: {shown}]")


@click.command()
@click.argument("data", nargs=-1)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New directory of the adapter.")
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default="default",
    show_default=True,
    help="Settings to begin with; the options below override them.",
)
@click.option("--name", help="Name of the adapter.  [default: the directory's]")
@click.option(
    "--test", "test_data", metavar="FILE", help="Labelled reviews to measure the adapter on at the end."
)
@setting("base", str, "Base model: a directory or an id on the hub.")
@click.option(
    "--start-from",
    type=click.Path(path_type=Path),
    metavar="ADAPTER",
    help="Train this adapter on: a directory, or bundled. Base, encoding and LoRA are its own.",
)
@file_options
@setting("rank", click.IntRange(min=1), "Rank of LoRA.")
@setting("alpha", click.IntRange(min=1), "LoRA's scale.")
@setting("lora_dropout", click.FloatRange(0, 1, max_open=True), "Dropout before LoRA's layers.")
@setting("targets", str, "Modules to adapt: all-linear, or names with commas.")
@setting("rslora", bool, "Scale by alpha / sqrt(rank).")
@setting("dora", bool, "Learn magnitudes apart from directions.")
@setting("lora_plus", click.FloatRange(min=1), "How many times as fast B learns as A.")
@setting("base_dropout", bool, "Keep the base's own dropout; slow on a CPU.")
@setting("max_length", click.IntRange(min=8), "Tokens of a review that are read.")
@setting("truncation", click.Choice(get_args(Truncation)), "Which tokens of a longer review.")
@setting("cleaning", click.Choice(get_args(Cleaning)), "What is taken out of texts.")
@setting("epochs", click.IntRange(min=1), "Passes over the data.")
@setting("learning_rate", click.FloatRange(min=0, min_open=True), "Of AdamW.")
@setting("schedule", click.Choice(get_args(Schedule)), "How the learning rate falls.")
@setting("warmup", click.FloatRange(0, 1, max_open=True), "Share of the steps in which it rises first.")
@setting("weight_decay", click.FloatRange(min=0), "Of AdamW.")
@setting("token_budget", click.IntRange(min=8), "Padded tokens of a micro-batch.")
@setting("reviews_per_step", click.IntRange(min=1), "So many reviews a micro-batch instead, in random order.")
@setting("accumulate", click.IntRange(min=1), "Micro-batches of a step.")
@setting("clip", click.FloatRange(min=0, min_open=True), "Largest norm of a gradient.")
@setting("label_smoothing", click.FloatRange(0, 1, max_open=True), "Share of a label given to all.")
@setting("class_weights", bool, "Weigh rare labels up.")
@setting("validation", click.FloatRange(0, 0.9, min_open=True), "Share kept aside to choose the best epoch.")
@setting("patience", click.IntRange(min=1), "Epochs without a better one before it ends early.")
@setting("seed", int, "Of the split, the order and the head.")
@setting("deterministic", bool, "Reproducible kernels only; slower on a GPU.")
@DEVICE
@setting("dtype", click.Choice(["auto", *DTYPES]), "Number format of the products.")
@LIMIT
@click.option("--license", "license_id", help="For the model card, such as apache-2.0.")
@click.option("--labelled-by", metavar="WHO", help="Who gave the labels, for the model card.")
@languages_option("Of the texts, for the manifest.  [default: what they are in, if that is clear]")
@click.option("--restart", is_flag=True, help="Begin anew where an interrupted run left a checkpoint.")
@JSON
def train(
    data: tuple[str, ...],
    out: Path,
    recipe: str,
    name: str | None,
    test_data: str | None,
    limit: int | None,
    license_id: str | None,
    labelled_by: str | None,
    start_from: Path | None,
    languages: tuple[str, ...] | None,
    restart: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a LoRA adapter on labelled review files, or on a dataset of the Hugging Face hub by its name.

    The epoch with the best validation accuracy is kept. An interrupted run leaves the best adapter so far. The same
    command continues it exactly. Its checkpoint, metrics.jsonl and TensorBoard events are in OUT.run.

    Exact duplicates are left out, and so are texts that have two labels. A review that is nearly the same as a
    validation review isn't used for training. With --test the command says which test reviews are in the training
    data.

    \b
    Example:
      loracle train reviews.csv --out my-adapter --epochs 2
    """
    # Imported here: --help needs no torch.
    from trainer.plots import CURVES, NO_MATPLOTLIB, plots_available
    from worker.model.manifest import Manifest

    given = {key: settings[key] for key in settings if key not in NAMES and settings[key] is not None}
    config = _config(out, name, recipe, start_from, given)
    check_out(out)
    wanted = data or tuple(filter(None, [RECIPES[recipe].data]))
    if not wanted:
        raise TrainingInvalid(
            "no data to train on: name one or more labelled files, or a dataset of the hub."
        )
    read = read_options({name: settings[name] for name in NAMES})
    labels = () if config.start_from is None else Manifest.read(config.start_from).labels
    reviews, found = read_data(wanted, read, labels=labels, limit=limit)
    _count(reviews)
    # Read before the training: a wrong name should not be told only hours later.
    test = None
    if test_data is not None:
        test, _ = read_data([test_data], read, split="test", labels=reviews.labels)
        _count(test, "test ")
    about: dict[str, Any] = {
        "recipe": recipe,
        "data": [
            {"name": each.name if each.revision else Path(each.name).name, "revision": each.revision}
            for each in found
        ],
        **({"license": license_id} if license_id else {}),
        **({"labelled_by": labelled_by} if labelled_by else {}),
    }
    if languages is None:
        languages = guessed_languages(reviews)
    if test is not None:
        about["test_leaks"] = _leaks(reviews, test)
    # Said before the training: afterwards it can't be mended.
    if not plots_available():
        click.echo(f"{CURVES} will be left out: {NO_MATPLOTLIB}", err=True)
    try:
        with like_ctrl_c():
            _run(config, reviews, about, restart, languages)
    except KeyboardInterrupt:
        click.echo(_interrupted(out), err=True)
        raise SystemExit(130) from None
    try:
        if test is not None:
            _test(out, test, config.device)
    except KeyboardInterrupt:
        again = f"loracle evaluate {out} {test_data} --record test"
        click.echo(f"Interrupted. The adapter in {out} is whole; measure it with `{again}`.", err=True)
        raise SystemExit(130) from None
    manifest = Manifest.read(out)
    if as_json:
        click.echo(
            json.dumps({"adapter": str(out), "sha256": manifest.sha256, "metrics": dict(manifest.metrics)})
        )
        return
    metrics = manifest.metrics
    accuracy, seen = metrics["validation_accuracy"], metrics["validation_reviews"]
    low, high = score_interval(accuracy, seen)
    click.echo(
        f"adapter '{manifest.name}' is in {out}: {accuracy:.2%} (95 %: {low:.2%} to {high:.2%}) on {seen:,} "
        f"validation reviews, epoch {metrics['epoch']}"
        + (f"; {metrics['test']['accuracy']:.2%} on {metrics['test']['n']:,} test reviews" if test else "")
    )
    if manifest.scaling == UNSCALED:
        click.echo(
            f"its scores aren't scaled: {seen:,} validation reviews, or the few wrong ones among them, don't tell "
            "how sure is too sure. So a score of 0.9 needn't be right nine times in ten, and a cascade's --below "
            f"means little. With more labelled reviews: `loracle evaluate {out} MORE --fit-temperature`.",
            err=True,
        )
    click.echo(f"its model card is {out / 'README.md'}; the run's metrics are in {run_directory(out)}")


def _config(
    out: Path, name: str | None, recipe: str, start_from: Path | None, given: Mapping[str, Any]
) -> TrainConfig:
    chosen = {**RECIPES[recipe].settings, **given}
    parts = {field.name for field in dataclasses.fields(Encoding)}
    if start_from is not None:
        begun = starting_from(BUNDLED if str(start_from) == BUNDLED_NAME else start_from)
        own = [f"--{key.replace('_', '-')}" for key in given if key in {*begun, *parts}]
        if own:
            raise TrainingInvalid(f"{', '.join(own)}: that is the adapter's own with --start-from.")
        chosen |= begun
    encoding = dataclasses.replace(
        chosen.pop("encoding", Encoding()), **{key: chosen.pop(key) for key in parts & set(chosen)}
    )
    targets = chosen.get("targets", "all-linear")
    if isinstance(targets, str) and targets != "all-linear":
        chosen["targets"] = tuple(names(targets, "--targets"))
    return TrainConfig(out=out, name=name or out.absolute().name, encoding=encoding, **chosen)


def _count(reviews: LabelledReviews, what: str = "") -> None:
    click.echo(f"{len(reviews.texts):,} {what}reviews with labels {', '.join(reviews.labels)}", err=True)


def _leaks(reviews: LabelledReviews, test: LabelledReviews) -> dict[str, int]:
    from trainer.leakage import find_leaks

    leaks = find_leaks(reviews.texts, test.texts)
    click.echo(leaks.sentence(), err=True)
    return {"exact": len(leaks.exact), "near": len(leaks.near)}


def guessed_languages(reviews: LabelledReviews) -> tuple[str, ...]:
    """The language that the texts are clearly in, none where they aren't."""
    step = max(1, len(reviews.texts) // LOOKED_AT)
    try:
        found = clear_language(reviews.texts[::step][:LOOKED_AT])
    except ImportError as error:
        click.echo(f"The texts' language isn't looked for ({error}): say it with --languages.", err=True)
        return ()
    if found is None:
        click.echo(
            "The texts aren't clearly in one language: the manifest names none, and files aren't checked for others. "
            "--languages says which.",
            err=True,
        )
        return ()
    click.echo(f"languages: {found} (guessed from the texts; --languages says others)", err=True)
    return (found,)


def _run(
    config: TrainConfig,
    reviews: LabelledReviews,
    about: Mapping[str, Any],
    restart: bool,
    languages: tuple[str, ...],
) -> None:
    from trainer.record import Display
    from trainer.train import train as run

    with Display(epochs=config.epochs, anew=config.start_from is None) as display:
        run(
            config,
            reviews.texts,
            reviews.gold,
            reviews.labels,
            about=about,
            report=display,
            restart=restart,
            languages=languages,
        )


def _test(out: Path, test: LabelledReviews, device: str) -> None:
    from trainer.evaluation import evaluate_file
    from trainer.pages import record, write_evaluation

    with scoring_progress(len(test.texts)) as scored:
        measured, _ = evaluate_file(out, test, device=device, scored=scored)
    write_evaluation(out, "test", measured)
    record(out, metrics={"test": measured.summary()})


def _interrupted(out: Path) -> str:
    from trainer.train import finish

    try:
        manifest: Manifest = finish(out)
    except AdapterInvalid:
        saved = (run_directory(out) / CHECKPOINT).is_file()
        way = "goes on" if saved else "begins anew: a run is first saved after a minute"
        return f"Interrupted before the first epoch was done: no adapter yet. The same command {way}."
    metrics = manifest.metrics
    return (
        f"Interrupted. {out} holds the best adapter so far ({metrics['validation_accuracy']:.2%} on validation, "
        f"epoch {metrics['epoch']}). The same command goes on."
    )
