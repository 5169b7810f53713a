"""How much memory and how many descriptors each process has, every second, and whether that stays flat."""

from __future__ import annotations

import csv
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_S = 1.0
WARM_UP = 0.2
"""This share of the time is left out: modules are loaded and caches filled."""
MOST_GROWTH = 0.05
FEW_BYTES, FEW_DESCRIPTORS = 1e6, 5
"""So much more is no trend: a pool of at most twenty connections grows when several threads want one at once."""
SERVER = "valkey"
"""Its descriptors are its clients', who come and go with the struck workers; a leak of one shows in that client."""

Roles = Mapping[str, psutil.Process]


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of a process."""

    at_s: float
    role: str
    pid: int
    rss: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Trend:
    """The medians of the first and the second half of a process's time, after the warm-up."""

    role: str
    pid: int
    rss: tuple[float, float]
    descriptors: tuple[float, float]

    @property
    def is_flat(self) -> bool:
        """Whether nothing grew by more than 5 %, or by more than next to nothing."""
        pairs = [(self.rss, FEW_BYTES)]
        if self.role != SERVER:
            pairs.append((self.descriptors, FEW_DESCRIPTORS))
        return all(_growth(pair) <= MOST_GROWTH or pair[1] - pair[0] <= few for pair, few in pairs)

    def __str__(self) -> str:
        rss = f"{self.rss[0] / 1e6:.1f} -> {self.rss[1] / 1e6:.1f} MB ({100 * _growth(self.rss):+.1f} %)"
        return f"{self.role}: {rss}, {self.descriptors[0]:g} -> {self.descriptors[1]:g} descriptors"


class Sampler:
    """Writes a line for each process that `roles` names into a csv every second, for the time of a `with`."""

    def __init__(self, roles: Callable[[], Roles], path: Path) -> None:
        self._roles, self._path = roles, path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def now_s(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def _watch(self) -> None:
        with self._path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["at_s", "role", "pid", "rss", "descriptors"])
            while not self._over.wait(EVERY_S):
                for role, process in self._roles().items():
                    try:
                        with process.oneshot():
                            rss, descriptors = process.memory_info().rss, process.num_fds()
                    except psutil.Error:
                        continue
                    one = Sample(round(self.now_s, 2), role, process.pid, rss, descriptors)
                    self.samples.append(one)
                    writer.writerow([one.at_s, one.role, one.pid, one.rss, one.descriptors])
                file.flush()


def trends(samples: Sequence[Sample], *, lived_s: float) -> list[Trend]:
    """Of every process that lived at least so long."""
    series: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for one in samples:
        series[one.role, one.pid].append(one)
    found = []
    for (role, pid), points in sorted(series.items()):
        if points[-1].at_s - points[0].at_s < lived_s:
            continue
        warm = points[int(WARM_UP * len(points)) :]
        first, second = warm[: len(warm) // 2], warm[len(warm) // 2 :]
        found.append(
            Trend(
                role,
                pid,
                (_median(first, "rss"), _median(second, "rss")),
                (_median(first, "descriptors"), _median(second, "descriptors")),
            )
        )
    return found


def draw(samples: Sequence[Sample], faults: Sequence[tuple[float, str]], path: Path) -> None:
    """A picture of all processes over time, with a thin line for every fault."""
    # Here: only the soak draws.
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, (memory, descriptors) = pyplot.subplots(2, 1, sharex=True, figsize=(12, 9))
    roles = sorted({one.role for one in samples})
    for number, role in enumerate(roles):
        pids = sorted({one.pid for one in samples if one.role == role})
        for pid in pids:
            points = [one for one in samples if (one.role, one.pid) == (role, pid)]
            told = {"label": role if pid == pids[0] else None, "color": f"C{number % 10}", "linewidth": 1.0}
            times = [one.at_s for one in points]
            memory.plot(times, [one.rss / 1e6 for one in points], **told)
            descriptors.plot(times, [one.descriptors for one in points], **told)
    for axes, title in ((memory, "resident memory, MB"), (descriptors, "open descriptors")):
        for at_s, _ in faults:
            axes.axvline(at_s, color="0.85", linewidth=0.5, zorder=0)
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
    descriptors.set_xlabel("seconds; a grey line is a fault")
    memory.legend(fontsize=7, ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _median(points: Sequence[Sample], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in points))


def _growth(medians: tuple[float, float]) -> float:
    return medians[1] / medians[0] - 1
