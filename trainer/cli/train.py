"""`loracle train`: an adapter from labelled review files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from trainer.cli.common import DATA, DEVICE, JSON, LABEL_COLUMN, LIMIT, TEXT_COLUMN, names


@click.command()
@click.argument("data", nargs=-1, required=True, type=DATA)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New directory of the adapter.")
@click.option("--name", help="Name of the adapter.  [default: the directory's]")
@click.option("--base", help="Base model: a directory or an id on the hub.  [default: all-MiniLM-L6-v2]")
@click.option("--labels", help="Label names in order, with commas.  [default: those of the data]")
@TEXT_COLUMN
@LABEL_COLUMN
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=5e-4, show_default=True)
@click.option("--rank", type=click.IntRange(min=1), default=16, show_default=True, help="Rank of LoRA.")
@click.option("--alpha", type=click.IntRange(min=1), default=32, show_default=True, help="LoRA's scale.")
@click.option(
    "--targets", default="all-linear", show_default=True, help="Modules to adapt: all-linear, or query,value."
)
@click.option(
    "--max-length", type=click.IntRange(min=8), default=256, show_default=True, help="Tokens that are read."
)
@click.option(
    "--truncation", type=click.Choice(["head", "tail", "head+tail"]), default="head+tail", show_default=True
)
@click.option("--cleaning", type=click.Choice(["none", "markup"]), default="markup", show_default=True)
@click.option(
    "--token-budget", type=click.IntRange(min=8), default=4096, show_default=True, help="Tokens of one step."
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.9, min_open=True),
    default=0.05,
    show_default=True,
    help="Share kept aside to choose the best epoch.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@DEVICE
@click.option("--dtype", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True)
@LIMIT
@JSON
def train(
    data: tuple[Path, ...],
    out: Path,
    name: str | None,
    base: str | None,
    labels: str | None,
    text_column: str | None,
    label_column: str | None,
    targets: str,
    max_length: int,
    truncation: Any,
    cleaning: Any,
    limit: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a LoRA adapter on labelled review files.

    The epoch with the best validation accuracy is kept. Ctrl-C keeps the best so far.
    """
    # Imported here: --help needs no torch.
    from trainer.config import TrainConfig
    from trainer.data import read_labelled
    from trainer.modelcard import write_model_card
    from trainer.progress import Display
    from trainer.train import check_out
    from trainer.train import train as run
    from worker.model.bases import MINILM
    from worker.model.encoding import Encoding

    config = TrainConfig(
        out=out,
        name=name or out.absolute().name,
        base=base or MINILM,
        encoding=Encoding(max_length, truncation, cleaning),
        targets=targets if targets == "all-linear" else tuple(names(targets, "--targets")),
        **options,
    )
    check_out(out)
    reviews = read_labelled(
        data,
        labels=names(labels, "--labels") if labels else (),
        text_column=text_column,
        label_column=label_column,
        limit=limit,
    )
    for announcement in reviews.announcements:
        click.echo(announcement, err=True)
    click.echo(f"{len(reviews.texts):,} reviews with labels {', '.join(reviews.labels)}", err=True)
    display = Display(terminal=sys.stderr.isatty())
    kept = None
    try:
        with display:
            manifest = run(config, reviews.texts, reviews.gold, reviews.labels, report=display)
        write_model_card(out, manifest)
    except KeyboardInterrupt:
        kept = _best_so_far(out)
        click.echo(
            f"Interrupted. {out} holds the best adapter so far ({_percent(kept)} on validation, epoch "
            f"{kept['epoch']})."
            if kept
            else "Interrupted before the first epoch was done; nothing was written.",
            err=True,
        )
        raise SystemExit(130) from None
    if as_json:
        click.echo(
            json.dumps({"adapter": str(out), "sha256": manifest.sha256, "metrics": dict(manifest.metrics)})
        )
    else:
        click.echo(
            f"adapter '{manifest.name}' is in {out}: {_percent(manifest.metrics)} on validation, "
            f"epoch {manifest.metrics['epoch']}"
        )


def _percent(metrics: Any) -> str:
    return f"{metrics['validation_accuracy']:.2%}"


def _best_so_far(out: Path) -> Any:
    # Metrics of the adapter that the run has already saved; None if it was too early for one.
    from trainer.modelcard import write_model_card
    from worker.errors import AdapterInvalid
    from worker.model.manifest import Manifest

    try:
        manifest = Manifest.read(out)
    except AdapterInvalid:
        return None
    write_model_card(out, manifest)
    return manifest.metrics
