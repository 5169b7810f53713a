"""How adapters look to people: a line each in a table, or one with all that its manifest says."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from worker.bootstrap import Store
from worker.model.manifest import BUNDLED, Manifest

PIPE_WIDTH = 160
"""Characters in a line of a table that isn't shown on a terminal."""


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
    size_bytes: int
    jobs: int
    added_at: float | None
    active: bool


def list_adapters(store: Store, active: int | None) -> Iterator[Listed]:
    """The adapters in the database, newest first, and the bundled one; `active` None means that one."""
    rows, uses = store.queries.adapters(), store.queries.adapter_uses()
    bundled = Manifest.read(BUNDLED)
    for row in rows:
        use = uses[row.id]
        manifest = {"labels": row.labels} if row.is_stub else row.manifest
        is_active = row.id == active if active is not None else row.sha256 == bundled.sha256
        yield _listed(
            row.id, row.name, row.sha256, manifest, use.size_bytes, use.jobs, row.created_at, is_active
        )
    if bundled.sha256 not in {row.sha256 for row in rows}:
        size = sum((BUNDLED / name).stat().st_size for name in bundled.files)
        said = {"base": {"id": bundled.base.id}, "labels": bundled.labels, "metrics": bundled.metrics}
        yield _listed(None, bundled.name, bundled.sha256, said, size, 0, None, active is None)


def _listed(
    adapter_id: int | None,
    name: str,
    sha256: str,
    manifest: Mapping[str, Any],
    size_bytes: int,
    jobs: int,
    added_at: float | None,
    active: bool,
) -> Listed:
    accuracy, measured_on = recorded_accuracy(manifest.get("metrics", {}))
    return Listed(
        adapter_id=adapter_id,
        name=name,
        sha256=sha256,
        base=manifest.get("base", {}).get("id"),
        labels=tuple(manifest["labels"]),
        accuracy=accuracy,
        accuracy_on=measured_on,
        size_bytes=size_bytes,
        jobs=jobs,
        added_at=added_at,
        active=active,
    )


def recorded_accuracy(metrics: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """The accuracy in a manifest's metrics and what it was measured on.

    Of several tests the one with most reviews counts; validation, which chose the weights, only where there is none.
    """
    tests = [
        (found.get("n", 0), name, found["accuracy"])
        for name, found in metrics.items()
        if isinstance(found, Mapping) and "accuracy" in found
    ]
    if tests:
        _, name, accuracy = max(tests)
        return float(accuracy), name
    if "validation_accuracy" in metrics:
        return float(metrics["validation_accuracy"]), "validation"
    return None, None


def print_table(listed: Sequence[Listed]) -> None:
    """A line per adapter; * marks the active one."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    columns = ("", "id", "name", "sha256", "base", "labels", "accuracy", "MB", "jobs", "added")
    table = Table(*columns, box=None, header_style="bold")
    for one in listed:
        measured = "-" if one.accuracy is None else f"{one.accuracy:.4f} {one.accuracy_on}"
        cells = (
            "*" if one.active else "",
            "-" if one.adapter_id is None else str(one.adapter_id),
            one.name,
            one.sha256[:12],
            (one.base or "-").rpartition("/")[2],
            "/".join(one.labels),
            measured,
            f"{one.size_bytes / 1e6:.1f}",
            f"{one.jobs:,}",
            "bundled" if one.added_at is None else minute(one.added_at),
        )
        table.add_row(*(escape(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def print_manifest(manifest: Manifest, *, title: str, sha256: str) -> None:
    """What an adapter says of itself."""
    base, encoding = manifest.base, manifest.encoding
    revision = f" at {base.revision}" if base.revision else ""
    click.echo(f"{manifest.name} ({title})")
    for key, value in (
        ("sha256", sha256),
        ("base", f"{base.id}{revision}, weights {base.weights_sha256[:12]}"),
        ("labels", ", ".join(f"{number} {label}" for number, label in enumerate(manifest.labels))),
        ("encoding", f"{encoding.max_length} tokens, {encoding.truncation}, cleaning {encoding.cleaning}"),
        ("temperature", str(manifest.scaling)),
        ("made", manifest.created_at or "unknown"),
        ("files", ", ".join(sorted(manifest.files))),
        ("probes", f"{len(manifest.probes)} sentences"),
    ):
        click.echo(f"  {key:<12} {value}")
    for section, values in (("training", manifest.training), ("metrics", manifest.metrics)):
        click.echo(f"  {section:<12} {'' if values else 'none recorded'}".rstrip())
        for key, value in _flat(values):
            click.echo(f"    {key:<22} {value}")


def minute(seconds: float) -> str:
    """A time for people, by this host's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    # {"lora": {"r": 16}} as ("lora.r", "16").
    for key, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(one) for one in value)
        else:
            yield f"{prefix}{key}", str(value)
