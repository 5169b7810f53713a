"""Tables that the tests of agreement share: published worked examples, hostile cases and random ones."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.agreement.cascade import CascadeStatistics, cascade_statistics
from worker.agreement.measure import Measurement
from worker.agreement.pairs import ManyStatistics, PairStatistics, many_statistics, pair_statistics

Table = dict[tuple[str, str], int]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def table_of(rows: list[list[int]]) -> Table:
    """Rows are the first rater's labels a, b, c …, columns the second's."""
    return {
        (LETTERS[row], LETTERS[column]): count
        for row, counts in enumerate(rows)
        for column, count in enumerate(counts)
    }


def table_of_ratings(first: str, second: str) -> Table:
    return dict(Counter(zip(first, second, strict=True)))


def random_table(seed: int) -> Table:
    """Two to eight labels, mostly agreeing, with holes; from a handful of reviews to thousands."""
    draw = random.Random(seed)
    labels = draw.randint(2, 8)
    most = draw.choice([3, 40, 900])
    return table_of(
        [
            [
                draw.randint(0, most * (6 if row == column else 1)) if draw.random() < 0.8 else 0
                for column in range(labels)
            ]
            for row in range(labels)
        ]
    )


PUBLISHED: dict[str, Table] = {
    "Cohen 1960, two clinicians": table_of([[88, 14, 18], [10, 40, 10], [2, 6, 12]]),
    "Fleiss 1981, table 13.1": table_of([[75, 1, 4], [5, 4, 1], [0, 0, 10]]),
    "Feinstein and Cicchetti 1990, balanced": table_of([[40, 9], [6, 45]]),
    "Feinstein and Cicchetti 1990, one-sided": table_of([[80, 10], [5, 5]]),
    "Gwet 2002, a rare trait": table_of([[118, 5], [2, 0]]),
    "Krippendorff 2011, binary": table_of_ratings("abaaaaaaba", "bbbaabaaaa"),
    "Krippendorff 2011, nominal": table_of_ratings("aabbdcccedda", "babbbccceddd"),
    "Bentur 2009, airways before and after": table_of([[1, 1], [7, 12]]),
    "Stuart 1955, unaided vision": table_of(
        [[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]]
    ),
}

HOSTILE: dict[str, Table] = {
    "one review, agreeing": {("a", "a"): 1},
    "one review, disagreeing": {("a", "b"): 1},
    "one label only": {("a", "a"): 7},
    "one label only, another known": {("a", "a"): 7, ("b", "b"): 0},
    "the first rater always says a": {("a", "a"): 30, ("a", "b"): 12},
    "the second rater always says b": {("a", "b"): 9, ("b", "b"): 21},
    "all agree": {("a", "a"): 30, ("b", "b"): 12},
    "all disagree": {("a", "b"): 20, ("b", "a"): 20},
    "all disagree one way": {("a", "b"): 20},
    "no label in common": {("a", "c"): 11, ("b", "d"): 5, ("a", "d"): 2},
    "a label only one rater uses": {("a", "a"): 50, ("b", "b"): 40, ("a", "neutral"): 9, ("b", "neutral"): 4},
    "confused in two groups that never mix": {
        ("a", "a"): 40, ("a", "b"): 30, ("b", "a"): 9, ("b", "b"): 40,
        ("c", "c"): 50, ("c", "d"): 12, ("d", "c"): 25, ("d", "d"): 7,
    },
    "one disagreement in a hundred million": {("a", "a"): 99_999_999, ("a", "b"): 1},
    "a rare label in a million": {("a", "a"): 999_900, ("a", "b"): 40, ("b", "a"): 30, ("b", "b"): 30},
    "twenty labels, one review of each": {(letter, letter): 1 for letter in LETTERS[:20]},
    "two labels, two reviews": {("a", "a"): 1, ("b", "a"): 1},
}  # fmt: skip

RANDOM: dict[str, Table] = {f"random {seed}": random_table(seed) for seed in range(14)}

TABLES: dict[str, Table] = PUBLISHED | HOSTILE | RANDOM

Patterns = dict[tuple[str, ...], int]

# Each row is a patient, each figure how many of six psychiatrists gave that diagnosis: Fleiss (1971), table 1.
FLEISS_1971 = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 00501
30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006""".split()  # noqa: SIM905

