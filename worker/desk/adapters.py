"""The adapters there are, and which one new jobs use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.agreement import wilson
from worker.bootstrap import (
    BUNDLED_NAME,
    Store,
    find_registered,
    load_directory,
    local_directory,
    restore_adapter,
)
from worker.model.bases import check_adapter
from worker.model.manifest import BUNDLED, Manifest
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of `adapters list`; `adapter_id` is None for the bundled adapter as long as no job has used it."""

    adapter_id: int | None
    name: str
    sha256: str
    base: str | None
    labels: tuple[str, ...]
    accuracy: float | None
    accuracy_on: str | None
    accuracy_n: int | None
    accuracy_interval: tuple[float, float] | None
    size_bytes: int
    jobs: int
    added_at: float | None
    active: bool


def list_adapters(store: Store, active: int | None) -> Iterator[Listed]:
    """The adapters in the database, newest first, and the bundled one; `active` None means that one."""
    rows, uses = store.queries.adapters.all(), store.queries.adapters.uses()
    bundled = Manifest.read(BUNDLED)
    for row in rows:
        yield _listed(
            {"labels": row.labels} if row.is_stub else row.manifest,
            adapter_id=row.id,
            name=row.name,
            sha256=row.sha256,
            size_bytes=uses[row.id].size_bytes,
            jobs=uses[row.id].jobs,
            added_at=row.created_at,
            active=row.id == active if active is not None else row.sha256 == bundled.sha256,
        )
    if bundled.sha256 not in {row.sha256 for row in rows}:
        yield _listed(
            {"base": {"id": bundled.base.id}, "labels": bundled.labels, "metrics": bundled.metrics},
            adapter_id=None,
            name=bundled.name,
            sha256=bundled.sha256,
            size_bytes=sum((BUNDLED / name).stat().st_size for name in bundled.files),
            jobs=0,
            added_at=None,
            active=active is None,
        )


def _listed(manifest: Mapping[str, Any], **known: Any) -> Listed:
    found = recorded_accuracy(manifest.get("metrics", {}))
    return Listed(
        base=manifest.get("base", {}).get("id"),
        labels=tuple(manifest["labels"]),
        accuracy=None if found is None else found.value,
        accuracy_on=None if found is None else found.on,
        accuracy_n=None if found is None else found.n,
        accuracy_interval=None if found is None else found.interval,
        **known,
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """An accuracy that a manifest tells, what it was measured `on`, and on how many reviews, if that is known."""

    value: float
    on: str
    n: int | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95 % (Wilson)."""
        return wilson(round(self.value * self.n), self.n) if self.n else None


def recorded_accuracy(metrics: Mapping[str, Any]) -> Recorded | None:
    """The accuracy in a manifest's metrics.

    Of several tests the one with most reviews counts; validation, which chose the weights, only where there is none.
    """
    tests = [
        Recorded(float(found["accuracy"]), name, found.get("n"))
        for name, found in metrics.items()
        if isinstance(found, Mapping) and "accuracy" in found
    ]
    if tests:
        return max(tests, key=lambda one: (one.n or 0, one.on))
    if "validation_accuracy" in metrics:
        return Recorded(
            float(metrics["validation_accuracy"]), "validation", metrics.get("validation_reviews")
        )
    return None


@dataclass(frozen=True, slots=True)
class Activated:
    """The adapter of new jobs; `adapter_id` is None for the bundled one. `changed`: it wasn't that before."""

    adapter_id: int | None
    name: str
    sha256: str
    changed: bool

    def __str__(self) -> str:
        """For people."""
        which = "the bundled adapter" if self.adapter_id is None else f"adapter {self.adapter_id}"
        end = "; jobs that exist keep theirs" if self.changed else " already"
        return f"New jobs use {which} '{self.name}' {self.sha256[:12]}{end}."


def activate(
    store: Store,
    settings: Settings,
    name: str,
    *,
    verify: bool = True,
    agreed: Callable[[Mapping[str, Any]], bool] = lambda metrics: True,
) -> Activated | None:
    """Verifies the adapter and lets new jobs use it; None if the metrics of its manifest aren't `agreed` to.

    Raises:
        AdapterInvalid, AdapterUnknown, HostUnfit: it isn't one, or can't be loaded here.
    """
    adapter_id: int | None = None
    if name == BUNDLED_NAME:
        manifest = Manifest.read(BUNDLED)
        chosen, sha256 = manifest.name, manifest.sha256
    else:
        directory = local_directory(name)
        if directory is not None:
            check_directory(directory, settings, verify=verify)
            row = store.queries.adapters.get(store.ledger.adapters.register(directory))
        else:
            row = find_registered(store, name)
            if verify and not row.is_stub:
                load_directory(restore_adapter(store, settings, row.id), settings)
        adapter_id, chosen, sha256 = row.id, row.name, row.sha256
    metrics = manifest.metrics if adapter_id is None else row.manifest.get("metrics", {})
    if not agreed(metrics):
        return None
    return Activated(adapter_id, chosen, sha256, store.ledger.adapters.activate(adapter_id))


def check_directory(directory: Path, settings: Settings, *, verify: bool) -> None:
    """Verifies a directory: what needs no model first, since that is told at once."""
    check_adapter(directory)
    if verify:
        load_directory(directory, settings)


def outranked(settings: Settings) -> str | None:
    """Why jobs from this host use another adapter than the active one; None if they use that."""
    if settings.adapter is None:
        return None
    return f"LORACLE_ADAPTER is set here and outranks it: jobs from this host use '{settings.adapter}'."
