"""The gold labels of a job that are likely wrong, for people to judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worker.agreement.columns import NONE
from worker.agreement.label_errors import label_errors
from worker.store.corrections import ReviewTask
from worker.store.queries import Queries


@dataclass(frozen=True, slots=True)
class LikelyErrors:
    """`expected` of the gold labels of `reviews` are wrong by the estimate; of the `listed` ones, which are the
    `tasks`, `expected_of_listed`."""

    reviews: int
    expected: float
    listed: int
    expected_of_listed: float
    tasks: Iterator[ReviewTask]

    def __str__(self) -> str:
        share = self.expected / max(1, self.reviews)
        return (
            f"By this estimate about {_count(self.expected)} of {self.reviews:,} gold labels ({share:.1%}) are "
            f"wrong, about {_count(self.expected_of_listed)} of them among the {self.listed:,} listed."
        )


def _count(expected: float) -> str:
    # "About 1 (6.8%)" of 22 would look like a slip.
    return f"{expected:,.1f}" if expected < 10 else f"{expected:,.0f}"


def likely_label_errors(queries: Queries, job_id: int, *, limit: int | None) -> LikelyErrors:
    """The `limit` gold labels of a job that are likeliest to be wrong, the likeliest first, equals in row order: of
    those that adapter or oracle contradict and that nobody has corrected yet.

    Raises:
        JobUnknown: there is no such job.
    """
    raters = queries.raters(job_id)
    file_gold, gold = np.full(len(raters), NONE, dtype=np.int16), raters.gold.copy()
    for row_no, label in queries.to_review.file_gold(job_id).items():
        place = np.searchsorted(raters.row_no, row_no)
        if label in raters.labels:
            file_gold[place] = raters.labels.index(label)
        else:
            # A person's label says nothing of how often the file's are wrong where it has none.
            gold[place] = NONE
    raters = dataclasses.replace(raters, gold=gold)
    found = label_errors(raters, file_gold)
    contradicted = (raters.adapter != raters.gold) | (
        (raters.oracle != NONE) & (raters.oracle != raters.gold)
    )
    places = np.flatnonzero(~np.isnan(found.chances) & contradicted)
    places = places[np.argsort(-found.chances[places], kind="stable")[:limit]]
    chances = found.chances[places]
    tasks = _tasks(queries, job_id, raters.row_no[places].tolist(), chances.tolist())
    return LikelyErrors(found.reviews, found.expected, len(places), float(chances.sum()), tasks)


def _tasks(queries: Queries, job_id: int, row_nos: list[int], chances: list[float]) -> Iterator[ReviewTask]:
    chance_of = dict(zip(row_nos, chances, strict=True))
    for task in queries.to_review.of_rows(job_id, row_nos):
        yield dataclasses.replace(task, gold_wrong=round(chance_of[task.row_no], 4))
