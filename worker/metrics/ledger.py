"""The ledger's figures in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from worker.bootstrap import Store
from worker.metrics import names
from worker.metrics.names import Metric
from worker.settings import Settings
from worker.store.metrics import LedgerFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `exposition` gives."""


def exposition(store: Store, settings: Settings) -> bytes:
    """The ledger's figures now, in Prometheus' text format. What they cost doesn't grow with the number of reviews.

    Raises:
        DatabaseUnreachable: no connection.
    """
    return generate_latest(registry_of(store, settings))


def registry_of(store: Store, settings: Settings) -> CollectorRegistry:
    """The same for a server of prometheus_client: read anew whenever it is asked."""
    registry = CollectorRegistry()
    registry.register(_Ledger(store, settings))
    return registry


@dataclass(frozen=True)
class _Ledger:
    store: Store
    settings: Settings

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All metrics."""
        return _families(self.store.queries.metrics.figures(), self.settings)


def _families(found: LedgerFigures, settings: Settings) -> Iterator[GaugeMetricFamily]:
    lanes = found.lanes.items()
    yield _gauge(names.JOBS, {(state,): n for state, n in found.jobs.items()})
    yield _gauge(names.OPEN_BATCHES, {(lane, state): n for lane, at in lanes for state, n in at.open.items()})
    yield _gauge(names.OLDEST_BATCH, {(lane,): at.oldest_s for lane, at in lanes})
    yield _gauge(names.STILL, {(lane,): at.still_s for lane, at in lanes})
    yield _gauge(names.EXPIRED_LEASES, {(lane,): at.expired for lane, at in lanes})
    yield _gauge(names.RECENT_REVIEWS, {(state,): n for state, n in found.recent.items()})
    yield _gauge(names.RECENT_REJECTS, {(kind,): n for kind, n in found.rejects.items()})
    yield _gauge(names.RECENT_REQUESTS, {(state,): n for state, n in found.requests.items()})
    yield _gauge(names.LABELS, found.labels)
    yield _gauge(names.AGREEMENT, dict(_agreement(found.agreement)))
    yield _gauge(names.COST, {(): found.spent.dollars})
    if settings.most_spent is not None:
        yield _gauge(names.BUDGET_LEFT, {(): settings.most_spent.dollars - found.spent.dollars})
    if found.least_left is not None:
        yield _gauge(names.JOB_BUDGET_LEFT, {(): float(found.least_left)})
    yield _gauge(names.WORKER_FAULTS, found.faults)


def _agreement(shares: Mapping[str, list[float]]) -> Iterable[tuple[tuple[str, str], float]]:
    for raters, (last, *before) in ((raters, found) for raters, found in shares.items() if found):
        yield (raters, "last"), last
        if before:
            yield (raters, "before"), sum(before) / len(before)


def _gauge(metric: Metric, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.says, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
