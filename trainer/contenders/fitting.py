"""Trains a model through the project's own loop, keeps its best epoch, and tests it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_model, save_model

from trainer.config import TrainConfig
from trainer.contenders.row import Row
from trainer.contenders.task import Reviews, Task, Training, indices, pick
from trainer.data import Examples
from trainer.loop import Trainee, Validation, fit, validate
from trainer.reports import Report
from worker.model.devices import device_title, dtype_name


class Encoder(Trainee, Protocol):
    """What can be trained and turns texts into token ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in input order."""
        ...


def fit_and_test(
    task: Task,
    reviews: Reviews,
    make: Callable[[], Encoder],
    config: TrainConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[Report], None],
) -> Row:
    """Makes the model, trains it, puts its best epoch's weights back, and tests it.

    Raises:
        TrainingInvalid: the loss is no number any more, or the memory doesn't suffice.
    """
    learn, validation = reviews.parts(task.settings)
    gold = indices(reviews.train)
    weights = task.work / "model.safetensors"
    best: list[Validation] = []
    torch.manual_seed(task.settings.seed)
    with Training(str(device)) as training:
        trainee = make()
        ids = trainee.encode(reviews.train.texts)

        def keep(found: Validation) -> None:
            best[:] = [found]
            save_model(trainee.model, str(weights))

        position = fit(
            trainee,
            Examples(pick(ids, learn), pick(gold, learn)),
            Examples(pick(ids, validation), pick(gold, validation)),
            config,
            dtype=dtype,
            keep=keep,
            report=report,
        )
        load_model(trainee.model, weights, device=str(device))
    seconds, right = test(trainee, reviews, token_budget=2 * config.token_budget, dtype=dtype)
    parameters = list(trainee.model.parameters())
    return Row(
        key=task.contender.key,
        title=task.contender.title,
        trainable_parameters=sum(one.numel() for one in parameters if one.requires_grad),
        parameters=sum(one.numel() for one in parameters),
        memory=training.memory,
        train_seconds=training.seconds,
        test_seconds=seconds,
        size=weights.stat().st_size,
        size_of="all weights",
        n=len(reviews.test.texts),
        right=right,
        details={
            "device": device_title(device),
            "dtype": dtype_name(dtype),
            "validation_accuracy": best[0].accuracy,
            "epoch": best[0].epoch,
            "epochs": position.epoch,
            "learning_rate": config.learning_rate,
        },
    )


def test(trainee: Encoder, reviews: Reviews, *, token_budget: int, dtype: torch.dtype) -> tuple[float, int]:
    """Seconds that encoding and labelling the test reviews take, and how many of them got gold's label."""
    gold = indices(reviews.test)
    started = time.perf_counter()
    examples = Examples(trainee.encode(reviews.test.texts), gold)
    found: Any = validate(trainee, examples, token_budget=token_budget, dtype=dtype).logits.argmax(axis=1)
    return time.perf_counter() - started, int((found == np.array(gold)).sum())