# Fourteen raters, ten subjects, five categories.
FOURTEEN = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def patterns_of(rows: list[list[int]]) -> Patterns:
    """Each row is a review: how many raters gave it the labels a, b, c …"""
    return dict(Counter(tuple("".join(LETTERS[place] * k for place, k in enumerate(row))) for row in rows))


def random_patterns(seed: int) -> Patterns:
    """Three to six raters, two to five labels; each rater mostly gives the review's own label."""
    draw = random.Random(seed)
    raters, labels, reviews = draw.randint(3, 6), draw.randint(2, 5), draw.choice([2, 30, 400])
    found: Counter[tuple[str, ...]] = Counter()
    for _ in range(reviews):
        true = draw.choice(LETTERS[:labels])
        found[
            tuple(true if draw.random() < 0.7 else draw.choice(LETTERS[:labels]) for _ in range(raters))
        ] += 1
    return dict(found)


PATTERNS: dict[str, Patterns] = {
    "Fleiss 1971, psychiatrists": patterns_of([[int(figure) for figure in row] for row in FLEISS_1971]),
    "fourteen raters": patterns_of(FOURTEEN),
    "one review": {("a", "b", "b"): 1},
    "one label only": {("a", "a", "a"): 9},
    "all unanimous": {("a", "a", "a"): 9, ("b", "b", "b"): 4},
    "never two alike": {("a", "b", "c"): 9, ("c", "a", "b"): 4},
    "always one against the others": {("a", "a", "b"): 9, ("b", "b", "a"): 9},
    "a rater with a label of his own": {("a", "a", "x"): 30, ("b", "b", "x"): 25, ("a", "b", "x"): 7},
    "a rare label in a million": {("a", "a", "a"): 999_900, ("a", "b", "b"): 60, ("b", "b", "b"): 40},
} | {f"random {seed}": random_patterns(seed) for seed in range(14)}


def names_of(cells: Mapping[tuple[str, ...], int], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """`labels`, then those that the cells have besides, in the order of the alphabet."""
    given = {label for pattern, count in cells.items() if count for label in pattern}
    return (*labels, *sorted(given - {*labels}))


def counted(table: Table, names: Sequence[str]) -> np.ndarray:
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for (first, second), count in table.items():
        if count:
            counts[names.index(first), names.index(second)] += count
    return counts


def pair_of(table: Table, labels: Sequence[str] = (), *, finite: int | None = None) -> PairStatistics:
    names = names_of(table, labels)
    return pair_statistics(counted(table, names), names, finite=finite)


def many_of(patterns: Patterns, *, finite: int | None = None) -> ManyStatistics:
    names, seen = names_of(patterns), {pattern: count for pattern, count in patterns.items() if count}
    codes = np.array([[names.index(label) for label in pattern] for pattern in seen])
    return many_statistics(codes, np.array(list(seen.values())), names, finite=finite)


def cascade_of(
    escalated: Table, trusted: Mapping[str, int], audited: Table, labels: Sequence[str] = (), *, final: bool
) -> CascadeStatistics:
    same = {(label, label): count for label, count in trusted.items()}
    names = names_of(escalated | {cell: 1 for cell, count in (audited | same).items() if count}, labels)
    return cascade_statistics(
        counted(escalated, names),
        counted(same, names).diagonal(),
        counted(audited, names),
        names,
        final=final,
    )


def as_json(statistics: PairStatistics | ManyStatistics | CascadeStatistics) -> Any:
    """What is kept of them: JSON without NaN, from which they come back as they were."""
    one = Measurement(raters=("a", "b"), selection="all", slice="all", statistics=statistics)
    text = json.dumps(one.model_dump(mode="json"), allow_nan=False)
    assert Measurement.model_validate(json.loads(text)) == one
    return json.loads(text)["statistics"]
