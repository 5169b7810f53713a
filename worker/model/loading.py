"""An adapter, ready to score, by whatever computes it best here."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import BackendUnfit, DeviceBroken, HostUnfit
from worker.model import openvino
from worker.model.bases import compared
from worker.model.devices import (
    DTYPES,
    TWO,
    choose_device,
    choose_dtype,
    dtype_name,
    is_cpu,
    number_format,
    out_of_memory,
)
from worker.model.manifest import Manifest
from worker.model.openvino import OpenVINOClassifier
from worker.reviews import Backend

if TYPE_CHECKING:
    from worker.model.classifier import Classifier

CHOICE = "LORACLE_BACKEND, or --backend where a command has it"

log = logging.getLogger(__name__)


def load_classifier(
    directory: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    base_id: str | None = None,
    backend: Backend = "torch",
    converted: Path | None = None,
) -> Classifier | OpenVINOClassifier:
    """A verified adapter, ready to score. `threads` is for the whole process.

    The `backend` auto is OpenVINO on a CPU where it can be had and gives the probes their scores (logits in fp32
    within 1e-3), else torch. The folder `converted` keeps what OpenVINO makes of the model; what is kept there is
    loaded without the base, whose hash is compared all the same, and need only give the probes their scores.
    `base_id` names another place for the same base, say a local directory.

    Raises:
        AdapterInvalid: one of its subclasses names what is wrong with the adapter.
        HostUnfit: this host has no such device, back end or base, or no memory for the model.
        DeviceBroken: the device fails.
    """
    if threads is not None:
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    # Unset, the tokenizer warns in every child process. It reads this in native code, so it is set before first use.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if backend != "torch" and converted is not None and is_cpu(device) and dtype in ("auto", TWO, *DTYPES):
        found = _restored(directory, base_id, number_format(dtype), converted, threads)
        if found is not None:
            return found
    return _made(directory, device, dtype, threads, base_id, backend, converted)


def _restored(
    directory: Path, base_id: str | None, number: str, converted: Path, threads: int | None
) -> OpenVINOClassifier | None:
    """The adapter as OpenVINO's kept conversion computes it; None where there is none that is sound."""
    if openvino.why_not("cpu", number):
        return None
    exported = openvino.Kept.of(Manifest.read(directory), number, converted).read()
    if exported is None:
        return None
    manifest, _ = compared(directory, base_id)
    try:
        return OpenVINOClassifier(openvino.restore(exported, number, threads=threads), manifest, number)
    except (RuntimeError, MemoryError, BackendUnfit) as error:
        log.warning("The converted model of adapter '%s' is made anew: %s", manifest.name, error)
        return None


def _made(
    directory: Path,
    device: str,
    dtype: str,
    threads: int | None,
    base_id: str | None,
    backend: Backend,
    converted: Path | None,
) -> Classifier | OpenVINOClassifier:
    """The adapter by torch, or converted from what torch has loaded."""
    import torch

    from worker.model.classifier import Classifier, breaks_device

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    two = dtype == TWO and chosen.type == "cpu" and backend != "torch"
    chosen_dtype = torch.float32 if two else choose_dtype(chosen, dtype)
    number = TWO if two else dtype_name(chosen_dtype)
    if backend == "auto" and chosen.type != "cpu":
        backend = "torch"
    why_torch = "" if backend == "torch" else openvino.why_not(str(chosen), number)
    other = "LORACLE_DTYPE=auto" if two else f"the back end torch ({CHOICE})"
    if why_torch and (two or backend == "openvino"):
        raise BackendUnfit(f"{why_torch}. Mend that, or choose {other}.")
    try:
        classifier = Classifier.merged(directory, base_id)
        if backend != "torch" and not why_torch:
            try:
                return _converted(classifier, number, converted, threads)
            except BackendUnfit as error:
                if two or backend == "openvino":
                    raise BackendUnfit(f"{error}. Mend that, or choose {other}.") from error
                why_torch = str(error)
        classifier.why_torch = why_torch
        classifier.place(chosen, chosen_dtype)
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if out_of_memory(error):
            raise HostUnfit(
                f"there is no memory on {chosen} for the adapter in {directory}: {reason}. End other programs "
                "that use it, or start the worker with fewer --children."
            ) from error
        if breaks_device(chosen, error):
            raise DeviceBroken(
                f"{chosen} failed while loading the adapter in {directory}: {reason}"
            ) from error
        raise
    return classifier


def _converted(
    classifier: Classifier, number: str, converted: Path | None, threads: int | None
) -> OpenVINOClassifier:
    from worker.model.converting import convert

    manifest = classifier.manifest
    assert manifest is not None
    tokenizer = classifier.tokenizer.backend_tokenizer
    compiled = convert(
        classifier.model,
        number,
        tokenizer,
        classifier.padding_id,
        encoding=manifest.encoding,
        threads=threads,
    )
    found = OpenVINOClassifier(compiled, manifest, number)
    if converted is not None:
        openvino.Kept.of(manifest, number, converted).write(compiled.export())
    return found
