"""How each planted fault is hunted: the runs that are made, one after the other, until the checker catches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.crash.points import Mode
from tests.faults.crash.trial import Place


@dataclass(frozen=True, slots=True)
class Hunt:
    """The planted fault, and the trials that are to catch it: with these `options`, once undisturbed, then, if there
    is a `mode`, broken off at each point whose name begins with `prefix`. `postgresql_only`: SQLite can't have it."""

    planted: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode | None = None
    prefix: str = ""
    postgresql_only: bool = False


HUNTS = (
    Hunt("sweeper_off", {"files": "short"}, mode="after", prefix="redis RPOP"),
    Hunt("lease_token_not_checked", {"scene": "a_worker_wakes_up_late"}),
    Hunt("committed_before_the_labels", {"files": "short"}, mode="after", prefix="commit"),
    Hunt(
        "budget_reserved_after_the_call",
        {"files": "cascade"},
        mode="after",
        prefix="http POST /v1/decisions",
    ),
    Hunt("retry_after_ignored", {"files": "cascade", "rest_s": 2.5}),
    Hunt("published_before_the_commit", {"files": "plain"}),
    Hunt("done_inside_finish", {"scene": "the_last_two_batches_end_together"}, postgresql_only=True),
    Hunt("bulk_created_twice", {"files": "bulk"}, mode="after", prefix="http POST"),
    Hunt("correction_overwritten", {"files": "plain"}),
    Hunt("deleted_while_claimed", {"scene": "a_job_is_deleted_while_a_worker_has_a_batch"}),
    Hunt("measured_before_the_last_label", {"files": "plain"}),
    Hunt("poison_counted_as_host_fault", {"files": "poison"}),
    Hunt("labels_in_the_wrong_order", {"files": "plain"}),
    Hunt("cap_not_checked", {"files": "cap"}),
)


@dataclass(frozen=True, slots=True)
class Caught:
    """How many runs it took, and what the checker said; `said` is None if it said nothing in all of them."""

    runs: int
    said: str | None


def hunt(place: Place, wanted: Hunt) -> Caught:
    """Runs until the planted fault is caught."""
    runs = 0
    for options in _trials(place, wanted):
        runs += 1
        broken = place.run(planted=wanted.planted, **wanted.options, **options).broken
        if broken:
            return Caught(runs, broken[0])
    return Caught(runs, None)


def _trials(place: Place, wanted: Hunt) -> Iterator[dict[str, Any]]:
    yield {}
    if wanted.mode is not None:
        points = place.run(planted=wanted.planted, **wanted.options).points
        for at, name in enumerate(points, 1):
            if name.startswith(wanted.prefix):
                yield {"at": at, "mode": wanted.mode}
