"""Pretrained models and tokenizers from local directories: never remote code, never pickles, never the
network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from worker.errors import AdapterInvalid, BaseUnloadable, HostUnfit, TrainingInvalid

HEADS = ("classifier", "score")
"""Names of the classification head in transformers' sequence classifiers."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A sequence classifier from a base's weights.

    `fresh` names the parameters that the base's files lack: the head, sometimes a pooler or another layer
    before the head. They begin random, so an adapter has to carry them all.
    """

    model: Any
    fresh: frozenset[str]

    @property
    def fresh_modules(self) -> list[str]:
        """The modules that hold the fresh parameters, without the base's prefix: "classifier", "pooler"."""
        prefix = f"{self.model.base_model_prefix}."
        return sorted({name.removeprefix(prefix).split(".")[0] for name in self.fresh})


def load_pretrained(directory: Path, labels: Sequence[str], *, dropout: bool = False) -> Pretrained:
    """The base in a directory as a classifier for these labels, in fp32 on the CPU.

    Without `dropout` it is 0: scoring has none, and in training on a CPU it more than halves the speed.

    Raises:
        BaseUnloadable: transformers can't load it, or its weights are another architecture's.
    """
    # Here and below: a second or more, which whoever needs none of it doesn't spend.
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    # The fresh head is announced as an error by transformers; here it is always meant.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(
            directory,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            trust_remote_code=False,
        )
        for name, value in vars(config).items():
            if not dropout and "dropout" in name and isinstance(value, float):
                setattr(config, name, 0.0)
        model, found = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
            # A base that already is a classifier has a head for other labels: it gets a fresh one.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise BaseUnloadable(
            f"base model in {directory} can't be loaded with {_libraries()}: {error}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    fresh = frozenset(found["missing_keys"]) | {key for key, *_ in found["mismatched_keys"]}
    _check_fresh(directory, model, fresh)
    return Pretrained(model, fresh)


def load_tokenizer(directory: Path) -> Any:
    """The fast tokenizer in a directory.

    Raises:
        HostUnfit: the libraries of this host can't load it.
        AdapterInvalid: there is no fast one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:
        # The tokenizers library raises a bare Exception at a file that is newer than itself.
        raise HostUnfit(
            f"the tokenizer in {directory} can't be loaded with {_libraries()}: {error}"
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise AdapterInvalid(f"{directory} has no fast tokenizer (tokenizer.json).")
    return tokenizer


def padding_id(model: Any, tokenizer: Any) -> int:
    """The id that fills rows, unseen by attention. RoBERTa's position ids need it to be the model's own."""
    for found in (model.config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    return 0


def position_limit(model: Any) -> int | None:
    """How many tokens the model can read; None where nothing limits it.

    RoBERTa counts positions from padding_idx + 1, so of its 514 rows 512 are of use.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return getattr(model.config, "max_position_embeddings", None)


def check_targets(model: Any, targets: str | Iterable[str], base_id: str) -> None:
    """Every target module of an adapter has to exist: PEFT is content if one of several does.

    Raises:
        TrainingInvalid: one doesn't; the message names those that do.
    """
    if isinstance(targets, str):  # "all-linear", or a pattern, which PEFT checks
        return
    linear = [
        name for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
            raise TrainingInvalid(
                f"{base_id} has no module '{target}' for an adapter. Choose among {known}, or all-linear."
            )


def head_of(model: Any) -> torch.nn.Module:
    """The classification head of a sequence classifier."""
    for name in HEADS:
        if isinstance(head := getattr(model, name, None), torch.nn.Module):
            return head
    raise AdapterInvalid(f"{type(model).__name__} has no head named {' or '.join(HEADS)}.")


def _libraries() -> str:
    return f"transformers {version('transformers')} and tokenizers {version('tokenizers')}"


def _check_fresh(directory: Path, model: Any, fresh: Iterable[str]) -> None:
    prefix = f"{model.base_model_prefix}."
    lost = sorted(name for name in fresh if name.startswith(prefix) and "pooler" not in name)
    if lost:
        raise BaseUnloadable(
            f"the weights in {directory} lack {len(lost)} parameters of {type(model).__name__} "
            f"({lost[0]}, …): its "
            "config.json is of another architecture or size."
        )
