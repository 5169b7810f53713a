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
from trainer.config import CHECKPOINT, TrainConfig, check_out, check_run, run_directory
from trainer.data import Examples, data_sha256
from trainer.evaluation import evaluate_logits
from trainer.leakage import split_apart
from trainer.loop import Validation, fit, trained
from trainer.memory import MemoryMeter
from trainer.pages import write_evaluation, write_model_card
from trainer.plots import CURVES, draw_curves, plots_available
from trainer.record import METRICS, Record, Report, RunReport, read_events
from worker.errors import TrainingInvalid
from worker.model.classifier import Classifier
from worker.model.devices import choose_device, choose_dtype, device_title, dtype_name
from worker.model.lora import lora_config, training_summary
from worker.model.manifest import Manifest
from worker.model.scaling import fit_scaling


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
    languages: tuple[str, ...] = (),
) -> Manifest:
    """Trains an adapter on texts with gold labels and writes it to `config.out`.

    The epoch with the best validation accuracy is kept, with the scaling that fits the validation part; it
    is on disk as soon as it is measured, so a run that is cut short leaves the best so far. A run that was
    killed goes on from its checkpoint when it is called with the same arguments, `restart` begins anew. The gold
    labels are among `labels`, whose order is that of the logits. `about` goes into the manifest's training, and
    `languages` are its languages.

    Raises:
        TrainingInvalid: data and options can't give an adapter, `config.out` exists, the loss is no number, or
            the memory doesn't suffice.
        AdapterInvalid: the base can't be found, loaded, or read that many tokens.
        AdapterUnsaved: the disk doesn't take the adapter.
    """
    check_run(config, texts, gold, labels)
    check_out(config.out)
    run = run_directory(config.out)
    if restart and (run / CHECKPOINT).is_file():
        # With the best so far of the run that is given up: check_out let nothing else be there.
        shutil.rmtree(config.out, ignore_errors=True)
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
        if config.start_from is None:
            classifier = Classifier.create(
                config.base, labels, config.encoding, lora, dropout=config.base_dropout
            )
        else:
            classifier = _resumed(config.start_from, labels)
        classifier.to(device)
        train_rows, validation_rows, dropped = split_apart(
            texts, [labels.index(label) for label in gold], config.validation, config.seed
        )
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
            scaling = fit_scaling(found.logits, validation_part.labels)
            metrics = {
                "validation_accuracy": round(found.accuracy, 6),
                "validation_loss": round(found.loss, 6),
                "validation_reviews": len(validation_part),
                "epoch": found.epoch,
            }
            manifest = classifier.save(
                config.out,
                name=config.name,
                training=summary,
                metrics=metrics,
                scaling=scaling,
                languages=languages,
            )
            measured = evaluate_logits(
                labels,
                [gold[row] for row in validation_rows],
                [texts[row] for row in validation_rows],
                found.logits,
                scaling,
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


def _resumed(directory: Path, labels: Sequence[str]) -> Classifier:
    classifier = Classifier.resume(directory)
    if tuple(labels) != classifier.labels:
        raise TrainingInvalid(
            f"the adapter in {directory} has the labels {', '.join(classifier.labels)}, the data "
            f"{', '.join(labels)}: they must be the same to start from it."
        )
    return classifier


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
        if field.name not in {"out", "name", "device", "dtype", "encoding", "start_from"}
    }
    begun = {} if config.start_from is None else {"start_from": Manifest.read(config.start_from).sha256}
    return {
        **settings,
        **begun,
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
