"""OpenVINO in place of torch on a CPU: what was converted once, kept on disk, and is checked at every load. Nothing
here imports torch, PEFT or transformers: they take seconds."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from worker.model.devices import TWO, cores, cpu_flags, cpu_title
from worker.model.encoding import encode, flat_ids
from worker.model.manifest import Manifest
from worker.model.probes import check_together
from worker.reviews import Backend

PRECISIONS = {"fp32": "f32", "bf16": "bf16", TWO: "f32"}
"""What OpenVINO calls the number formats that it computes in here. What is quantised says so in its model."""

_HEADER = struct.Struct("<qqqqd")
"""Of what is kept: the padding id, the lengths of the tokenizer, of the layers before the head and of the quantised
ones, and the margin of these."""

_FORMAT = "2"
"""Of what is kept."""

DIGEST_BYTES = hashlib.sha256().digest_size

ABANDONED_S = 600.0
"""So old, a file that was never finished belongs to a process that died."""

log = logging.getLogger(__name__)


def why_not(device: str, number_format: str) -> str:
    """Why OpenVINO can't compute on this device in this number format; "" if it can. Loads nothing large."""
    if device != "cpu":
        return f"openvino computes on a CPU, not on {device}"
    if importlib.util.find_spec("openvino") is None:
        return "openvino isn't installed (pip install 'loracle[openvino]')"
    if number_format not in PRECISIONS:
        return f"openvino computes in {', '.join(PRECISIONS)} here, not in {number_format}"
    if number_format == "bf16" and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this processor has no bf16 that openvino could use"
    return ""


class Compiled:
    """A model that OpenVINO has compiled, with its tokenizer.

    The head computes in fp32 whatever the layers before it do: rounded logits would move scores near 0.5.
    `padding_id` is what fills rows. With a `quantised` trunk that one is asked first, and the other one about each
    row whose two largest logits are nearer to each other than `margin`. Several threads may call it at once.
    """

    def __init__(
        self,
        trunk: Any,
        head: Any,
        tokenizer: Tokenizer,
        padding_id: int,
        *,
        quantised: Any = None,
        margin: float = 0.0,
    ) -> None:
        self._trunk = trunk
        self._head = head
        self._quantised = quantised
        self.margin = margin
        self._own = threading.local()
        self.tokenizer = tokenizer
        self.padding_id = padding_id

    @property
    def threads(self) -> int:
        """How many compute it."""
        return int(self._trunk.get_property("INFERENCE_NUM_THREADS"))

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (B, labels) for token ids (B, T) and their mask, which has 0 where there is no token."""
        if self._quantised is None:
            return self._logits(self._trunk, ids, mask)
        found = self._logits(self._quantised, ids, mask).copy()
        near = lead(found) < self.margin
        if near.any():
            ids, mask = ids[near], mask[near]
            longest = int(mask.sum(axis=1).max())
            found[near] = self._logits(self._trunk, ids[:, :longest], mask[:, :longest])
        return found

    def _logits(self, trunk: Any, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        # A list: a traced model doesn't keep the names of its inputs under every architecture.
        hidden = self._request(trunk).infer([ids, mask], share_outputs=True)[0]
        found: NDArray[np.float32] = self._request(self._head).infer([hidden])[0]
        return found

    def _request(self, model: Any) -> Any:
        """This thread's own place to compute a model in."""
        own: dict[int, Any] | None = getattr(self._own, "requests", None)
        if own is None:
            own = self._own.requests = {}
        if id(model) not in own:
            own[id(model)] = model.create_infer_request()
        return own[id(model)]

    def behind(self, quantised: Any, margin: float) -> Compiled:
        """The same, behind a quantised trunk."""
        return Compiled(
            self._trunk, self._head, self.tokenizer, self.padding_id, quantised=quantised, margin=margin
        )

    def export(self) -> bytes:
        """All of it, as `restore` reads it."""
        tokenizer: bytes = self.tokenizer.to_str().encode()
        trunk, quantised, head = (
            b"" if part is None else bytes(part.export_model().getvalue())
            for part in (self._trunk, self._quantised, self._head)
        )
        sizes = len(tokenizer), len(trunk), len(quantised)
        return _HEADER.pack(self.padding_id, *sizes, self.margin) + tokenizer + trunk + quantised + head


