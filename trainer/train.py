"""The training run: labelled reviews in, adapter directory out."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from trainer.checkpoint import INTERVAL_S, Checkpoint
from trainer.config import TrainConfig
from trainer.data import Examples, data_sha256, split
from trainer.evaluation import evaluate_logits
from trainer.evaluation_page import write_evaluation
from trainer.leakage import leaking_rows
from trainer.loop import Report, RunReport, Validation, fit
from trainer.memory import MemoryMeter
from trainer.modelcard import write_model_card
from trainer.optimize import trained
from trainer.plots import draw_curves, plots_available
from trainer.record import METRICS, Record, read_events
from worker.calibration import fit_temperature
from worker.errors import TrainingInvalid
from worker.model.classifier import Classifier
from worker.model.devices import choose_device, choose_dtype, device_title, dtype_name
from worker.model.lora import lora_config, training_summary
from worker.model.manifest import Manifest

MIN_REVIEWS = 10
CURVES = "curves.png"
CHECKPOINT = "checkpoint.pt"


def run_directory(out: Path) -> Path:
    """Where a run keeps its checkpoint, metrics.jsonl and TensorBoard events: beside the adapter."""
    out = out.absolute()
    return out.with_name(out.name + ".run")


def train(
    config: TrainConfig,
    texts: Sequence[str],
    gold: Sequence[str],
    labels: Sequence[str],
    *,
    about: Mapping[str, Any] | None = None,
    report: Callable[[Report], None] = lambda _: None,
    restart: bool = False,
    checkpoint_interval_s: float = INTERVAL_S,
) -> Manifest:
    """Trains an adapter on texts with gold labels and writes it to `config.out`.

    The epoch with the best validation accuracy is kept, with the temperature that fits the validation part; it
    is on disk as soon as it is measured, so a run that is cut short leaves the best so far. A run that was
    killed goes on from its checkpoint when it is called with the same arguments, `restart` begins anew. The gold
    labels are among `labels`, whose order is that of the logits. `about` goes into the manifest's training.

    Raises:
        TrainingInvalid: data and options can't give an adapter, `config.out` exists, the loss is no number, or
            the memory doesn't suffice.
        AdapterInvalid: the base can't be found, loaded, or read that many tokens.
        AdapterUnsaved: the disk doesn't take the adapter.
    """
    _check(config, texts, gold, labels)
    run = run_directory(config.out)
    check_out(config.out)
    if restart:
        shutil.rmtree(run, ignore_errors=True)
    device = choose_device(config.device)
    dtype = choose_dtype(device, config.dtype)
    summary = _summary(config, texts, gold, device, dtype)
    checkpoint = Checkpoint(
        run / CHECKPOINT, {**summary, "labels": list(labels)}, interval_s=checkpoint_interval_s
    )
    checkpoint.find()
    with _reproducible(config):
        lora = lora_config(
            rank=config.rank,
            alpha=config.alpha,
            dropout=config.lora_dropout,
            targets=config.targets,
            use_rslora=config.rslora,
            use_dora=config.dora,
        )
        memory = MemoryMeter(device.type)
        classifier = Classifier.create(
            config.base, labels, config.encoding, lora, dropout=config.base_dropout
        )
        classifier.to(device)
        train_rows, validation_rows, dropped = _split(config, texts, gold, labels)
        train_part = _examples(classifier, texts, gold, train_rows)
        validation_part = _examples(classifier, texts, gold, validation_rows)
        summary |= {
            "reviews": len(train_part),
            "near_duplicates_of_validation_left_out": dropped,
            "lora": training_summary(lora),
            "trainable_parameters": sum(parameter.numel() for parameter in trained(classifier.model)),
            **(about or {}),
        }

        def keep(found: Validation) -> None:
            temperature = fit_temperature(found.logits, validation_part.labels)
            metrics = {
                "validation_accuracy": round(found.accuracy, 6),
                "validation_loss": round(found.loss, 6),
                "validation_reviews": len(validation_part),
                "epoch": found.epoch,
            }
            manifest = classifier.save(
                config.out, name=config.name, training=summary, metrics=metrics, temperature=temperature
            )
            measured = evaluate_logits(
                labels,
                [gold[row] for row in validation_rows],
                [texts[row] for row in validation_rows],
                found.logits,
                temperature,
            )
            write_evaluation(config.out, "validation", measured)
            write_model_card(config.out, manifest)

        with Record(run, step=checkpoint.position.step) as record:

            def tell(told: Report) -> None:
                record(told)
                report(told)

            end = fit(
                classifier,
                train_part,
                validation_part,
                config,
                dtype=dtype,
                label_count=len(labels),
                keep=keep,
                report=tell,
                checkpoint=checkpoint,
            )
            tokens = end.epoch * sum(map(len, train_part.ids))
            tell(RunReport(end.epoch, end.step, end.seconds, tokens / end.seconds, memory.read().bytes))
    manifest = finish(config.out)
    checkpoint.remove()
    return manifest


def finish(out: Path) -> Manifest:
    """Draws the curves of the run beside `out`, as far as it came, and writes the model card anew.

    Without matplotlib there are no curves; metrics.jsonl has their figures all the same.

    Raises:
        AdapterInvalid: the run has not saved an adapter yet.
    """
    manifest = Manifest.read(out)
    if plots_available():
        draw_curves(read_events(run_directory(out) / METRICS), out / CURVES)
    write_model_card(out, manifest)
    return manifest


def check_out(out: Path) -> None:
    """Fails now rather than after the first epoch.

    Raises:
        TrainingInvalid: `out` exists, holds something and no interrupted run left it so, or can't be written.
    """
    interrupted = (run_directory(out) / CHECKPOINT).is_file()
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not interrupted):
        raise TrainingInvalid(f"{out} already exists; name another directory with --out.")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingInvalid(f"{out} can't be made: {error}. Name another directory with --out.") from error
    if not os.access(out.absolute().parent, os.W_OK):
        raise TrainingInvalid(f"{out} can't be made: its parent isn't writable. Name another one with --out.")


def _check(config: TrainConfig, texts: Sequence[str], gold: Sequence[str], labels: Sequence[str]) -> None:
    unknown = sorted(set(gold) - set(labels))
    if unknown:
        raise TrainingInvalid(
            f"the data have labels that --labels {','.join(labels)} lacks: {', '.join(unknown[:5])}."
        )
    if len(labels) < 2:
        raise TrainingInvalid(f"all reviews have the label '{labels[0]}'; training needs two labels or more.")
    for label, count in ((label, gold.count(label)) for label in labels):
        if count < 2:
            raise TrainingInvalid(
                f"label '{label}' has {count} {'review' if count == 1 else 'reviews'}; training needs 2 or "
                "more. If --limit cut them off, raise it."
            )
    if len(texts) < MIN_REVIEWS:
        raise TrainingInvalid(f"{len(texts)} reviews are too few to train on; {MIN_REVIEWS} is the least.")
    if not 0 < config.validation < 1:
        raise TrainingInvalid(f"--validation is {config.validation}; it must lie between 0 and 1.")
    for option, number in (
        ("epochs", config.epochs),
        ("accumulate", config.accumulate),
        ("patience", config.patience),
    ):
        if number < 1:
            raise TrainingInvalid(f"--{option} is {number}; it must be at least 1.")
    if config.reviews_per_step is not None:
        if len(texts) < config.reviews_per_step:
            raise TrainingInvalid(
                f"{len(texts)} reviews are fewer than one step of --reviews-per-step {config.reviews_per_step}."
            )
    elif config.token_budget < config.encoding.max_length:
        raise TrainingInvalid(
            f"--token-budget {config.token_budget} has no room for a review of --max-length "
            f"{config.encoding.max_length}."
        )


def _split(
    config: TrainConfig, texts: Sequence[str], gold: Sequence[str], labels: Sequence[str]
) -> tuple[list[int], list[int], int]:
    # Rows to train on, rows to validate on, and how many of the former were too like one of the latter.
    train_rows, validation_rows = split(
        [labels.index(label) for label in gold], config.validation, config.seed
    )
    leaking = set(leaking_rows([texts[row] for row in train_rows], [texts[row] for row in validation_rows]))
    kept = [row for number, row in enumerate(train_rows) if number not in leaking]
    return kept, validation_rows, len(leaking)


def _examples(
    classifier: Classifier, texts: Sequence[str], gold: Sequence[str], rows: Sequence[int]
) -> Examples:
    ids = classifier.encode([texts[row] for row in rows])
    return Examples(ids, [classifier.labels.index(gold[row]) for row in rows])


@contextmanager
def _reproducible(config: TrainConfig) -> Iterator[None]:
    torch.manual_seed(config.seed)
    before = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        # cuBLAS is reproducible with a workspace of fixed size only (CUDA's documentation), read at its start.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _summary(
    config: TrainConfig, texts: Sequence[str], gold: Sequence[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    # What the manifest says of the training; where it differs, a checkpoint is another run's.
    settings = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in {"out", "name", "device", "dtype", "encoding"}
    }
    return {
        **settings,
        "encoding": dataclasses.asdict(config.encoding),
        "data_sha256": data_sha256(texts, gold),
        "device": device_title(device) if device.type == "cuda" else "cpu",
        "dtype": dtype_name(dtype),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }
