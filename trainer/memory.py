"""How much memory a piece of work needed at its peak: measured, not computed.

Of a process: its resident set (RSS), which on Linux the kernel keeps with its peak in /proc/self/status as VmRSS
and VmHWM, in KiB (proc_pid_status(5)). `getrusage` has a peak too, in KiB on Linux and bytes on macOS, but Linux
hands it on through fork and exec: a small child of a large parent would show the parent's. VmHWM begins anew with
every exec, and writing 5 to /proc/self/clear_refs sets it back to what is resident now (proc_pid_clear_refs(5)).

Of a CUDA device: torch's own count of what its tensors took.
"""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks in bytes while something ran.

    `process` is all that the process had resident, the interpreter and its libraries with it; `added` is how much
    of that came on top of what was resident before. `device` is what tensors on the CUDA device took; None on a CPU.
    """

    process: int
    added: int
    device: int | None = None

    @property
    def bytes(self) -> int:
        """The figure to compare: the device's memory where there is one, else what the work added."""
        return self.added if self.device is None else self.device


class MemoryMeter:
    """Measures from when it is made until it is read.

    A second one in the same process lets the first forget the peak that it has seen until then.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device if device.startswith("cuda") else None
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        _forget_peak()
        # Where the peak can't be forgotten, what is resident now may be less than an earlier peak; the difference
        # then counts as added, so that the figure errs to the high side.
        self._before = resident()

    def read(self) -> Memory:
        """The peaks so far."""
        device = None
        if self._device is not None:
            import torch

            device = torch.cuda.max_memory_allocated(self._device)
        peak = peak_resident()
        return Memory(process=peak, added=max(0, peak - self._before), device=device)


def resident() -> int:
    """Bytes of this process that are resident now; where the system doesn't tell, its peak."""
    return _status("VmRSS") or _ru_maxrss()


def peak_resident() -> int:
    """The most bytes of this process that were resident at a time."""
    return _status("VmHWM") or _ru_maxrss()


def _forget_peak() -> None:
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        # No Linux, or a container that doesn't permit it.
        return


def _status(field: str) -> int | None:
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _ru_maxrss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
