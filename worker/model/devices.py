"""Which device and which number format a model runs in. Torch is loaded only where it is asked: that takes a second,
and what OpenVINO computes needs none of it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import DeviceUnavailable

if TYPE_CHECKING:
    import torch

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""The number formats, and what torch calls them."""
TWO = "int8+fp32"
"""Whole numbers of 8 bits, and fp32 once more for what they leave unsure: OpenVINO alone computes so."""
_GPU_FILES = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")
"""In /dev, where this machine has a GPU that torch may compute on."""


def is_cpu(name: str) -> bool:
    """Whether the device of this name is certainly the CPU; False where torch has to be asked."""
    if name != "auto":
        return name == "cpu"
    if not sys.platform.startswith("linux"):
        return False
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return hidden or not any(any(Path("/dev").glob(pattern)) for pattern in _GPU_FILES)


def choose_device(name: str = "auto") -> torch.device:
    """The device named "cpu", "cuda", "cuda:1" …; "auto" is the first CUDA device where there is one.

    Raises:
        DeviceUnavailable: CUDA was asked for and this process sees no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"there is no device '{name}'; allowed: auto, cpu, cuda, cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceUnavailable(f"device '{name}' isn't supported; allowed: auto, cpu, cuda, cuda:N.")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise DeviceUnavailable(
            f"device '{name}' was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices. Use cpu, or install a CUDA build of torch and a "
            f"driver."
        )
    return device


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The number format for scoring: bf16 where the device computes in it, fp16 on older GPUs, else fp32.

    Raises:
        DeviceUnavailable: torch has no such format.
    """
    import torch

    if name == TWO:
        raise DeviceUnavailable(
            f"{TWO} is computed by openvino on a CPU (LORACLE_BACKEND, LORACLE_DEVICE), not by torch on {device}."
        )
    if name == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    found: torch.dtype = getattr(torch, DTYPES[number_format(name)])
    return found


def number_format(name: str = "auto") -> str:
    """The short name of the number format for scoring on a CPU: bf16 where it computes in that, else fp32.

    Raises:
        DeviceUnavailable: there is no such format.
    """
    if name in DTYPES or name == TWO:
        return name
    if name != "auto":
        raise DeviceUnavailable(
            f"there is no number format '{name}'; allowed: auto, {', '.join([*DTYPES, TWO])}."
        )
    return "bf16" if {"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags() else "fp32"


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor can do, by the names of Linux; where that isn't the kernel, what torch says."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(flags.split())
    import torch

    return frozenset(name for name, found in torch.cpu.get_capabilities().items() if found is True)


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory didn't suffice, the host's or the device's."""
    # The CPU's allocator and a CUDA context without room raise errors that only their text tells apart.
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in said
        or "allocate memory" in said
        or "not enough memory" in said
    )


def dtype_name(dtype: torch.dtype) -> str:
    """The number format's short name: "bf16", "fp16" or "fp32"."""
    return next(name for name, known in DTYPES.items() if str(dtype) == f"torch.{known}")


def device_title(device: torch.device) -> str:
    """The device for people: "cpu (2 threads)" or "cuda:0 NVIDIA H200"."""
    import torch

    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return cpu_title(torch.get_num_threads())


def cpu_title(threads: int) -> str:
    """The CPU for people."""
    return f"cpu ({threads} threads)"


@dataclass(frozen=True, slots=True)
class Build:
    """This torch: its version, the CUDA it was built for (None: it knows only the CPU), the GPUs that it sees."""

    version: str
    cuda: str | None
    gpus: int


def torch_build() -> Build:
    """What torch can compute on."""
    import torch

    return Build(str(torch.__version__), torch.version.cuda, torch.cuda.device_count())
