"""The process that tries inputs, one a line of standard input, and says on standard output how each ended."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

from tests.faults.fuzz.surfaces import Surfaces
from worker.errors import LoracleError


def main(home: str, room_bytes: str, cpu_s: str) -> None:
    """Limits itself after it has loaded what every input needs."""
    out = os.dup(1)
    os.dup2(2, 1)
    surfaces = Surfaces(Path(home))
    usual = _own_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (usual + int(room_bytes), hard))
    for line in sys.stdin.buffer:
        task = json.loads(line)
        path = Path(os.fsdecode(bytes.fromhex(task["path"])))
        spent = sum(os.times()[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + int(cpu_s), resource.RLIM_INFINITY))
        began = time.monotonic()
        kind, said = _ended(surfaces, task["surface"], path, task["options"])
        below = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        if kind in ("answer", "refusal") and below > int(room_bytes):
            kind, said = "memory", f"a process below took {below:,} bytes ({said})"
        verdict = {"kind": kind, "said": said, "seconds": round(time.monotonic() - began, 3)}
        os.write(out, json.dumps(verdict).encode() + b"\n")
        if kind == "memory":
            return  # what it holds, and what its children took, would be counted for the next input


def _ended(surfaces: Surfaces, surface: str, path: Path, options: dict[str, object]) -> tuple[str, str]:
    try:
        said = surfaces.check(surface, path, options)
    except LoracleError as error:
        if _has_memory_error(error):
            return "memory", "".join(traceback.format_exception(error))
        if not str(error).strip() or ("\n" in str(error) and "Traceback" in str(error)):
            return "crash", f"a refusal that says nothing, or a traceback: {error!r}"
        return "refusal", str(error)
    except MemoryError:
        return "memory", traceback.format_exc()
    except BaseException:
        return "crash", traceback.format_exc()
    return "answer", said


def _has_memory_error(error: BaseException | None) -> bool:
    while error is not None:
        # Arrow's own says that nobody has so much as a file claims to hold, and nothing was taken.
        if type(error) is MemoryError:
            return True
        error = error.__cause__ or error.__context__
    return False


def _own_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main(*sys.argv[1:])
