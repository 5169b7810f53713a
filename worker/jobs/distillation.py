"""The story of a job whose adapter is trained on the oracle's answers about some of its reviews first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from worker.agreement.columns import NONE, Raters
from worker.errors import Invalid
from worker.files.results import whole
from worker.policy import RequestReason
from worker.reviews import Review, Score
from worker.scorers import Scorer
from worker.store.distillations import Answered, DistillationQueries, Distilled

POOL = 4
"""So many times the reviews of the second round are scored, to choose the least sure ones among them."""
POOL_MOST = 5_000

LEAST_OF_LABEL = 2
"""Reviews that a label needs to be learnt: one to train on, one to validate by."""

Rows = NDArray[np.int64]


def first_rows(raters: Raters, at: Distilled) -> list[tuple[int, RequestReason]]:
    """The reviews that the oracle is asked about first: a uniform sample that is held out, and the first round's.

    Raises:
        Invalid: the job has no more reviews than that.
    """
    if at.answers + at.held_out >= len(raters):
        some = max(1, len(raters) // 5)
        raise Invalid(
            f"the file has {len(raters):,} reviews, and the oracle would be asked about {at.answers:,} to train on "
            f"and {at.held_out:,} to measure by: none is left for the adapter. Choose fewer, say --answers {some} "
            f"--held-out {some}, or let the oracle label all: loracle run FILE --policy oracle."
        )
    chance = np.random.default_rng([at.seed, at.job_id, 0])
    places = chance.permutation(len(raters))
    held_out, others = places[: at.held_out], np.sort(places[at.held_out :])
    chosen = spread(raters, others, math.ceil(at.answers / at.rounds), chance)
    return [
        *((int(row), "held_out") for row in raters.row_no[held_out]),
        *((int(row), "training") for row in raters.row_no[chosen]),
    ]


def more_rows(raters: Raters, at: Distilled, count: int) -> list[tuple[int, RequestReason]]:
    """So many further reviews to train on, of all lengths."""
    chance = np.random.default_rng([at.seed, at.job_id, 1])
    chosen = spread(raters, np.flatnonzero(raters.reason == NONE), count, chance)
    return [(int(row), "training") for row in raters.row_no[chosen]]


def unsure_rows(
    raters: Raters, at: Distilled, scorer: Scorer, queries: DistillationQueries
) -> list[tuple[int, RequestReason]]:
    """The second round's reviews: of a random part of those not asked about yet, the ones that the first round's
    adapter is least sure of. What it can't score counts as sure."""
    count = max(0, at.answers - int(raters.asked_for("training").sum()))
    left = np.flatnonzero(raters.reason == NONE)
    chance = np.random.default_rng([at.seed, at.job_id, 2])
    pool = chance.permutation(left)[: max(count, min(POOL * count, POOL_MOST))]
    rows = np.sort(raters.row_no[pool]).tolist()
    scored: list[tuple[float, int]] = []
    for start in range(0, len(rows), 1_000):
        texts = queries.texts(at.job_id, rows[start : start + 1_000])
        reviews = [Review(row_no=row, text=text) for row, text in sorted(texts.items())]
        for review, outcome in zip(reviews, scorer.score(reviews), strict=True):
            score = outcome.score if isinstance(outcome, Score) else None
            scored.append((1.0 if score is None else score, review.row_no))
    return [(row, "training") for _, row in sorted(scored)[:count]]


def spread(raters: Raters, places: Rows, count: int, chance: np.random.Generator) -> Rows:
    """So many of these places, one at random of each of equally many reviews from the shortest to the longest."""
    count = min(count, len(places))
    if not count:
        return places[:0]
    by_length = places[np.lexsort((chance.random(len(places)), raters.characters[places]))]
    return np.array([chance.choice(part) for part in np.array_split(by_length, count)], dtype=np.int64)


def without(answers: Sequence[Answered], held_out: Sequence[Answered]) -> list[Answered]:
    """The answers to train on: none about a text that is held out."""
    kept = {one.text_sha256 for one in held_out}
    return [one for one in answers if one.text_sha256 not in kept]


def check_labels(answers: Sequence[Answered], labels: Sequence[str], at: Distilled) -> None:
    """Fails before a training that can't be.

    Raises:
        Invalid: of some label there are too few reviews.
    """
    found = Counter(one.label for one in answers)
    rare = [label for label in labels if found[label] < LEAST_OF_LABEL]
    if rare:
        counts = ", ".join(f"{found[label]:,} {label}" for label in labels)
        raise Invalid(
            f"of {len(answers):,} answers of the oracle to train on, too few are {' or '.join(rare)} ({counts}). The "
            f"same command with more --answers (now {at.answers:,}) goes on and asks about more."
        )


def write_labelled(path: Path, answers: Sequence[Answered]) -> None:
    """A parquet file of texts and labels, for the trainer."""
    table = pa.table({"text": [one.text for one in answers], "label": [one.label for one in answers]})
    with whole(path) as file:
        pq.write_table(table, file)
