"""A pretrained encoder, adapted with LoRA or fine-tuned as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from trainer.config import TrainConfig
from trainer.contenders.fitting import fit_and_test
from trainer.contenders.row import Row
from trainer.contenders.task import Reviews, Task, Training
from trainer.evaluate import evaluate_file
from trainer.reports import Report
from trainer.train import train
from worker.model.classifier import Classifier
from worker.model.devices import choose_device, choose_dtype, device_title, dtype_name
from worker.model.lora import lora_config

FULL_LEARNING_RATE = 5e-5
"""The largest of those that Devlin et al. 2019 (BERT, appendix A.3) recommend for fine-tuning: 2e-5 to 5e-5. The
bases here are small, and small ones bear more."""


def measure_lora(task: Task, reviews: Reviews, report: Callable[[Report], None]) -> Row:
    """Trains an adapter as `loracle train` does and tests it through the worker's scorer: what would run is measured.

    The adapter stays in the directory `adapter` of the task's.
    """
    rank = task.contender.rank
    assert rank is not None
    # alpha / rank scales the update: kept at 2, the ranks differ in nothing but their rank.
    config = _config(task, task.work / "adapter", rank=rank, alpha=2 * rank, targets=task.settings.targets)
    device = choose_device(config.device)
    # `train` measures memory too, from before it makes the model, so that this peak begins there as well.
    with Training(str(device)) as training:
        manifest = train(config, reviews.train.texts, reviews.train.gold, reviews.labels, report=report)
    evaluation, scores = evaluate_file(config.out, reviews.test, device=config.device, dtype=config.dtype)
    given = [None if score is None else score.label for score in scores]
    trainable, parameters = _count(config, reviews)
    return Row(
        key=task.contender.key,
        title=task.contender.title,
        trainable_parameters=trainable,
        parameters=parameters,
        memory=training.memory,
        train_seconds=training.seconds,
        test_seconds=(evaluation.seconds_per_review or 0.0) * evaluation.n,
        size=directory_size(config.out),
        size_of="adapter directory",
        n=evaluation.n,
        right=sum(label == wanted for label, wanted in zip(given, reviews.test.gold, strict=True)),
        details={
            "device": device_title(device),
            "dtype": dtype_name(choose_dtype(device, config.dtype)),
            "validation_accuracy": manifest.metrics["validation_accuracy"],
            "epoch": manifest.metrics["epoch"],
            "learning_rate": config.learning_rate,
            "manifest_sha256": manifest.sha256,
        },
    )


def measure_full(task: Task, reviews: Reviews, report: Callable[[Report], None]) -> Row:
    """Trains all of the base's parameters; the whole model is what must be stored."""
    config = _config(task, task.work, learning_rate=FULL_LEARNING_RATE)
    device = choose_device(config.device)

    def make() -> Classifier:
        classifier = Classifier.create(config.base, reviews.labels, config.encoding, None)
        classifier.model.requires_grad_(True)
        classifier.to(device)
        return classifier

    return fit_and_test(
        task,
        reviews,
        make,
        config,
        device=device,
        dtype=choose_dtype(device, config.dtype),
        report=report,
    )


def directory_size(directory: Path) -> int:
    """Bytes of all files in a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _config(task: Task, out: Path, **changes: object) -> TrainConfig:
    settings = task.settings
    options = {
        "base": settings.base,
        "encoding": settings.encoding,
        "epochs": settings.epochs,
        "token_budget": settings.token_budget,
        "validation": settings.validation,
        "seed": settings.seed,
        "device": settings.device,
        "dtype": settings.dtype,
        **changes,
    }
    return TrainConfig(out=out, name=task.contender.key, **options)  # type: ignore[arg-type]


def _count(config: TrainConfig, reviews: Reviews) -> tuple[int, int]:
    # Trainable and all parameters, from the same model made once more: the worker has merged the adapter away.
    lora = lora_config(rank=config.rank, alpha=config.alpha, dropout=0.0, targets=config.targets)
    model: torch.nn.Module = Classifier.create(config.base, reviews.labels, config.encoding, lora).model
    parameters = list(model.parameters())
    return (
        sum(one.numel() for one in parameters if one.requires_grad),
        sum(one.numel() for one in parameters),
    )
