"""The training run, top to bottom: data in, adapter directory out."""

from __future__ import annotations

import platform
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import peft
import torch
import transformers
from torch.nn import functional

from trainer.config import TrainConfig
from trainer.data import Examples, data_sha256, split, steps
from worker.errors import TrainingInvalid
from worker.model import buckets
from worker.model.classifier import Classifier, lora_config, training_summary
from worker.model.devices import choose_device, choose_dtype
from worker.model.manifest import MANIFEST, Manifest


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. Loss and tokens/s are averages since the last report; accuracy is on validation."""

    epoch: int
    step: int
    steps: int
    loss: float
    tokens_per_s: float
    seconds_left: float
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

    The epoch with the best validation accuracy is kept; it is on disk as soon as it is measured, so a run that is
    cut short leaves the best so far. `report` hears about every 20 steps and after each epoch.

    Raises:
        TrainingInvalid: the data can't give an adapter, or `config.out` exists.
        AdapterInvalid: base model and options don't fit.
    """
    _check(config, texts, gold, labels)
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    dtype = choose_dtype(device, config.dtype)
    lora = lora_config(
        rank=config.rank, alpha=config.alpha, dropout=config.lora_dropout, targets=config.targets
    )
    classifier = Classifier.create(
        config.base,
        labels,
        config.encoding,
        lora,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    classifier.to(device)
    train_part, validation_part = _encode(classifier, config, texts, gold)
    total = sum(
        len(steps(_lengths(train_part), token_budget=config.token_budget, seed=config.seed + epoch))
        for epoch in range(config.epochs)
    )
    trainable = [parameter for parameter in classifier.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    warmup = max(1, round(total * config.warmup))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup)))
    )
    summary = _training_summary(config, lora, texts, gold, len(train_part), trainable, device, dtype)

    best: Manifest | None = None
    started = time.monotonic()
    step = 0
    for epoch in range(config.epochs):
        classifier.model.train()
        since, seen, losses = time.monotonic(), 0, 0.0
        for micro_batch in steps(
            _lengths(train_part), token_budget=config.token_budget, seed=config.seed + epoch
        ):
            ids = [train_part.ids[row] for row in micro_batch]
            wanted = torch.tensor([train_part.labels[row] for row in micro_batch], device=device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = classifier.logits(ids)
            loss = functional.cross_entropy(logits, wanted)
            if not torch.isfinite(loss):
                raise TrainingInvalid(
                    f"the loss became {loss.item()} at step {step}: lower --learning-rate, or use --dtype fp32."
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, config.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            seen += sum(map(len, ids))
            losses += loss.item()
            if step % 20 == 0:
                now = time.monotonic()
                left = (now - started) / step * (total - step)
                report(Progress(epoch + 1, step, total, losses / 20, seen / (now - since), left))
                since, seen, losses = now, 0, 0.0
        accuracy = evaluate(classifier, validation_part, token_budget=config.token_budget * 2)
        left = (time.monotonic() - started) / step * (total - step)
        report(Progress(epoch + 1, step, total, 0.0, 0.0, left, accuracy))
        if best is None or accuracy > best.metrics["validation_accuracy"]:
            metrics = {"validation_accuracy": round(accuracy, 6), "epoch": epoch + 1}
            if best is not None:
                shutil.rmtree(config.out)
            best = classifier.save(config.out, name=config.name, training=summary, metrics=metrics)
    assert best is not None
    return best


def evaluate(classifier: Classifier, examples: Examples, *, token_budget: int) -> float:
    """Share of the examples whose most probable label is the gold one."""
    classifier.model.eval()
    right = 0
    bf16 = classifier.device.type == "cuda" or choose_dtype(classifier.device) == torch.bfloat16
    with torch.inference_mode(), torch.autocast(classifier.device.type, torch.bfloat16, enabled=bf16):
        for micro_batch in buckets.plan(_lengths(examples), token_budget=token_budget):
            found = classifier.logits([examples.ids[row] for row in micro_batch]).argmax(-1).tolist()
            right += sum(label == examples.labels[row] for label, row in zip(found, micro_batch, strict=True))
    return right / max(1, len(examples))


def _check(config: TrainConfig, texts: Sequence[str], gold: Sequence[str], labels: Sequence[str]) -> None:
    if config.out.exists() and ((config.out / MANIFEST).exists() or any(config.out.iterdir())):
        raise TrainingInvalid(f"{config.out} already exists; name another directory with --out.")
    unknown = sorted(set(gold) - set(labels))
    if unknown:
        raise TrainingInvalid(f"the data have labels {unknown} that --labels {','.join(labels)} lacks.")
    for label in labels:
        if gold.count(label) < 2:
            raise TrainingInvalid(f"label '{label}' has {gold.count(label)} reviews; training needs 2 or more.")
    if len(texts) < 10:
        raise TrainingInvalid(f"{len(texts)} reviews are too few to train on; 10 is the least.")


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
