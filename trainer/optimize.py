"""The optimizer of a run and the course of its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer

from trainer.config import TrainConfig


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


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Gives every group that share of its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
