"""The training loop, top to bottom: encoded reviews in, the best epoch out."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch.nn import functional

from trainer.checkpoint import Checkpoint, Position
from trainer.config import TrainConfig
from trainer.data import Examples, class_weights, steps
from trainer.record import EpochReport, Report, StepReport
from worker.errors import TrainingInvalid
from worker.model.devices import out_of_memory
from worker.model.encoding import plan_micro_batches


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the parameters that are trained; with LoRA+, B's have a learning rate of their own."""
    options: dict[str, Any] = {"eps": config.adam_epsilon}
    if config.lora_plus != 1 and isinstance(model, PeftModel):
        optimizer = create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=config.learning_rate,
            loraplus_lr_ratio=config.lora_plus,
            loraplus_weight_decay=config.weight_decay,
            **options,
        )
    else:
        optimizer = torch.optim.AdamW(
            trained(model), lr=config.learning_rate, weight_decay=config.weight_decay, **options
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def rate(step: int, *, steps: int, config: TrainConfig) -> float:
    """The share of the learning rate that step `step` (from 0) of `steps` learns with."""
    warmup = round(steps * config.warmup)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress


REPORT_STEPS = 20
"""Steps between two reports: reading the loss waits for the device, so it isn't done at every step."""


class Trainee(Protocol):
    """What can be trained: a model on a device that turns token ids into logits (B, labels) in fp32."""

    model: Any
    device: torch.device

    def logits(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """One forward pass, in input order."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A pass over examples: share of right labels, mean of -ln p(gold) in nats, logits (N, labels) in order."""

    epoch: int
    accuracy: float
    loss: float
    logits: npt.NDArray[np.float64]


def fit(
    trainee: Trainee,
    train: Examples,
    validation: Examples,
    config: TrainConfig,
    *,
    dtype: torch.dtype,
    label_count: int = 2,
    keep: Callable[[Validation], None],
    report: Callable[[Report], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> Position:
    """Trains; `keep` is called at the end of every epoch that is the best so far, while its weights are in place.

    `report` hears about every 20 steps and after each epoch. With a checkpoint the run goes on where it was
    saved, exactly: the same weights as without the break, bit for bit on a CPU.

    Raises:
        TrainingInvalid: the loss is no number any more, or the memory doesn't suffice.
    """
    device = trainee.device
    parameters = trained(trainee.model)
    optimizer = make_optimizer(trainee.model, config)
    # fp16's small gradients would round to 0 unscaled; bf16 and fp32 have the range.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    weights = None
    if config.class_weights:
        weights = torch.tensor(class_weights(train.labels, label_count), device=device)
    epochs = [_plan(train, config, epoch) for epoch in range(1, config.epochs + 1)]
    total = sum(map(len, epochs))
    at = Position()
    if checkpoint is not None:
        at = checkpoint.restore(trainee.model, optimizer, scaler) or at
    started = time.monotonic() - at.seconds

    for epoch, planned in enumerate(epochs, start=1):
        if epoch <= at.epoch or at.patience_left(config.patience) <= 0:
            continue
        done = at.step - sum(map(len, epochs[: epoch - 1]))
        trainee.model.train()
        meter = _Meter(device)
        for number, micro_batches in enumerate(planned[done:], start=done + 1):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(at.step, steps=total, config=config)
            reviews = sum(map(len, micro_batches))
            for micro_batch in micro_batches:
                ids = [train.ids[row] for row in micro_batch]
                wanted = torch.tensor([train.labels[row] for row in micro_batch], device=device)
                with _out_of_memory(config), _precision(device, dtype):
                    logits = trainee.logits(ids)
                    loss = functional.cross_entropy(
                        logits, wanted, weights, reduction="sum", label_smoothing=config.label_smoothing
                    )
                    scaler.scale(loss / reviews).backward()  # type: ignore[no-untyped-call]
                meter.add(ids, loss, logits, wanted)
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, config.clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            at.step += 1
            if number % REPORT_STEPS == 0 or number == len(planned):
                loss_now, accuracy, tokens_per_s = meter.read()
                if not math.isfinite(loss_now) or scaler.get_scale() < 1:
                    raise TrainingInvalid(
                        f"the loss became {loss_now} by step {at.step} of {total}: lower --learning-rate (now "
                        f"{config.learning_rate:g}), or use --dtype fp32."
                    )
                at.seconds = time.monotonic() - started
                left = at.seconds / at.step * (total - at.step)
                learning_rate = optimizer.param_groups[0]["lr"]
                report(
                    StepReport(
                        epoch,
                        at.step,
                        total,
                        loss_now,
                        accuracy,
                        learning_rate,
                        tokens_per_s,
                        at.seconds,
                        left,
                    )
                )
                if checkpoint is not None and number < len(planned):
                    checkpoint.save_when_due(at)
        # Without gradients there is room for more.
        budget = max(2 * config.token_budget, config.encoding.max_length)
        found = validate(trainee, validation, token_budget=budget, dtype=dtype, epoch=epoch)
        best = found.accuracy > at.best_accuracy
        at.epoch = epoch
        at.seconds = time.monotonic() - started
        if best:
            at.best_accuracy, at.best_epoch = found.accuracy, epoch
            keep(found)
        report(EpochReport(epoch, at.step, total, found.accuracy, found.loss, best, at.seconds))
        if checkpoint is not None:
            checkpoint.save(at)
    return at


def validate(
    trainee: Trainee, examples: Examples, *, token_budget: int, dtype: torch.dtype, epoch: int = 0
) -> Validation:
    """How the model as it stands labels the examples."""
    trainee.model.eval()
    rows: list[int] = []
    found: list[torch.Tensor] = []
    with torch.inference_mode(), _precision(trainee.device, dtype):
        for micro_batch in plan_micro_batches(_lengths(examples), token_budget=token_budget):
            rows += micro_batch
            found.append(trainee.logits([examples.ids[row] for row in micro_batch]))
    logits = torch.cat(found).cpu()[torch.tensor(rows).argsort()]
    wanted = torch.tensor(examples.labels)
    return Validation(
        epoch=epoch,
        accuracy=(logits.argmax(-1) == wanted).double().mean().item(),
        loss=functional.cross_entropy(logits.double(), wanted).item(),
        logits=logits.double().numpy(),
    )


class _Meter:
    """Sums that stay on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._restart()

    def _restart(self) -> None:
        self._since = time.monotonic()
        self._reviews = self._tokens = 0
        self._loss = torch.zeros((), device=self._device)
        self._right = torch.zeros((), device=self._device)

    def add(
        self, ids: Sequence[Sequence[int]], loss: torch.Tensor, logits: torch.Tensor, wanted: torch.Tensor
    ) -> None:
        self._reviews += len(ids)
        self._tokens += sum(map(len, ids))
        self._loss += loss.detach()
        self._right += (logits.detach().argmax(-1) == wanted).sum()

    def read(self) -> tuple[float, float, float]:
        # Mean loss, accuracy, tokens/s since the last reading.
        loss, accuracy = self._loss.item() / self._reviews, self._right.item() / self._reviews
        tokens_per_s = self._tokens / (time.monotonic() - self._since)
        self._restart()
        return loss, accuracy, tokens_per_s


def _plan(train: Examples, config: TrainConfig, epoch: int) -> list[list[list[int]]]:
    # Steps of micro-batches of rows; an epoch's order depends on the seed alone, so a resumed run finds it again.
    seed = config.seed + epoch - 1
    if config.reviews_per_step is None:
        planned = steps(_lengths(train), token_budget=config.token_budget, seed=seed)
    else:
        rows = list(range(len(train)))
        random.Random(seed).shuffle(rows)
        size = config.reviews_per_step
        planned = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [planned[start : start + config.accumulate] for start in range(0, len(planned), config.accumulate)]


def _lengths(examples: Examples) -> list[int]:
    return [len(ids) for ids in examples.ids]


def _precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@contextmanager
def _out_of_memory(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        option, now = "--token-budget", config.token_budget
        if config.reviews_per_step is not None:
            option, now = "--reviews-per-step", config.reviews_per_step
        raise TrainingInvalid(
            f"the memory doesn't suffice for these micro-batches: halve {option} (now {now}) and double --accumulate "
            f"(now {config.accumulate}), which trains the same; a lower --max-length helps too."
        ) from error
