"""Labelled reviews for training: read, mapped to labels, split, and cut into steps."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.errors import TrainingInvalid
from worker.files import GoldColumn, ReadOptions, open_reviews
from worker.files.columns import listed
from worker.files.gold import MARKERS
from worker.model.encoding import plan_micro_batches
from worker.reviews import Reject, Review

DEFAULT = ReadOptions()
POOL = 64
"""Micro-batches that are planned together: enough for little padding, few enough for random steps."""

MOST_LABELS = 50
POLARITY = ("negative", "positive")
"""The labels of data that say 0 and 1, pos and neg, or false and true."""

_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class LabelledReviews:
    """Texts with their gold labels, in the order of the files; every gold label is among `labels`.

    `announcements` are sentences for people: which columns were chosen, how many rows were left out, and why.
    """

    texts: list[str]
    gold: list[str]
    labels: tuple[str, ...]
    announcements: list[str]


@dataclass(frozen=True, slots=True)
class Examples:
    """Encoded reviews with the index of each one's label."""

    ids: list[list[int]]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(
    paths: Iterable[Path],
    *,
    labels: Sequence[str] = (),
    read: ReadOptions = DEFAULT,
    limit: int | None = None,
) -> LabelledReviews:
    """Reads labelled review files, the first `limit` reviews of them, each with the same options.

    Of equal texts the first one is kept, and none where their labels differ: nothing says which of them is
    right, and the first is so by chance only.

    `labels` are an adapter's: what is none of them is left out and told, as in a job. Without, they are those that
    `read.labels` names, else those of the data: negative, positive where the data say 0 and 1 or the like, else the
    distinct values, whatever their case, sorted, numbers by size.

    Raises:
        TrainingInvalid: there is no label column, no review with a label, one label only where nothing names them, a
            label that a list of names lacks, or a text column holds numbers.
        FileUnreadable: a file can't be read; ColumnMissing: it lacks a column.
    """
    announcements: list[str] = []
    reviews: list[Review] = []
    counts: Counter[str] = Counter()
    cells: dict[str, None] = {}
    for path in paths:
        with open_reviews(path, read) as file:
            if file.columns.label is None:
                raise TrainingInvalid(
                    f"{path} has no column of labels (found: {listed(file.columns.names)}). Choose one with "
                    "--label-column."
                )
            announcements += [f"{path.name}: {announcement}" for announcement in file.announcements]
            before = len(reviews)
            for row in file.read():
                if len(reviews) == limit:
                    if not read.labels:
                        # What numbers mean shows in the whole column only.
                        cells.update((_cell(row), None) for row in file.read(skip=len(reviews) - before))
                    break
                if isinstance(row, Reject):
                    counts[
                        "rows without text left out"
                        if row.kind == "without_text"
                        else "unreadable rows left out"
                    ] += 1
                elif not (row.gold_label or "").strip():
                    counts["reviews without a label left out"] += 1
                else:
                    reviews.append(row)
            announcements += [f"{path.name}: {found}" for found in file.notes]
            _check_texts(path, reviews[before : before + 100])
    if not reviews:
        raise TrainingInvalid("the data hold no labelled review.")
    column, names = _gold_column(
        [(review.gold_label or "").strip() for review in reviews], [*cells], labels, read
    )
    mapped = [(review, label) for review in reviews if (label := column(review.gold_label)) is not None]
    counts["reviews without a label left out"] += sum(
        not column.word(review.gold_label) for review in reviews
    )
    told = [*([doubt] if (doubt := column.doubt()) else []), *column.announcements()]
    if told and not (labels or (read.meanings and not read.meanings.is_list)):
        raise TrainingInvalid(
            f"the data have labels that aren't among {', '.join(names)}. {'. '.join(told)}. "
            "Name them all with --labels to train on them."
        )
    if not mapped:
        raise TrainingInvalid(f"the data hold no gold label: {'; '.join(told)}.")
    announcements += told
    reviews, gold = [review for review, _ in mapped], [label for _, label in mapped]
    if not labels and read.labels is None and len(set(gold)) == 1:
        cut = " If the files are sorted by label, --limit cut the others off." if limit is not None else ""
        raise TrainingInvalid(
            f"all {len(gold):,} reviews have the label '{gold[0]}'; training needs two labels or more.{cut}"
        )
    found: dict[str, set[str]] = {}
    for review, label in zip(reviews, gold, strict=True):
        found.setdefault(review.text, set()).add(label)
    kept = {text: label for text, (label, *others) in found.items() if not others}
    if not kept:
        raise TrainingInvalid(
            "every text of the data is there with different labels. Keep one label for each."
        )
    disputed = sum(len(found[review.text]) > 1 for review in reviews)
    counts["reviews left out since the same text has different labels"] = disputed
    counts["exact duplicates left out"] = len(reviews) - disputed - len(kept)
    announcements += [f"{count:,} {what}" for what, count in sorted(counts.items()) if count]
    return LabelledReviews(list(kept), list(kept.values()), names, announcements)