def lead(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """By how much the largest logit (N, labels) of each row is over the next one: (N,)."""
    ordered = np.sort(logits, axis=1)
    found: NDArray[np.float32] = ordered[:, -1] - ordered[:, -2]
    return found


class OpenVINOClassifier:
    """A verified adapter as OpenVINO computes it, on the CPU: each thread a micro-batch of its own.

    Threads that share one wait for each other after every product, and where another program has taken a core from
    one of them, all wait.

    Raises:
        BackendUnfit: it gives the probes other scores. It is then of no use.
    """

    backend: Backend = "openvino"
    why_torch = ""
    device_type = "cpu"
    padded = True

    def __init__(self, compiled: Compiled, manifest: Manifest, number_format: str) -> None:
        self.manifest = manifest
        self.number_format = number_format
        self.padding_id = compiled.padding_id
        self._compiled = compiled
        self._pool = ThreadPoolExecutor(compiled.threads, thread_name_prefix="openvino")
        # Who encodes doesn't get far ahead of who computes.
        self._room = threading.BoundedSemaphore(2 * compiled.threads)
        way, rough = f"openvino in {number_format}", number_format == TWO
        check_together(self, manifest, way, exact=number_format == "fp32", rough=rough)

    @property
    def at_once(self) -> int:
        """So many forward passes are computed side by side."""
        return self._compiled.threads

    @property
    def device_title(self) -> str:
        """The CPU, and how many threads compute."""
        return cpu_title(self._compiled.threads)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in input order."""
        return encode(self._compiled.tokenizer, texts, self.manifest.encoding)

    def forward(self, token_ids: Sequence[Sequence[int]]) -> Future[NDArray[np.float32]]:
        """One forward pass: logits (B, labels) before temperature, once they are computed."""
        self._room.acquire()
        return self._pool.submit(self._compute, token_ids)

    def fetch(self, computed: Sequence[Future[NDArray[np.float32]]]) -> NDArray[np.float64]:
        """All logits (N, labels) of these forward passes."""
        return np.concatenate([one.result() for one in computed]).astype(np.float64)

    def _compute(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        try:
            lengths = np.array([len(ids) for ids in token_ids])
            mask = np.arange(lengths.max()) < lengths[:, None]
            rows = np.full(mask.shape, self.padding_id, dtype=np.int64)
            rows[mask] = flat_ids(token_ids)
            return self._compiled(rows, mask.astype(np.int64))
        finally:
            self._room.release()

    def probe_logits(self, texts: Sequence[str], *, together: bool = False) -> list[list[float]]:
        """Logits of these texts: one by one, or together."""
        ids = self.encode(texts)
        parts = [ids] if together else [[each] for each in ids]
        found: list[list[float]] = self.fetch([self.forward(part) for part in parts]).tolist()
        return found


def restore(exported: bytes, number_format: str, *, threads: int | None = None) -> Compiled:
    """What `Compiled.export` gave; the base isn't needed for it.

    Raises:
        RuntimeError: OpenVINO or the tokenizer's library doesn't read it.
    """
    if len(exported) < _HEADER.size:
        raise RuntimeError("it is too short")
    padding_id, of_tokenizer, of_trunk, of_quantised, margin = _HEADER.unpack_from(exported)
    parts = io.BytesIO(exported[_HEADER.size :])
    try:
        tokenizer = Tokenizer.from_str(parts.read(of_tokenizer).decode())
    except Exception as error:
        # The library raises a bare Exception.
        raise RuntimeError(f"its tokenizer can't be read: {first_line(error)}") from error

    def read(size: int, precision: str) -> Any:
        return core().import_model(io.BytesIO(parts.read(size)), "CPU", properties(precision, threads))

    trunk = read(of_trunk, number_format)
    quantised = read(of_quantised, number_format) if of_quantised else None
    return Compiled(trunk, read(-1, "fp32"), tokenizer, padding_id, quantised=quantised, margin=margin)


@dataclass(frozen=True, slots=True)
class Kept:
    """The converted model of an adapter on disk, for one number format, processor and set of versions."""

    path: Path

    @classmethod
    def of(cls, manifest: Manifest, number_format: str, folder: Path) -> Kept:
        """Where it is, or will be. The manifest's hash covers the base's weights."""
        made_by = [
            _FORMAT,
            *(version(name) for name in ("openvino", "torch", "transformers", "tokenizers")),
            number_format,
            core().get_property("CPU", "FULL_DEVICE_NAME"),
            *sorted(cpu_flags()),
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


def library() -> Any:
    """OpenVINO's module."""
    # It reports its use to its makers as soon as it is imported, unless the package for that is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def core() -> Any:
    """What compiles models."""
    return library().Core()


def properties(number_format: str, threads: int | None) -> dict[str, Any]:
    """How a model is compiled; without `threads` as many compute as OMP_NUM_THREADS says, else one per core."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if threads is None:
        threads = int(given) if given.isdecimal() and int(given) else cores()
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[number_format],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        # Several children would all be pinned to the first cores.
        "ENABLE_CPU_PINNING": False,
    }


def first_line(error: Exception) -> str:
    """What it says, for a sentence."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
