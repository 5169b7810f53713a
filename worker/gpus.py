"""Which GPUs this host has, found without a CUDA call in this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

COUNT_GPUS = "import torch; print(torch.cuda.device_count())"


def find_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
        # Lines of MIG slices are indented.
        count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        return [str(index) for index in range(count)]
    if not Path("/dev/nvidia0").exists():
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        counted = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True, timeout=120, check=True
        )
        return [str(index) for index in range(int(counted.stdout))]
    return []
