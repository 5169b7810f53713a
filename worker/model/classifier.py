"""Base model and adapter together: create, save, load, verify, forward."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import logging as transformers_logging

from worker.errors import AdapterInvalid, BaseMismatch, HeadMissing, ProbesDiffer
from worker.model.bases import find_base, weights_sha256
from worker.model.encoding import Encoding, encode
from worker.model.manifest import MANIFEST, WEIGHTS, Base, Manifest, Probe, file_sha256

HEADS = ("classifier", "score")
"""Names of the classification head in transformers' sequence classifiers."""

PROBES = (
    "An absolute delight from the first minute to the last.",
    "Two hours of my life that I will never get back.",
    "The story drags in places, but the ending makes up for all of it.",
    "Broke after a week, and nobody answered my letters.",
    "It is what it is.",
)
PROBE_LOGIT_TOLERANCE = 1e-3
PROBE_PROBABILITY_TOLERANCE = 0.02


class Classifier:
    """A sequence classifier with its tokenizer and encoding, on one device.

    `manifest` is None while an adapter is being trained.
    """

    def __init__(
        self, model: Any, tokenizer: Any, labels: Sequence[str], encoding: Encoding, base: Base
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.encoding = encoding
        self.base = base
        self.manifest: Manifest | None = None
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    @classmethod
    def create(
        cls,
        base_id: str,
        labels: Sequence[str],
        encoding: Encoding,
        lora: LoraConfig,
        **config: Any,
    ) -> Classifier:
        """A base model with a fresh adapter and head, in fp32 on the CPU; `config` overrides the base's own.

        Raises:
            BaseNotFound: the base model is nowhere to be found.
            AdapterInvalid: the base can't take this adapter (a target module that it lacks, a length it can't read).
        """
        directory = find_base(base_id)
        base = Base(id=base_id, revision=_revision(directory), weights_sha256=weights_sha256(directory))
        model = _load_base(directory, labels, config)
        longest = getattr(model.config, "max_position_embeddings", encoding.max_length)
        if encoding.max_length > longest:
            raise AdapterInvalid(f"{base_id} reads at most {longest} tokens, not {encoding.max_length}.")
        try:
            model = get_peft_model(model, lora)
        except ValueError as error:
            raise AdapterInvalid(f"{base_id} can't take this adapter: {error}") from error
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        return cls(model, tokenizer, labels, encoding, base)

    @classmethod
    def load(
        cls, directory: Path, *, device: torch.device, dtype: torch.dtype, base_id: str | None = None
    ) -> Classifier:
        """A verified adapter, merged into its base and ready to score.

        The hashes of all files and of the base are compared with the manifest, then the probes: in fp32 before
        merging (logits within 1e-3) and on the device after merging and the cast (probabilities within 0.02).
        `base_id` names another place for the same base, say a local directory.

        Raises:
            AdapterInvalid: one of its subclasses names what is wrong.
        """
        manifest = Manifest.read(directory)
        _check_head(directory, manifest)
        manifest.verify_files(directory)
        base_directory = find_base(base_id or manifest.base.id, "" if base_id else manifest.base.revision)
        found = weights_sha256(base_directory)
        if found != manifest.base.weights_sha256:
            raise BaseMismatch(
                f"adapter '{manifest.name}' was trained on {manifest.base.id} with weights sha256 "
                f"{manifest.base.weights_sha256[:12]}…, but {base_directory} has {found[:12]}…. "
                "Provide the base it was trained on."
            )
        model = _load_base(base_directory, manifest.labels, {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(model, str(directory))
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        classifier = cls(model, tokenizer, manifest.labels, manifest.encoding, manifest.base)
        classifier.manifest = manifest
        classifier.model.eval()
        classifier._check_probes(merged=False)
        classifier._merge(device, dtype)
        classifier._check_probes(merged=True)
        return classifier

    def save(
        self, directory: Path, *, name: str, training: dict[str, Any], metrics: dict[str, Any]
    ) -> Manifest:
        """Writes the adapter directory: PEFT's files, the tokenizer, and the manifest last.

        The directory is written under another name and renamed, so it is there whole or not at all.
        """
        partial = directory.with_name(directory.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        self.model.eval()
        self.model.peft_config["default"].base_model_name_or_path = self.base.id
        self.model.save_pretrained(partial, safe_serialization=True)
        self.tokenizer.save_pretrained(partial)
        (partial / "README.md").unlink(missing_ok=True)
        probes = tuple(
            Probe(text, tuple(round(value, 6) for value in row))
            for text, row in zip(PROBES, self._probe_logits(PROBES), strict=True)
        )
        files = {path.name: file_sha256(path) for path in sorted(partial.iterdir()) if path.name != MANIFEST}
        manifest = Manifest(
            name=name,
            base=self.base,
            labels=self.labels,
            encoding=self.encoding,
            files=files,
            probes=probes,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            training=training,
            metrics=metrics,
        )
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        partial.rename(directory)
        return manifest

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in input order."""
        return encode(self.tokenizer, texts, self.encoding)

    def logits(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """One padded forward pass: (B, labels) in fp32 on the model's device, before temperature."""
        longest = max(len(ids) for ids in token_ids)
        pad = self.tokenizer.pad_token_id
        rows = torch.full((len(token_ids), longest), pad, dtype=torch.long)
        mask = torch.zeros((len(token_ids), longest), dtype=torch.long)
        for row, ids in enumerate(token_ids):
            rows[row, : len(ids)] = torch.as_tensor(ids)
            mask[row, : len(ids)] = 1
        output = self.model(
            input_ids=rows.to(self.device, non_blocking=True),
            attention_mask=mask.to(self.device, non_blocking=True),
        )
        return output.logits.float()  # type: ignore[no-any-return]

    def to(self, device: torch.device) -> None:
        """Moves the model; micro-batches follow."""
        self.model.to(device)
        self.device = device

    def _probe_logits(self, texts: Sequence[str]) -> list[list[float]]:
        # One by one: padding must have no part in what a probe says.
        with torch.inference_mode():
            return [self.logits([ids])[0].tolist() for ids in self.encode(texts)]

    def _check_probes(self, *, merged: bool) -> None:
        assert self.manifest is not None
        manifest = self.manifest
        found = torch.tensor(self._probe_logits([probe.text for probe in manifest.probes]))
        expected = torch.tensor([probe.logits for probe in manifest.probes])
        if merged:
            found, expected = found.softmax(-1), expected.softmax(-1)
        difference = (found - expected).abs().max().item() if manifest.probes else 0.0
        limit = PROBE_PROBABILITY_TOLERANCE if merged else PROBE_LOGIT_TOLERANCE
        if not difference <= limit:
            what = f"probabilities in {self.dtype} on {self.device}" if merged else "logits in fp32"
            raise ProbesDiffer(
                f"adapter '{manifest.name}' gives its probe sentences other {what} than when it was made "
                f"(by {difference:.2g}, allowed {limit:g}): tokenizer, base or library don't fit it."
            )

    def _merge(self, device: torch.device, dtype: torch.dtype) -> None:
        self.model = self.model.merge_and_unload()
        self.model.to(device=device, dtype=dtype)
        self.device, self.dtype = device, dtype
        # The head stays in fp32: it costs nothing, and rounding logits would move scores near 0.5.
        head = next(getattr(self.model, name) for name in HEADS if hasattr(self.model, name))
        head.float()
        head.register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))
        self.model.eval()


def _load_base(directory: Path, labels: Sequence[str], config: dict[str, Any]) -> Any:
    verbosity = transformers_logging.get_verbosity()
    # The fresh head is announced as an error by transformers; here it is always meant.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            directory,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
            **config,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterInvalid(f"base model in {directory} can't be loaded: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def _check_head(directory: Path, manifest: Manifest) -> None:
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise AdapterInvalid(
            f"{directory} has no {WEIGHTS}. Loracle loads safetensors only, never pickled weights."
        )
    try:
        with safe_open(weights, framework="pt") as file:
            heads = [key for key in file.keys() if any(f".{head}." in key for head in HEADS)]  # noqa: SIM118
            rows = [file.get_slice(key).get_shape()[0] for key in heads if key.endswith("weight")]
    except SafetensorError as error:
        raise AdapterInvalid(f"{weights} is no safetensors file: {error}.") from error
    if not heads or len(manifest.labels) not in rows:
        raise HeadMissing(
            f"{weights} holds no classification head for the {len(manifest.labels)} labels of its manifest: "
            "scores would come from random weights. Save the adapter with task_type SEQ_CLS."
        )


def _revision(directory: Path) -> str:
    # Only the hub's cache has revisions: …/snapshots/<commit>.
    return directory.name if directory.parent.name == "snapshots" else ""


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
    kept = {key: fields[key] for key in ("r", "lora_alpha", "lora_dropout", "target_modules")}
    if isinstance(kept["target_modules"], set):
        kept["target_modules"] = sorted(kept["target_modules"])
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]
