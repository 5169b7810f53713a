"""The reads of adapters: which there are, which one a name means, which one is active."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, select

from worker.errors import AdapterUnknown
from worker.store.tables import Activation, Adapter, Job

STUB = "stub"
"""Name and sha256 of the adapter without files. Only the sha256 tells it from one that was given its name."""

STUB_LABELS = ("negative", "positive")

SHORTEST_PREFIX = 4
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """An adapter the database holds."""

    id: int
    name: str
    sha256: str
    created_at: float
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_stub(self) -> bool:
        """Whether the stub scorer stands in for it."""
        return self.sha256 == STUB

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it gives, in the order of its manifest."""
        return adapter_labels(self.sha256, self.manifest)


def adapter_labels(sha256: str, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels that the adapter of this hash and manifest gives, in the order of its manifest."""
    return STUB_LABELS if sha256 == STUB else tuple(manifest["labels"])


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """What an adapter takes (`size_bytes` of its archive) and how many jobs are pinned to it."""

    size_bytes: int
    jobs: int


@dataclass(frozen=True, slots=True)
class ActivationRow:
    """Since when new jobs use an adapter; None is the one bundled with the Loracle that enqueues."""

    adapter_id: int | None
    activated_at: float


def select_adapters() -> Select[tuple[int, str, str, float, dict[str, Any]]]:
    """The columns of AdapterRow."""
    return select(Adapter.id, Adapter.name, Adapter.sha256, Adapter.created_at, Adapter.manifest)


def read_adapter(connection: Connection, adapter_id: int) -> AdapterRow:
    """The adapter of this id. Raises AdapterUnknown."""
    row = connection.execute(select_adapters().where(Adapter.id == adapter_id)).one_or_none()
    if row is None:
        raise adapter_unknown(adapter_id)
    return AdapterRow(*row)


def find_adapter(connection: Connection, wanted: str) -> AdapterRow:
    """The newest adapter of this name, else the one of this id, else the one whose sha256 begins so.

    Raises:
        AdapterUnknown: there is none, or the digits fit several.
    """
    newest_first = select_adapters().order_by(Adapter.id.desc())
    found = connection.execute(newest_first.where(Adapter.name == wanted).limit(1)).all()
    if not found and wanted.isascii() and wanted.isdecimal() and int(wanted) <= LARGEST_ID:
        found = connection.execute(newest_first.where(Adapter.id == int(wanted))).all()
    if not found and len(wanted) >= SHORTEST_PREFIX:
        prefixed = Adapter.sha256.startswith(wanted.lower(), autoescape=True)
        found = connection.execute(newest_first.where(prefixed)).all()
    if len(found) == 1:
        return AdapterRow(*found[0])
    if found:
        fitting = ", ".join(f"'{row.name}' {row.sha256[:12]}" for row in found)
        raise AdapterUnknown(f"{len(found)} adapters begin with '{wanted}' ({fitting}): give more digits.")
    names = connection.scalars(select(Adapter.name).distinct().order_by(Adapter.name)).all()
    raise AdapterUnknown(
        f"there is no adapter '{wanted}' in the database (found: {', '.join(names) or 'none'})."
    )


def read_uses(connection: Connection) -> dict[int, AdapterUse]:
    """By adapter id. The archives themselves aren't read."""
    jobs = select(Job.adapter_id, func.count().label("jobs")).group_by(Job.adapter_id).subquery()
    rows = connection.execute(
        select(Adapter.id, func.length(Adapter.archive), jobs.c.jobs).outerjoin(
            jobs, jobs.c.adapter_id == Adapter.id
        )
    )
    return {adapter_id: AdapterUse(int(size or 0), int(count or 0)) for adapter_id, size, count in rows}


def read_activation(connection: Connection) -> ActivationRow | None:
    """The activation that holds: the newest. None: nobody ever activated one."""
    row = connection.execute(
        select(Activation.adapter_id, Activation.activated_at).order_by(Activation.id.desc()).limit(1)
    ).one_or_none()
    return None if row is None else ActivationRow(*row)


def adapter_unknown(adapter_id: int) -> AdapterUnknown:
    return AdapterUnknown(f"there is no adapter {adapter_id} in the database.")