def split(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation part, stratified by label, in random order.

    Each label that has two reviews or more is in both parts.
    """
    rng = random.Random(seed)
    train: list[int] = []
    validation: list[int] = []
    for label in sorted(set(labels)):
        rows = [row for row, found in enumerate(labels) if found == label]
        rng.shuffle(rows)
        cut = min(max(1, round(len(rows) * share)), len(rows) - 1)
        validation += rows[:cut]
        train += rows[cut:]
    rng.shuffle(train)
    rng.shuffle(validation)
    return train, validation


def class_weights(labels: Sequence[int], count: int) -> list[float]:
    """A weight for each of `count` labels by which all of them weigh the same: n / (count · n of the label).

    Their mean over the reviews is 1, so that a learning rate needs no change (King and Zeng 2001, "Logistic
    Regression in Rare Events Data"; "balanced" in scikit-learn).

    Raises:
        TrainingInvalid: a label has no review.
    """
    found = Counter(labels)
    missing = [label for label in range(count) if not found[label]]
    if missing:
        raise TrainingInvalid(
            f"{len(missing)} of {count} labels have no review to train on, so they can't be weighted. Add some, "
            f"or leave these labels out."
        )
    return [len(labels) / (count * found[label]) for label in range(count)]


def steps(lengths: Sequence[int], *, token_budget: int, seed: int) -> list[list[int]]:
    """An epoch: every index once, in random micro-batches of reviews of like length."""
    if not lengths:
        return []
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    average = sum(lengths) / len(lengths)
    size = max(1, round(POOL * token_budget / average))
    planned: list[list[int]] = []
    for start in range(0, len(order), size):
        pool = order[start : start + size]
        micro_batches = plan_micro_batches([lengths[row] for row in pool], token_budget=token_budget)
        planned += [[pool[index] for index in micro_batch] for micro_batch in micro_batches]
    rng.shuffle(planned)
    return planned


def data_sha256(texts: Sequence[str], labels: Sequence[str]) -> str:
    """Identity of the training data: the hash of every text and label, in order."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(f"{len(text)}:{text}{label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check_texts(path: Path, first: Sequence[Review]) -> None:
    if first and all(_NUMBER.fullmatch(review.text) for review in first):
        raise TrainingInvalid(
            f"the text column of {path} holds numbers (the first is {first[0].text.strip()!r}). Choose another "
            f"with --text-column."
        )


def _cell(row: Review | Reject) -> str:
    return "" if isinstance(row, Reject) else (row.gold_label or "").strip()


def _gold_column(
    found: Sequence[str], more: Sequence[str], labels: Sequence[str], read: ReadOptions
) -> tuple[GoldColumn, tuple[str, ...]]:
    # What the cells mean, and the names in order.
    distinct = sorted({*found})
    told = read.meanings
    names = tuple(labels) or (() if told is None else told.names)
    if not names:
        distinct = [label for label in distinct if label not in MARKERS]
        polarity = GoldColumn(POLARITY)
        polarity.look([*distinct, *more])
        if all(polarity(label) for label in distinct):
            names = POLARITY
        else:
            names = tuple(sorted({label.casefold(): label for label in distinct}.values(), key=_by_size))
    if len(names) > MOST_LABELS:
        raise TrainingInvalid(
            f"the label column has {len(names):,} different values, so it holds no labels (the first: "
            f"{', '.join(names[:3])}). Choose another with --label-column."
        )
    column = GoldColumn(names, told)
    column.look([*distinct, *more])
    return column, names


def _by_size(label: str) -> tuple[bool, float, str]:
    # Numbers first, 2 before 10.
    number = _NUMBER.fullmatch(label)
    return not number, float(label.replace(",", ".")) if number else 0.0, label
