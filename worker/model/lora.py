"""The adapter itself: PEFT's configuration, and its weights checked before and while they are loaded."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open

from worker.errors import AdapterInvalid, HeadMissing, HostUnfit, TrainingInvalid
from worker.model.devices import out_of_memory
from worker.model.manifest import WEIGHTS
from worker.model.pretrained import HEADS

PREFIX = "base_model.model."
"""What PEFT puts before the names of the base's parameters."""


def lora_config(
    *, rank: int, alpha: int, dropout: float, targets: str | Sequence[str], **options: Any
) -> LoraConfig:
    """PEFT's configuration of an adapter for sequence classification; the head is always saved with it."""
    return LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        **options,
    )


def training_summary(lora: LoraConfig) -> dict[str, Any]:
    """The adapter's hyper-parameters as they go into the manifest."""
    fields = dataclasses.asdict(lora)
    names = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")
    kept = {key: fields[key] for key in names}
    if isinstance(kept["target_modules"], set):
        kept["target_modules"] = sorted(kept["target_modules"])
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


def _tensor_shapes(weights: Path) -> Mapping[str, Sequence[int]]:
    try:
        with safe_open(weights, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise AdapterInvalid(f"{weights} is no safetensors file: {error}.") from error


def check_weights(directory: Path, labels: Sequence[str], fresh: Iterable[str]) -> None:
    """Checks that an adapter's weights hold a head for its labels and all that its base has no weights for.

    Raises:
        HeadMissing: they don't, so that scores would come from random numbers.
        AdapterInvalid: the file is no safetensors.
    """
    weights = directory / WEIGHTS
    shapes = _tensor_shapes(weights)
    # PEFT's names: base_model.model.classifier.weight, …classifier.out_proj.weight, …score.weight.
    rows = [
        shape[0]
        for key, shape in shapes.items()
        if key.endswith(".weight") and any(head in key.split(".") for head in HEADS)
    ]
    lost = [name for name in sorted(fresh) if f"{PREFIX}{name}" not in shapes]
    if len(labels) not in rows or lost:
        part = f"; {lost[0]} is missing" if lost else ""
        raise HeadMissing(
            f"{weights} holds no whole classification head for the {len(labels)} labels of its "
            f"manifest{part}: "
            "scores would come from random numbers. Train the adapter again; with plain PEFT, with "
            "task_type SEQ_CLS."
        )


def new_adapter(model: Any, lora: LoraConfig) -> PeftModel:
    """The base model with a fresh adapter on it.

    Raises:
        TrainingInvalid: the base can't take it.
    """
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        try:
            return get_peft_model(model, lora)
        except ValueError as error:
            raise TrainingInvalid(f"{type(model).__name__} can't take this adapter: {error}") from error


def with_adapter(model: Any, directory: Path, *, is_trainable: bool = False) -> PeftModel:
    """The base model with the adapter of a directory on it, fixed unless it `is_trainable`.

    Raises:
        AdapterInvalid: the adapter is made for other layers or shapes, or lacks some.
        HostUnfit: PEFT is too old for it, or the file can't be read.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, str(directory), is_trainable=is_trainable)
        except (ValueError, RuntimeError, KeyError) as error:
            if out_of_memory(error):
                raise
            raise AdapterInvalid(f"the adapter in {directory} doesn't fit its base: {error}") from error
        except (TypeError, ImportError, OSError) as error:
            raise HostUnfit(
                f"the adapter in {directory} can't be read with peft {peft.__version__}: {error}"
            ) from error
    # PEFT only warns of layers that the file lacks; they would stay without effect.
    missing = next(
        (str(warning.message) for warning in caught if "missing adapter" in str(warning.message)), ""
    )
    if missing:
        raise AdapterInvalid(f"the adapter in {directory} is not whole. {missing[:300]}")
    return adapted
