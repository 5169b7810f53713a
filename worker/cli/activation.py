"""Whether an adapter may take the place of the active one, by what was measured of both."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from worker.agreement.intervals import Estimate, share_of
from worker.bootstrap import BUNDLED_NAME, Store
from worker.cli.common import note
from worker.desk.adapters import recorded_accuracy
from worker.model.manifest import BUNDLED, Manifest

WORSE_BY = 0.05
"""Of accuracies on different data: a difference that chance and data don't explain."""


def why_worse(new: Mapping[str, Any], old: Mapping[str, Any]) -> str | None:
    """How much worse the metrics of a manifest are than those of another one; None if they aren't clearly.

    On data that both were measured on: their 95 % intervals don't touch. Else by more than `WORSE_BY`.
    """
    for name in new.keys() & old.keys():
        first, second = _accuracy(new[name]), _accuracy(old[name])
        if first is not None and second is not None:
            said = f"{new[name]['accuracy']:.2%} against {old[name]['accuracy']:.2%} on {name}"
            return said if (first.high or 1) < (second.low or 0) else None
    ours, theirs = recorded_accuracy(new), recorded_accuracy(old)
    if ours is None or theirs is None or theirs.value - ours.value <= WORSE_BY:
        return None
    return f"{ours.value:.2%} on {ours.on} against {theirs.value:.2%} on {theirs.on}"


def _accuracy(found: Any) -> Estimate | None:
    if not isinstance(found, Mapping) or not found.get("n") or "accuracy" not in found:
        return None
    return share_of(round(found["accuracy"] * found["n"]), found["n"])


def may_activate(store: Store, new: Mapping[str, Any]) -> bool:
    """Whether an adapter with these metrics may take the place of the active one: of a clearly worse one a person at
    the terminal is asked, elsewhere it is said."""
    activation = store.queries.adapters.activation()
    metrics, back = Manifest.read(BUNDLED).metrics, BUNDLED_NAME
    if activation is not None and activation.adapter_id is not None:
        active = store.queries.adapters.get(activation.adapter_id)
        metrics, back = active.manifest.get("metrics", {}), active.name
    worse = why_worse(new, metrics)
    if worse is None:
        return True
    said = f"It is measured worse than the adapter that new jobs use now: {worse}."
    if sys.stdin.isatty() and sys.stderr.isatty():
        return click.confirm(f"{said} Use it all the same?", err=True)
    note(f"Warning: {said} `loracle adapters activate {back}` brings that one back.")
    return True
