"""OpenVINO in place of torch on a CPU: a merged model is converted once, kept on disk, and checked at every load."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import struct
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.jit._trace import TracerWarning

from worker.errors import BackendUnfit
from worker.model.devices import dtype_name, out_of_memory
from worker.model.manifest import Manifest
from worker.model.pretrained import HEADS, head_of

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What OpenVINO calls the number formats that it computes in here."""

_HEADER = struct.Struct("<qqq")
"""Of what is kept: the padding id, and the lengths of the tokenizer and of the layers before the head."""

DIGEST_BYTES = hashlib.sha256().digest_size

ABANDONED_S = 600.0
"""So old, a file that was never finished belongs to a process that died."""

log = logging.getLogger(__name__)


def why_not(device: torch.device, dtype: torch.dtype) -> str:
    """Why OpenVINO can't compute on this device in this number format; "" if it can. Loads nothing large."""
    if device.type != "cpu":
        return f"openvino computes on a CPU, not on {device}"
    if importlib.util.find_spec("openvino") is None:
        return "openvino isn't installed (pip install 'loracle[openvino]')"
    if dtype not in PRECISIONS:
        return f"openvino computes in fp32 or bf16 here, not in {dtype_name(dtype)}"
    if dtype == torch.bfloat16 and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this processor has no bf16 that openvino could use"
    return ""


@dataclass(frozen=True, slots=True)
class Logits:
    """What a model answers: (B, labels)."""

    logits: torch.Tensor


