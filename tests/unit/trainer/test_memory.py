import subprocess
import sys

import numpy as np
import pytest

from trainer import memory
from trainer.memory import Memory, MemoryMeter

MEGABYTE = 1_000_000


def allocate(megabytes: int) -> None:
    # Written, since pages that are only reserved aren't resident; freed when this returns.
    np.ones(megabytes * MEGABYTE, dtype=np.uint8).sum()


def test_an_allocation_is_seen_after_it_was_freed() -> None:
    meter = MemoryMeter()
    allocate(150)
    found = meter.read()
    assert 140 * MEGABYTE < found.added < 250 * MEGABYTE
    assert found.process > found.added
    assert found.device is None
    assert found.bytes == found.added


def test_what_was_before_doesnt_count() -> None:
    try:
        memory.CLEAR_REFS.write_text("5")
    except OSError:
        pytest.skip("this system doesn't let a process forget its peak")
    allocate(300)
    meter = MemoryMeter()
    allocate(50)
    assert meter.read().added < 150 * MEGABYTE


@pytest.mark.skipif(not memory.STATUS.exists(), reason="no /proc")
def test_a_child_doesnt_inherit_the_peak_of_its_parent() -> None:
    kept = np.ones(500 * MEGABYTE, dtype=np.uint8)
    code = "from trainer.memory import peak_resident; print(peak_resident())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(kept) > 4 * int(child.stdout)


def test_without_proc_the_peak_comes_from_getrusage(monkeypatch: pytest.MonkeyPatch) -> None:
    by_proc = memory.peak_resident()
    monkeypatch.setattr(memory, "STATUS", memory.STATUS.with_name("nothing"))
    monkeypatch.setattr(memory, "CLEAR_REFS", memory.STATUS.with_name("nothing"))
    # In bytes on every system: half to forty times, since VmHWM may have been set back.
    assert by_proc / 2 < memory.peak_resident() < by_proc * 40
    assert MemoryMeter().read().added >= 0


def test_a_devices_memory_is_what_is_compared() -> None:
    assert Memory(process=5, added=3, device=2).bytes == 2
