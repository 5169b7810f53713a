"""`loracle compare`: LoRA against what else there is, on the same reviews."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from trainer.cli.common import DATA, DEVICE, JSON, names, read_data
from worker.errors import Invalid, TrainingInvalid
from worker.files.options import file_options, read_options

QUICK = {"limit": 400, "test_limit": 200, "max_length": 128, "token_budget": 512, "ranks": "8"}
"""What `--quick` sets where nothing else is said: small enough for two CPU cores and minutes."""
USUAL = {"limit": None, "test_limit": None, "max_length": 256, "token_budget": 4096, "ranks": "4,16"}
EPOCHS, QUICK_EPOCHS, LSTM_EPOCHS = 3, 2, 8


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--test", "test_data", help="Labelled reviews to test on.  [default: a fifth of the data]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("comparison"), show_default=True)
@click.option("--contenders", "kinds", help="Of tfidf, lstm, lora, full, oracle.  [default: all]")
@click.option("--ranks", help="LoRA's ranks.  [default: 4,16; quick: 8]")
@click.option(
    "--oracle", "oracles", multiple=True, type=DATA, help="Parquet with an oracle's labels, repeatable."
)
@click.option("--base", help="Base model: a directory or an id on the hub.  [default: all-MiniLM-L6-v2]")
@click.option("--targets", default="all-linear", show_default=True, help="What LoRA adapts, or query,value.")
@file_options
@click.option("--limit", type=click.IntRange(min=20), help="Train on a random N only.  [quick: 400]")
@click.option("--test-limit", type=click.IntRange(min=2), help="Test on a random N only.  [quick: 200]")
@click.option(
    "--quick", is_flag=True, help="A few hundred short reviews, two epochs: shows how it goes in minutes."
)
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Epochs of all.  [default: 3, LSTM 8; quick: 2, LSTM 8]"
)
@click.option(
    "--max-length", type=click.IntRange(min=8), help="Tokens that are read.  [default: 256; quick: 128]"
)
@click.option(
    "--token-budget", type=click.IntRange(min=8), help="Tokens of one step.  [default: 4096; quick: 512]"
)
@click.option(
    "--price-per-hour", type=click.FloatRange(min=0, min_open=True), help="Of this machine, in US dollars."
)
@click.option("--seed", type=int, default=0, show_default=True)
@DEVICE
@click.option("--restart", is_flag=True, help="Begin anew what is in --out.")
@JSON
def compare(
    data: tuple[str, ...],
    test_data: str | None,
    out: Path,
    kinds: str | None,
    oracles: tuple[Path, ...],
    base: str | None,
    targets: str,
    quick: bool,
    epochs: int | None,
    price_per_hour: float | None,
    seed: int,
    device: str,
    restart: bool,
    as_json: bool,
    **sizes: Any,
) -> None:
    """Compare LoRA with TF-IDF, an LSTM, full fine-tuning and an oracle on the same reviews.

    DATA and --test are labelled files, or a dataset of the Hugging Face hub by its name, such as imdb. It writes
    comparison.json, .csv and .png into --out as soon as something is measured. After an interruption the same command
    goes on where it stopped. Other contenders on the same reviews are added to the table.

    It shows trainable parameters, the measured peak memory of training, seconds, size, accuracy with its 95 %
    interval, and costs with --price-per-hour. --oracle takes what `loracle results JOB --with-text -o FILE.parquet`
    wrote.

    \b
    Example:
      loracle compare reviews.csv --quick --contenders tfidf
    """
    from trainer.contenders.task import KINDS, contenders

    wanted = (
        names(kinds, "--contenders") if kinds else [kind for kind in KINDS if kind != "oracle" or oracles]
    )
    if "oracle" in wanted and not oracles:
        raise Invalid("the contender oracle needs --oracle FILE.parquet, which `loracle results` exports.")
    options = read_options(sizes)
    sizes = {
        name: given or (QUICK if quick else USUAL)[name] for name, given in sizes.items() if name in USUAL
    }
    chosen = contenders(wanted, _ranks(sizes["ranks"]))

    from trainer.contenders.oracle import read_oracles

    reviews, _ = read_data(data, options)
    test = None
    if test_data:
        test, _ = read_data([test_data], options, split="test", labels=reviews.labels)

    # Only now, since torch takes seconds: a wrong name is told at once.
    from trainer.comparison import Comparison, identity, measure_missing, table, versions
    from trainer.contenders.task import Settings, divide
    from worker.model.bases import MINILM, find_base
    from worker.model.devices import choose_device, device_title
    from worker.model.encoding import Encoding

    chosen_device = choose_device(device)
    settings = Settings(
        base=base or MINILM,
        encoding=Encoding(max_length=sizes["max_length"]),
        targets=targets if targets == "all-linear" else tuple(names(targets, "--targets")),
        epochs=epochs or (QUICK_EPOCHS if quick else EPOCHS),
        lstm_epochs=epochs or LSTM_EPOCHS,
        token_budget=max(sizes["token_budget"], sizes["max_length"]),
        seed=seed,
        device=str(chosen_device),
    )
    if any(contender.kind != "tfidf" for contender in chosen):
        find_base(settings.base)
    divided, told = divide(reviews, test, limit=sizes["limit"], test_limit=sizes["test_limit"], seed=seed)
    learn, validation = divided.parts(settings)
    counts = {"learn": len(learn), "validation": len(validation), "test": len(divided.test.texts)}
    told.append(
        f"{counts['learn']:,} reviews to learn from, {counts['validation']:,} to validate on, {counts['test']:,} to "
        f"test on; labels {', '.join(divided.labels)}; {device_title(chosen_device)}"
    )
    for sentence in told:
        click.echo(sentence, err=True)
    about = {
        "reviews": counts,
        "data": list(data),
        "test_data": test_data,
        "notes": told,
        "device": device_title(chosen_device),
        "versions": versions(),
        "quick": quick,
    }
    comparison = Comparison(
        out,
        identity(divided, settings),
        about=about,
        price_per_hour=price_per_hour,
        restart=restart,
    )
    if "oracle" in wanted:
        for file in oracles:
            for row in read_oracles(file, divided.test):
                comparison.add(row)
    try:
        measure_missing(chosen, divided, settings, comparison, tell=lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        done = ", ".join(row.title for row in comparison.rows) or "nothing yet"
        click.echo(f"Interrupted. {out} holds what was measured: {done}. The same command goes on.", err=True)
        raise SystemExit(130) from None
    click.echo(json.dumps(comparison.to_dict()) if as_json else table(comparison))
    _plot(
        comparison,
        f"{counts['learn']:,} reviews to learn from, {counts['test']:,} to test on, {settings.base}",
    )
    if any(row.state == "failed" for row in comparison.rows):
        raise SystemExit(1)


def _ranks(text: str) -> list[int]:
    found = names(text, "--ranks")
    if not all(rank.isdecimal() and int(rank) > 0 for rank in found):
        raise Invalid(f"--ranks {text!r} must be numbers of at least 1 with commas between them.")
    return [int(rank) for rank in found]


def _plot(comparison: Any, title: str) -> None:
    from trainer.comparison import PLOT
    from trainer.plots import draw_comparison

    path = comparison.directory / PLOT
    try:
        draw_comparison(comparison.to_dict()["rows"], path, title=title)
    except TrainingInvalid as error:
        click.echo(f"{path} is left out: {error}", err=True)
    else:
        click.echo(f"{comparison.directory} holds the table as JSON and CSV, and the plot {PLOT}", err=True)