class CompiledClassifier:
    """A sequence classifier that runs in OpenVINO, with its tokenizer; it is called like the torch model.

    The head computes in fp32 whatever the layers before it do: rounded logits would move scores near 0.5.
    `padding_id` is what fills rows.
    """

    def __init__(self, trunk: Any, head: Any, tokenizer: Tokenizer, padding_id: int) -> None:
        self._trunk = trunk
        self._head = head
        self.tokenizer = tokenizer
        self.padding_id = padding_id

    def __call__(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Logits:
        """Logits (B, labels) for token ids (B, T) and their mask, which has 0 where there is no token."""
        # A list: a traced model doesn't keep the names of its inputs under every architecture.
        found = self._trunk([input_ids.numpy(), attention_mask.numpy()])[0]
        return Logits(torch.from_numpy(self._head([found])[0]))

    def export(self) -> bytes:
        """All of it, as `restore` reads it."""
        tokenizer: bytes = self.tokenizer.to_str().encode()
        trunk, head = (bytes(part.export_model().getvalue()) for part in (self._trunk, self._head))
        return _HEADER.pack(self.padding_id, len(tokenizer), len(trunk)) + tokenizer + trunk + head


def convert(model: Any, dtype: torch.dtype, tokenizer: Tokenizer, padding_id: int) -> CompiledClassifier:
    """A merged torch model in fp32, converted. It stays as it was.

    Raises:
        BackendUnfit: OpenVINO can't take this architecture.
    """
    openvino = _openvino()
    # Two rows of which one is padded: what a tracer sees only once, it takes for a constant.
    ids = torch.tensor([[3, 4, 5], [3, 4, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    try:
        with _quiet(), _without_head(model) as torch_head, torch.no_grad():
            torch_trunk = _Trunk(model)
            parts = [
                openvino.convert_model(_traced(part, example), example_input=example)
                for part, example in ((torch_trunk, (ids, mask)), (torch_head, (torch_trunk(ids, mask),)))
            ]
        trunk, head = (
            _core().compile_model(part, "CPU", _properties(precision))
            for part, precision in zip(parts, (dtype, torch.float32), strict=True)
        )
    except Exception as error:
        # The tracer and the converter raise whatever the architecture makes them raise.
        if out_of_memory(error):
            raise
        raise BackendUnfit(f"openvino can't convert {type(model).__name__}: {_first_line(error)}") from error
    return CompiledClassifier(trunk, head, tokenizer, padding_id)


def _traced(part: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # torch would trace a second time to see whether that gives the same; here the probes say so.
    return TorchScriptPythonDecoder(part, example_input=example, trace_kwargs={"check_trace": False})


def restore(exported: bytes, dtype: torch.dtype) -> CompiledClassifier:
    """What `CompiledClassifier.export` gave. Neither the base nor PEFT nor transformers is needed for it.

    Raises:
        RuntimeError: OpenVINO or the tokenizer's library doesn't read it.
    """
    if len(exported) < _HEADER.size:
        raise RuntimeError("it is too short")
    padding_id, of_tokenizer, of_trunk = _HEADER.unpack_from(exported)
    parts = io.BytesIO(exported[_HEADER.size :])
    try:
        tokenizer = Tokenizer.from_str(parts.read(of_tokenizer).decode())
    except Exception as error:
        # The library raises a bare Exception.
        raise RuntimeError(f"its tokenizer can't be read: {_first_line(error)}") from error
    trunk, head = (
        _core().import_model(io.BytesIO(part), "CPU", _properties(precision))
        for part, precision in ((parts.read(of_trunk), dtype), (parts.read(), torch.float32))
    )
    return CompiledClassifier(trunk, head, tokenizer, padding_id)


@dataclass(frozen=True, slots=True)
class Kept:
    """The converted model of an adapter on disk, for one number format, processor and set of versions."""

    path: Path

    @classmethod
    def of(cls, manifest: Manifest, dtype: torch.dtype, folder: Path) -> Kept:
        """Where it is, or will be. The manifest's hash covers the base's weights."""
        made_by = [
            *(version(name) for name in ("openvino", "torch", "transformers", "tokenizers")),
            dtype_name(dtype),
            _core().get_property("CPU", "FULL_DEVICE_NAME"),
            *(f"{name} {value}" for name, value in sorted(torch.cpu.get_capabilities().items())),
        ]
        key = hashlib.sha256("\n".join(made_by).encode()).hexdigest()
        return cls(folder / f"{manifest.sha256[:16]}-{key[:16]}.openvino")

    def read(self) -> bytes | None:
        """What was kept; None where there are none, or where the file isn't as it was written."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("The converted model %s can't be read: %s. It is made anew.", self.path, error)
            return None
        digest, exported = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(exported).digest() != digest:
            log.warning("The converted model %s is broken: it is made anew.", self.path)
            return None
        return exported

    def write(self, exported: bytes) -> None:
        """Puts it there, whole or not at all, in place of all others of the same adapter.

        Several processes may do it at once: the last one wins, and each of them wrote a sound file.
        """
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(hashlib.sha256(exported).digest() + exported)
            partial.replace(self.path)
            self._remove_others()
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            log.warning(
                "The converted model can't be kept in %s: %s. Every start converts it again, which takes seconds.",
                self.path.parent,
                error,
            )

    def _remove_others(self) -> None:
        adapter = self.path.name.partition("-")[0]
        for other in self.path.parent.glob(f"{adapter}-*"):
            unfinished = other.suffix == ".partial"
            with contextlib.suppress(FileNotFoundError):
                if unfinished and time.time() - other.stat().st_mtime < ABANDONED_S:
                    continue
                if other != self.path:
                    other.unlink()


class _Trunk(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


@contextlib.contextmanager
def _without_head(model: Any) -> Iterator[torch.nn.Module]:
    """While entered, the model's logits are what its head would get. Yields the head."""
    head = head_of(model)
    name = next(name for name in HEADS if getattr(model, name, None) is head)
    setattr(model, name, torch.nn.Identity())
    try:
        yield head
    finally:
        setattr(model, name, head)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what is known to be said while a model is traced, and means nothing here, from the user."""
    from transformers import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    # The tracer looks at every property of the model, and one of them announces a loss that nobody asked for.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            # OpenVINO traces, which torch would like to be exported; its own way through torch.export takes longer.
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            # Branches that are fixed by tracing show in the probes, which are scored alone and as a batch.
            warnings.filterwarnings("ignore", category=TracerWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _openvino() -> Any:
    # It reports its use to its makers as soon as it is imported, unless the package for that is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _core() -> Any:
    return _openvino().Core()


def _properties(dtype: torch.dtype) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # Several children would all be pinned to the first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
