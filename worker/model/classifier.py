"""Base model and adapter together: create, save, load, verify, forward."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from worker.errors import AdapterInvalid, AdapterUnsaved, BackendUnfit, BaseMismatch, ProbesDiffer
from worker.model import openvino
from worker.model.bases import find_base, weights_sha256
from worker.model.devices import dtype_name, out_of_memory
from worker.model.encoding import Encoding, encode, flat_ids
from worker.model.manifest import MANIFEST, Base, Manifest, Probe, file_sha256
from worker.model.pretrained import (
    HEADS,
    check_targets,
    head_of,
    load_pretrained,
    load_tokenizer,
    padding_id,
    position_limit,
)
from worker.model.scaling import UNSCALED, Scaling
from worker.reviews import Backend

# PEFT and transformers take longer to import than a kept conversion takes to load, which needs neither.
if TYPE_CHECKING:
    from peft import LoraConfig

    from worker.model.packed import PackedClassifier

PROBES = (
    "An absolute delight from the first minute to the last.",
    "Two hours of my life that I will never get back.",
    "The story drags in places, but the ending makes up for all of it.",
    "Broke after a week, and nobody answered my letters.",
    "It is what it is.",
)
PROBE_LOGIT_TOLERANCE = 1e-3
PROBE_PROBABILITY_TOLERANCE = 0.02

CHOICE = "LORACLE_BACKEND, or --backend where a command has it"

log = logging.getLogger(__name__)


class Classifier:
    """A sequence classifier with its tokenizer and encoding, on one device.

    `manifest` is None while an adapter is being trained. `backend` computes it, and `why_torch` says why that isn't
    OpenVINO, where it was tried. `packed` is how it computes without padding, where it does.
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
        self.backend: Backend = "torch"
        self.why_torch = ""
        self.packed: PackedClassifier | None = None
        if isinstance(model, openvino.CompiledClassifier):
            self.padding_id = model.padding_id
            return
        limit = position_limit(model)
        if limit is not None and encoding.max_length > limit:
            raise AdapterInvalid(f"{base.id} reads at most {limit} tokens, not {encoding.max_length}.")
        self.padding_id = padding_id(model, tokenizer)
        # Classifiers of decoders find the last token with it.
        model.config.pad_token_id = self.padding_id

    @classmethod
    def create(
        cls,
        base_id: str,
        labels: Sequence[str],
        encoding: Encoding,
        lora: LoraConfig | None,
        *,
        dropout: bool = False,
    ) -> Classifier:
        """A base model with a fresh adapter and head, in fp32 on the CPU; without `lora`, for full fine-tuning.

        Everything that the base's own weights lack is trained and saved with the adapter, not the head alone:
        DistilBERT, say, has a layer before its head that is just as random. `dropout` keeps the base's own.

        Raises:
            BaseNotFound: the base model is nowhere to be found.
            TrainingInvalid: the base lacks a module that the adapter targets.
            BaseUnloadable: the base can't be loaded.
            AdapterInvalid: the base can't read that many tokens.
        """
        directory = find_base(base_id)
        # A directory is noted by its whole path: the adapter may be loaded from anywhere.
        named = str(Path(base_id).resolve()) if Path(base_id).is_dir() else base_id
        base = Base(id=named, revision=_revision(directory), weights_sha256=weights_sha256(directory))
        pretrained = load_pretrained(directory, labels, dropout=dropout)
        classifier = cls(pretrained.model, load_tokenizer(directory), labels, encoding, base)
        if lora is not None:
            from worker.model.lora import new_adapter

            check_targets(pretrained.model, lora.target_modules or (), base_id)
            # PEFT adds the heads by itself.
            lora.modules_to_save = [name for name in pretrained.fresh_modules if name not in HEADS] or None
            classifier.model = new_adapter(pretrained.model, lora)
        return classifier

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        base_id: str | None = None,
        backend: Backend = "torch",
        converted: Path | None = None,
    ) -> Classifier:
        """A verified adapter, merged into its base and ready to score.

        The hashes of all files and of the base are compared with the manifest, then the probes: in fp32
        before merging (logits within 1e-3) and on the device after merging and the cast (probabilities within
        0.02; OpenVINO's logits in fp32 within 1e-3). On CUDA reviews aren't padded where the model's family and the
        number format allow it and the probes get their scores that way. `base_id` names another place for the same
        base, say a local directory. The `backend` auto is OpenVINO on a CPU where it can be had and gives the probes
        their scores, else torch. The folder `converted` keeps what OpenVINO makes of the model; what is kept there is
        loaded without the base, whose hash is compared all the same, and need only give the probes their scores.

        Raises:
            AdapterInvalid: one of its subclasses names what is wrong with the adapter.
            HostUnfit: one of its subclasses names what this host lacks.
        """
        if backend == "auto" and device.type != "cpu":
            backend = "torch"
        why_torch = "" if backend == "torch" else openvino.why_not(device, dtype)
        if backend == "openvino" and why_torch:
            raise BackendUnfit(f"{why_torch}. Mend that, or choose the back end torch ({CHOICE}).")
        kept = None
        if backend != "torch" and not why_torch and converted is not None:
            kept = openvino.Kept.of(Manifest.read(directory), dtype, converted)
            if (found := cls._restored(directory, base_id, dtype, kept)) is not None:
                return found
        classifier = cls._verified(directory, base_id)
        classifier.model = classifier.model.merge_and_unload()
        classifier.model.eval()
        if backend != "torch" and not why_torch:
            merged = classifier.model
            try:
                backend_tokenizer = classifier.tokenizer.backend_tokenizer
                converted_model = openvino.convert(merged, dtype, backend_tokenizer, classifier.padding_id)
                classifier._use_openvino(converted_model, dtype)
                if kept is not None:
                    kept.write(classifier.model.export())
                return classifier
            except BackendUnfit as error:
                if backend == "openvino":
                    raise BackendUnfit(f"{error}. The back end torch may do ({CHOICE}).") from error
                why_torch = str(error)
            classifier.model, classifier.backend = merged, "torch"
        classifier.why_torch = why_torch
        classifier._cast(device, dtype)
        if device.type == "cuda":
            from worker.model.packed import FLASH_DTYPES

            if dtype in FLASH_DTYPES:
                classifier.use_packed()
        classifier._check_probes(merged=True)
        return classifier

    @classmethod
    def resume(cls, directory: Path) -> Classifier:
        """A verified adapter on its base, in fp32 on the CPU, to be trained on.

        Raises:
            AdapterInvalid: one of its subclasses names what is wrong with the adapter.
            HostUnfit: one of its subclasses names what this host lacks.
        """
        return cls._verified(directory, None, is_trainable=True)

    @classmethod
    def _restored(
        cls, directory: Path, base_id: str | None, dtype: torch.dtype, kept: openvino.Kept
    ) -> Classifier | None:
        """The adapter as OpenVINO's kept conversion computes it; None where there is none that is sound."""
        exported = kept.read()
        if exported is None:
            return None
        manifest, _ = _compared(directory, base_id)
        try:
            model = openvino.restore(exported, dtype)
            classifier = cls(model, model.tokenizer, manifest.labels, manifest.encoding, manifest.base)
            classifier.manifest = manifest
            classifier._use_openvino(model, dtype)
        except (RuntimeError, BackendUnfit) as error:
            log.warning("The converted model of adapter '%s' is made anew: %s", manifest.name, error)
            return None
        return classifier

    @classmethod
    def _verified(cls, directory: Path, base_id: str | None, *, is_trainable: bool = False) -> Classifier:
        """The adapter on its base, not merged: its files, its base and its probes are as its manifest says."""
        from worker.model.lora import check_weights, with_adapter

        manifest, base_directory = _compared(directory, base_id)
        pretrained = load_pretrained(base_directory, manifest.labels)
        check_weights(directory, manifest.labels, pretrained.fresh)
        tokenizer = load_tokenizer(directory)
        classifier = cls(pretrained.model, tokenizer, manifest.labels, manifest.encoding, manifest.base)
        classifier.manifest = manifest
        classifier.model = with_adapter(pretrained.model, directory, is_trainable=is_trainable)
        classifier.model.eval()
        classifier._check_probes(merged=False)
        return classifier

    def save(
        self,
        directory: Path,
        *,
        name: str,
        training: dict[str, Any],
        metrics: dict[str, Any],
        scaling: Scaling = UNSCALED,
        languages: tuple[str, ...] = (),
    ) -> Manifest:
        """Writes the adapter directory: PEFT's files, the tokenizer, and the manifest last.

        It is written under another name and renamed, so it is there whole or not at all; an adapter that was
        there is replaced.

        Raises:
            AdapterUnsaved: the disk doesn't take it.
        """
        directory = directory.absolute()
        partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            self._write_files(partial)
            manifest = Manifest(
                name=name,
                base=self.base,
                labels=self.labels,
                encoding=self.encoding,
                files={path.name: file_sha256(path) for path in sorted(partial.iterdir())},
                probes=tuple(
                    Probe(text, tuple(round(value, 6) for value in row))
                    for text, row in zip(PROBES, self._probe_logits(PROBES), strict=True)
                ),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                temperature=scaling.temperature,
                exponent=scaling.exponent,
                training=training,
                metrics=metrics,
                languages=languages,
            )
            (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            _replace(directory, partial)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise AdapterUnsaved(
                f"adapter '{name}' can't be written to {directory}: {error}. Make room, or mend the directory, "
                "and give the same command again."
            ) from error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return manifest

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in input order."""
        return encode(self.tokenizer, texts, self.encoding)

    def logits(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """One forward pass: (B, labels) in fp32 on the model's device, before temperature."""
        if self.packed is not None:
            return self.packed(token_ids).float()
        lengths = torch.tensor([len(ids) for ids in token_ids])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        rows = torch.full(mask.shape, self.padding_id)
        rows[mask] = torch.from_numpy(flat_ids(token_ids))
        mask = mask.long()
        if self.device.type == "cuda":
            # Only copies from pinned memory run beside the computation.
            rows, mask = rows.pin_memory(), mask.pin_memory()
        output = self.model(
            input_ids=rows.to(self.device, non_blocking=True),
            attention_mask=mask.to(self.device, non_blocking=True),
        )
        return output.logits.float()  # type: ignore[no-any-return]

    def use_packed(self) -> None:
        """Computes without padding from now on, if the model's family is known and its probes get their scores.

        On CUDA its layers are fused as well, if the probes get their scores so.
        """
        from worker.model.packed import PackedClassifier

        if not PackedClassifier.knows(self.model):
            return
        for fused in (True, False) if self.device.type == "cuda" else (False,):
            self.packed = PackedClassifier(self.model, fused=fused)
            try:
                self._check_together(f"packed in {dtype_name(self.dtype)}")
                return
            except BackendUnfit as error:
                lost = "Layers aren't fused" if fused else "Reviews are padded"
                log.warning("%s: %s.", lost, error)
                self.packed.unpack()
                self.packed = None

    def to(self, device: torch.device) -> None:
        """Moves the model; micro-batches follow."""
        self.model.to(device)
        self.device = device

    def _write_files(self, directory: Path) -> None:
        self.model.eval()
        self.model.peft_config["default"].base_model_name_or_path = self.base.id
        # Embeddings are never adapted; left to find that out, PEFT asks the hub and warns where it can't be
        # reached.
        self.model.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)
        self.tokenizer.save_pretrained(directory)
        (directory / "README.md").unlink(missing_ok=True)

    def _probe_logits(self, texts: Sequence[str], *, together: bool = False) -> list[list[float]]:
        # One by one, unless padding is to have a part in what a probe says.
        ids = self.encode(texts)
        with torch.inference_mode():
            if together:
                return self.logits(ids).tolist()
            return [self.logits([each])[0].tolist() for each in ids]

    def _probe_difference(self, *, exact: bool, together: bool = False) -> tuple[float, float]:
        """How far the probes' logits, or else probabilities, are from the manifest's at most; how far they may be."""
        assert self.manifest is not None
        probes = self.manifest.probes
        found = torch.tensor(self._probe_logits([probe.text for probe in probes], together=together))
        expected = torch.tensor([probe.logits for probe in probes])
        if not exact:
            found, expected = found.softmax(-1), expected.softmax(-1)
        limit = PROBE_LOGIT_TOLERANCE if exact else PROBE_PROBABILITY_TOLERANCE
        return (found - expected).abs().max().item(), limit

    def _check_probes(self, *, merged: bool) -> None:
        assert self.manifest is not None
        manifest = self.manifest
        difference, limit = self._probe_difference(exact=not merged)
        if not difference <= limit:
            what = f"probabilities in {self.dtype} on {self.device}" if merged else "logits in fp32"
            raise ProbesDiffer(
                f"adapter '{manifest.name}' gives its probe sentences other {what} than when it was made "
                f"(by {difference:.2g}, allowed {limit:g}): tokenizer, base or library don't fit it. "
                f"Train it again "
                f"with the versions installed here, or install those it was trained with."
            )

    def _use_openvino(self, model: openvino.CompiledClassifier, dtype: torch.dtype) -> None:
        """Computes with this model from now on.

        Raises:
            BackendUnfit: it gives the probes other scores. It is then of no use.
        """
        self.model, self.backend, self.dtype = model, "openvino", dtype
        self._check_together(f"openvino in {dtype_name(dtype)}")

    def _check_together(self, way: str) -> None:
        """The probes alone and as a batch: a traced model may have taken a shape or an empty mask for a constant, and
        what is packed may look at its neighbours.

        Raises:
            BackendUnfit: they get other scores in this `way`.
        """
        for together in (False, True):
            try:
                difference, limit = self._probe_difference(
                    exact=self.dtype == torch.float32, together=together
                )
            except (RuntimeError, OSError) as error:
                if out_of_memory(error):
                    raise
                raise BackendUnfit(f"{way} fails with the probe sentences: {error}") from error
            if not difference <= limit:
                raise BackendUnfit(
                    f"{way} gives the probe sentences other scores (by {difference:.2g}, allowed {limit:g})"
                )

    def _cast(self, device: torch.device, dtype: torch.dtype) -> None:
        self.model.to(device=device, dtype=dtype)
        self.device, self.dtype = device, dtype
        # The head stays in fp32: it costs nothing, and rounding logits would move scores near 0.5.
        head = head_of(self.model).float()
        for module in head.modules():
            if next(module.parameters(recurse=False), None) is not None:
                # On the layers, not on the head: RoBERTa's is handed all tokens and picks the first.
                module.register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))
        self.model.eval()


def _compared(directory: Path, base_id: str | None) -> tuple[Manifest, Path]:
    """The manifest of an adapter and the directory of its base, after a look at the hashes of both."""
    manifest = Manifest.read(directory)
    manifest.verify_files(directory)
    if not manifest.probes:
        raise AdapterInvalid(f"adapter '{manifest.name}' has no probes, so it can't be verified.")
    base_directory = find_base(base_id or manifest.base.id, "" if base_id else manifest.base.revision)
    found = weights_sha256(base_directory)
    if found != manifest.base.weights_sha256:
        raise BaseMismatch(
            f"adapter '{manifest.name}' was trained on {manifest.base.id} with weights sha256 "
            f"{manifest.base.weights_sha256[:12]}…, but {base_directory} has {found[:12]}…. "
            "Provide the base it was trained on, if need be with LORACLE_BASE_MODEL."
        )
    return manifest, base_directory


def _replace(directory: Path, partial: Path) -> None:
    # A directory can't be renamed over one that holds files.
    if not directory.exists():
        partial.rename(directory)
        return
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old)


def _revision(directory: Path) -> str:
    # Only the hub's cache has revisions: …/snapshots/<commit>.
    return directory.name if directory.parent.name == "snapshots" else ""
