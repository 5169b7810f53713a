"""The training run, top to bottom: data in, adapter directory out."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
from peft.optimizers import create_loraplus_optimizer
import torch
import transformers
from torch.nn import functional

from trainer.config import TrainConfig
from trainer.data import Examples, data_sha256, split, steps
from worker.errors import TrainingInvalid
from worker.model import buckets
from worker.model.classifier import Classifier
from worker.model.devices import choose_device, choose_dtype
from worker.model.lora import lora_config, training_summary
from worker.model.manifest import Manifest

MIN_REVIEWS = 10
REPORT_STEPS = 20
"""Steps between two reports: reading the loss waits for the device, so it isn't done at every step."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, within an epoch or, with `accuracy` on the validation part, at the end of one.

    Loss and tokens/s are averages since the last report of the epoch.
    """

    epoch: int
    step: int
    steps: int
    seconds_left: float
    loss: float | None = None
    tokens_per_s: float | None = None
    accuracy: float | None = None


def train(
    config: TrainConfig,
    texts: Sequence[str],
    gold: Sequence[str],
    labels: Sequence[str],
    *,
    report: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Trains an adapter on texts with gold labels and writes it to `config.out`.

    The epoch with the best validation accuracy is kept; it is on disk as soon as it is measured, so a run
    that is cut short leaves the best so far. `report` hears about every 20 steps and after each epoch, when
    the best is on disk. The gold labels are among `labels`, whose order is that of the logits.

    Raises:
        TrainingInvalid: data and options can't give an adapter, `config.out` exists, or the loss is no
            number.
        AdapterInvalid: the base can't be found, loaded, or read that many tokens.
    """
    _check(config, texts, gold, labels)
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    dtype = choose_dtype(device, config.dtype)
    if dtype == torch.float16:
        # Half precision would need its losses scaled; devices that are too old for bf16 train in fp32.
        dtype = torch.float32
    lora = lora_config(
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.lora_dropout,
        targets=config.targets,
        use_rslora=config.rslora,
        use_dora=config.dora,
    )
    classifier = Classifier.create(config.base, labels, config.encoding, lora)
    classifier.to(device)
    train_part, validation_part = _encode(classifier, config, texts, gold)
    epochs = [
        steps(_lengths(train_part), token_budget=config.token_budget, seed=config.seed + epoch)
        for epoch in range(config.epochs)
    ]
    total = sum(map(len, epochs))
    trainable = [parameter for parameter in classifier.model.parameters() if parameter.requires_grad]
    optimizer = (
        create_loraplus_optimizer(
            classifier.model,
            torch.optim.AdamW,
            lr=config.learning_rate,
            loraplus_lr_ratio=config.lora_plus,
            loraplus_weight_decay=config.weight_decay,
        )
        if config.lora_plus != 1
        else torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    )
    warmup = max(1, round(total * config.warmup))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup)))
    )
    summary = _training_summary(config, lora, texts, gold, len(train_part), trainable, device, dtype)

    best: Manifest | None = None
    started = time.monotonic()
    step = 0
    for epoch, micro_batches in enumerate(epochs, start=1):
        classifier.model.train()
        since, unreported, tokens, losses = time.monotonic(), 0, 0, torch.zeros((), device=device)
        for number, micro_batch in enumerate(micro_batches, start=1):
            ids = [train_part.ids[row] for row in micro_batch]
            wanted = torch.tensor([train_part.labels[row] for row in micro_batch], device=device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = classifier.logits(ids)
            loss = functional.cross_entropy(logits, wanted, label_smoothing=config.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trainable, config.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            unreported += 1
            tokens += sum(map(len, ids))
            losses += loss.detach()
            if unreported == REPORT_STEPS or number == len(micro_batches):
                mean = losses.item() / unreported
                if not math.isfinite(mean):
                    raise TrainingInvalid(
                        f"the loss became {mean} by step {step}: lower --learning-rate, or use --dtype fp32."
                    )
                now = time.monotonic()
                left = (now - started) / step * (total - step)
                report(Progress(epoch, step, total, left, loss=mean, tokens_per_s=tokens / (now - since)))
                since, unreported, tokens, losses = now, 0, 0, torch.zeros((), device=device)
        accuracy = validate(classifier, validation_part, token_budget=config.token_budget * 2, dtype=dtype)
        if best is None or accuracy > best.metrics["validation_accuracy"]:
            metrics = {
                "validation_accuracy": round(accuracy, 6),
                "validation_reviews": len(validation_part),
                "epoch": epoch,
            }
            best = classifier.save(config.out, name=config.name, training=summary, metrics=metrics)
        left = (time.monotonic() - started) / step * (total - step)
        report(Progress(epoch, step, total, left, accuracy=accuracy))
    assert best is not None
    return best


def validate(classifier: Classifier, examples: Examples, *, token_budget: int, dtype: torch.dtype) -> float:
    """Share of the examples whose most probable label is the gold one."""
    classifier.model.eval()
    device = classifier.device.type
    right = 0
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        for micro_batch in buckets.plan(_lengths(examples), token_budget=token_budget):
            found = classifier.logits([examples.ids[row] for row in micro_batch]).argmax(-1).tolist()
            right += sum(label == examples.labels[row] for label, row in zip(found, micro_batch, strict=True))
    return right / len(examples)


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
                f"label '{label}' has {count} {'review' if count == 1 else 'reviews'}; training needs 2 "
                f"or more. "
                "If --limit cut them off, raise it."
            )
    if len(texts) < MIN_REVIEWS:
        raise TrainingInvalid(f"{len(texts)} reviews are too few to train on; {MIN_REVIEWS} is the least.")
    if not 0 < config.validation < 1:
        raise TrainingInvalid(f"--validation is {config.validation}; it must lie between 0 and 1.")
    if config.epochs < 1:
        raise TrainingInvalid(f"--epochs is {config.epochs}; it must be at least 1.")
    if config.token_budget < config.encoding.max_length:
        raise TrainingInvalid(
            f"--token-budget {config.token_budget} has no room for a review of --max-length "
            f"{config.encoding.max_length}."
        )
    check_out(config.out)


def check_out(out: Path) -> None:
    """Fails now rather than after the first epoch.

    Raises:
        TrainingInvalid: `out` exists and holds something, or can't be written.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise TrainingInvalid(f"{out} already exists; name another directory with --out.")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingInvalid(f"{out} can't be made: {error}. Name another directory with --out.") from error
    if not os.access(out.absolute().parent, os.W_OK):
        raise TrainingInvalid(f"{out} can't be made: its parent isn't writable. Name another one with --out.")


def _encode(
    classifier: Classifier, config: TrainConfig, texts: Sequence[str], gold: Sequence[str]
) -> tuple[Examples, Examples]:
    ids = classifier.encode(texts)
    indices = [classifier.labels.index(label) for label in gold]
    train_rows, validation_rows = split(indices, config.validation, config.seed)
    return (
        Examples([ids[row] for row in train_rows], [indices[row] for row in train_rows]),
        Examples([ids[row] for row in validation_rows], [indices[row] for row in validation_rows]),
    )


def _lengths(examples: Examples) -> list[int]:
    return [len(ids) for ids in examples.ids]


def _training_summary(
    config: TrainConfig,
    lora: peft.LoraConfig,
    texts: Sequence[str],
    gold: Sequence[str],
    rows: int,
    trainable: Sequence[torch.nn.Parameter],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    return {
        "data_sha256": data_sha256(texts, gold),
        "reviews": rows,
        "lora": training_summary(lora),
        "trainable_parameters": sum(parameter.numel() for parameter in trainable),
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup": config.warmup,
        "token_budget": config.token_budget,
        "clip": config.clip,
        "validation": config.validation,
        "seed": config.seed,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }
