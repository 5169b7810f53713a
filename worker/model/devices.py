"""Which device and which number format a model runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.errors import DeviceUnavailable

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str = "auto") -> torch.device:
    """The device named "cpu", "cuda", "cuda:1" …; "auto" is the first CUDA device where there is one.

    Raises:
        DeviceUnavailable: CUDA was asked for and this process sees no such device.
    """
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
        DeviceUnavailable: there is no such format.
    """
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise DeviceUnavailable(f"there is no number format '{name}'; allowed: auto, {', '.join(DTYPES)}.")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return torch.bfloat16 if native else torch.float32


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory didn't suffice, the host's or the device's."""
    # The CPU's allocator and a CUDA context without room raise errors that only their text tells apart.
    said = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in said
        or "allocate memory" in said
        or "not enough memory" in said
    )


def dtype_name(dtype: torch.dtype) -> str:
    """The number format's short name: "bf16", "fp16" or "fp32"."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def device_title(device: torch.device) -> str:
    """The device for people: "cpu (2 threads)" or "cuda:0 NVIDIA H200"."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"cpu ({torch.get_num_threads()} threads)"


@dataclass(frozen=True, slots=True)
class Build:
    """This torch: its version, the CUDA it was built for (None: it knows only the CPU), the GPUs that it sees."""

    version: str
    cuda: str | None
    gpus: int


def torch_build() -> Build:
    """What torch can compute on."""
    return Build(str(torch.__version__), torch.version.cuda, torch.cuda.device_count())
