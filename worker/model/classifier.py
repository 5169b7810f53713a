"""Base model and adapter together: create, save, load, verify, forward."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from worker.errors import AdapterInvalid, AdapterUnsaved, BackendUnfit, DeviceBroken, ProbesDiffer
from worker.model.bases import compared, find_base, weights_sha256
from worker.model.devices import device_title, dtype_name
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
from worker.model.probes import PROBES, check_together, difference
from worker.model.scaling import UNSCALED, Scaling
from worker.reviews import Backend

if TYPE_CHECKING:
    from peft import LoraConfig

    from worker.model.packed import PackedClassifier

log = logging.getLogger(__name__)


class Classifier:
    """A sequence classifier with its tokenizer and encoding, on one device.

    `manifest` is None while an adapter is being trained. `why_torch` says why OpenVINO doesn't compute it, where that
    was tried. `packed` is how it computes without padding, where it does.
    """

    backend: Backend = "torch"
    at_once = 1

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
        self.why_torch = ""
        self.packed: PackedClassifier | None = None
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
        cls, directory: Path, *, device: torch.device, dtype: torch.dtype, base_id: str | None = None
    ) -> Classifier:
        """A verified adapter, merged into its base and ready to score.

        The hashes of all files and of the base are compared with the manifest, then the probes: in fp32
        before merging (logits within 1e-3) and on the device after merging and the cast (probabilities within
        0.02). On CUDA reviews aren't padded where the model's family and the number format allow it and the
        probes get their scores that way. `base_id` names another place for the same base, say a local directory.

        Raises:
            AdapterInvalid: one of its subclasses names what is wrong with the adapter.
            HostUnfit: one of its subclasses names what this host lacks.
        """
        classifier = cls.merged(directory, base_id)
        classifier.place(device, dtype)
        return classifier

    @classmethod
    def merged(cls, directory: Path, base_id: str | None) -> Classifier:
        """A verified adapter, merged into its base in fp32 on the CPU. Raises as `load` does."""
        classifier = cls._verified(directory, base_id)
        classifier.model = classifier.model.merge_and_unload()
        classifier.model.eval()
        return classifier

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves a merged model to where it scores, and checks its probes there.

        Raises:
            ProbesDiffer: they get other scores.
        """
        self._cast(device, dtype)
        if device.type == "cuda":
            from worker.model.packed import FLASH_DTYPES

            if dtype in FLASH_DTYPES:
                self.use_packed()
        self._check_probes(merged=True)

    @classmethod
    def resume(cls, directory: Path) -> Classifier:
        """A verified adapter on its base, in fp32 on the CPU, to be trained on.

        Raises:
            AdapterInvalid: one of its subclasses names what is wrong with the adapter.
            HostUnfit: one of its subclasses names what this host lacks.
        """
        return cls._verified(directory, None, is_trainable=True)

    @classmethod
    def _verified(cls, directory: Path, base_id: str | None, *, is_trainable: bool = False) -> Classifier:
        """The adapter on its base, not merged: its files, its base and its probes are as its manifest says."""
        from worker.model.lora import check_weights, with_adapter

        manifest, base_directory = compared(directory, base_id)
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
                    for text, row in zip(PROBES, self.probe_logits(PROBES), strict=True)
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

    @property
    def device_type(self) -> str:
        """ "cpu" or "cuda"."""
        return self.device.type

    @property
    def device_title(self) -> str:
        """The device for people."""
        return device_title(self.device)

    @property
    def number_format(self) -> str:
        """What it computes in: "bf16", "fp16" or "fp32"."""
        return dtype_name(self.dtype)

    @property
    def padded(self) -> bool:
        """Whether the reviews of a forward pass are padded to the longest."""
        return self.packed is None

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

    def forward(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor | None:
        """As `logits`, to score with: None where the device's memory doesn't suffice.

        Raises:
            DeviceBroken: the device fails.
        """
        try:
            with torch.inference_mode(), self._breaking():
                return self.logits(token_ids)
        except torch.OutOfMemoryError:
            # Nothing can be freed here: the exception's frames still hold the tensors.
            pass
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def fetch(self, computed: Sequence[torch.Tensor]) -> NDArray[np.float64]:
        """All logits (N, labels) of these forward passes, on the host. This one copy waits for the device.

        Raises:
            DeviceBroken: the device has failed; it shows here at the latest.
        """
        with self._breaking():
            found: NDArray[np.float64] = torch.cat(list(computed)).cpu().double().numpy()
        return found

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        # What the device does wrong is DeviceBroken, but for its memory.
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if breaks_device(self.device, error):
                reason = str(error).partition("\n")[0]
                raise DeviceBroken(f"{self.device} failed: {reason}") from error
            raise

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
                assert self.manifest is not None
                way = f"packed in {self.number_format}"
                check_together(self, self.manifest, way, exact=self.dtype == torch.float32)
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

    def probe_logits(self, texts: Sequence[str], *, together: bool = False) -> list[list[float]]:
        """Logits of these texts: one by one, or together."""
        ids = self.encode(texts)
        with torch.inference_mode():
            if together:
                return self.logits(ids).tolist()
            return [self.logits([each])[0].tolist() for each in ids]

    def _check_probes(self, *, merged: bool) -> None:
        assert self.manifest is not None
        manifest = self.manifest
        found, limit = difference(self, manifest, exact=not merged)
        if not found <= limit:
            what = f"probabilities in {self.dtype} on {self.device}" if merged else "logits in fp32"
            raise ProbesDiffer(
                f"adapter '{manifest.name}' gives its probe sentences other {what} than when it was made "
                f"(by {found:.2g}, allowed {limit:g}): tokenizer, base or library don't fit it. "
                f"Train it again "
                f"with the versions installed here, or install those it was trained with."
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


def breaks_device(device: torch.device, error: BaseException) -> bool:
    """Whether this error is the device's."""
    return device.type == "cuda" or isinstance(error, torch.AcceleratorError)


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
