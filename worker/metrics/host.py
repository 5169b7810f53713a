"""What the workers of this host count: kept in files, so that the counts of all children add up.

Without PROMETHEUS_MULTIPROC_DIR, which `loracle worker --metrics` sets for them, they count for themselves alone.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from worker.metrics import names
from worker.metrics.names import Metric
from worker.oracle.prices import Charge
from worker.reviews import Answer, Failure, Lane, Outcome, Review, ScorerIdentity
from worker.scorers import Scorer

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where the library keeps the counts; read when it is imported."""
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=index,memory.used,memory.total,utilization.gpu",
    "--format=csv,noheader,nounits",
)

_NONE = CollectorRegistry()
"""The counts are read from the files, not from the process."""


def _counter(metric: Metric) -> Counter:
    return Counter(metric.name, metric.says, metric.labels, registry=_NONE)


def _seconds(metric: Metric) -> Histogram:
    return Histogram(metric.name, metric.says, metric.labels, buckets=SECONDS, registry=_NONE)


SCORED, FAILURES, SWEPT = _counter(names.SCORED), _counter(names.FAILURES), _counter(names.SWEPT)
TOKENS, PAID = _counter(names.TOKENS), _counter(names.PAID)
STAGE, BATCH = _seconds(names.STAGE), _seconds(names.BATCH)
BREAKER = Gauge(names.BREAKER.name, names.BREAKER.says, registry=_NONE, multiprocess_mode="livemax")


class Scorers(Protocol):
    """Those of a process."""

    def has(self, adapter_id: int) -> bool:
        """Whether this one is loaded."""

    def __call__(self, adapter_id: int) -> Scorer:
        """This one."""


@contextlib.contextmanager
def counted(lane: Lane) -> Iterator[None]:
    """Times a batch from its message to its end, and counts what comes out as an error."""
    started = time.monotonic()
    try:
        with _failures(lane):
            yield
    finally:
        BATCH.labels(lane).observe(time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class CountedScorers:
    """Scorers of the adapter lane whose work is counted."""

    scorers: Scorers

    def has(self, adapter_id: int) -> bool:
        """Whether this one is loaded."""
        return self.scorers.has(adapter_id)

    def __call__(self, adapter_id: int) -> Scorer:
        """This one, counting; raises what the scorers raise."""
        if self.scorers.has(adapter_id):
            return _Counted(self.scorers(adapter_id))
        with _stage("load"), _failures("adapter"):
            return _Counted(self.scorers(adapter_id))


@dataclass(frozen=True, slots=True)
class _Counted:
    scorer: Scorer

    @property
    def identity(self) -> ScorerIdentity:
        return self.scorer.identity

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        with _stage("score"), _failures("adapter"):
            outcomes = self.scorer.score(reviews)
        _count("adapter", self.identity.name, outcomes)
        return outcomes


def count_answers(answers: Mapping[int, Answer], charges: Mapping[int, Charge]) -> None:
    """Counts what the oracle gave and took."""
    for answer in answers.values():
        model = answer.response_model or ""
        _count("openai", model, [answer.outcome])
        _labelled(TOKENS, model).inc(answer.tokens)
    PAID.inc(sum(charge.cost.dollars for charge in charges.values()))


@lru_cache(maxsize=1024)
def _labelled(metric: Counter, *labels: str) -> Counter:
    # To look one up costs as much as a statement.
    return metric.labels(*labels)


def _count(lane: Lane, scorer: str, outcomes: Sequence[Outcome]) -> None:
    # A batch has few different ones, and each count takes a lock.
    failed = collections.Counter(outcome.state for outcome in outcomes if isinstance(outcome, Failure))
    for state, count in failed.items():
        _labelled(FAILURES, lane, state).inc(count)
    scored = collections.Counter(outcome.label for outcome in outcomes if not isinstance(outcome, Failure))
    for label, count in scored.items():
        _labelled(SCORED, lane, scorer, label).inc(count)


@contextlib.contextmanager
def _stage(stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    STAGE.labels("adapter", stage).observe(time.monotonic() - started)


@contextlib.contextmanager
def _failures(lane: Lane) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        FAILURES.labels(lane, type(error).__name__).inc()
        raise


def registry_of(folder: Path) -> CollectorRegistry:
    """What the workers whose counts are in this folder counted, and this host's GPUs: read whenever it is asked."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    registry.register(_Gpus())
    return registry


def forget(pid: int, folder: Path) -> None:
    """This process has ended: what it measured last holds no longer, what it counted stays."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class _Gpus:
    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering must not run a program."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Memory and use of every GPU, as nvidia-smi says; nothing where there is none."""
        families = [
            GaugeMetricFamily(metric.name, metric.says, labels=metric.labels)
            for metric in (names.GPU_MEMORY_USED, names.GPU_MEMORY, names.GPU_USE)
        ]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=5, check=True).stdout
            for gpu, *values in csv.reader(told.splitlines(), skipinitialspace=True):
                for family, value, unit in zip(families, values, (2**20, 2**20, 0.01), strict=True):
                    # Some devices say "[N/A]".
                    with contextlib.suppress(ValueError):
                        family.add_metric([gpu], float(value) * unit)
        return iter(families)
