"""Labelled reviews for training: read, mapped to labels, split, and cut into steps."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from worker.model import buckets

POOL = 64
"""Micro-batches that are planned together: enough for little padding, few enough for random steps."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Encoded reviews with the index of each one's label."""

    ids: list[list[int]]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)


def split(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation part, stratified by label, in random order."""
    rng = random.Random(seed)
    train: list[int] = []
    validation: list[int] = []
    for label in sorted(set(labels)):
        rows = [row for row, found in enumerate(labels) if found == label]
        rng.shuffle(rows)
        cut = max(1, round(len(rows) * share))
        validation += rows[:cut]
        train += rows[cut:]
    rng.shuffle(train)
    rng.shuffle(validation)
    return train, validation


def steps(lengths: Sequence[int], *, token_budget: int, seed: int) -> list[list[int]]:
    """An epoch: every index once, in random micro-batches of reviews of like length."""
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    average = sum(lengths) / max(1, len(lengths))
    size = max(1, round(POOL * token_budget / average))
    planned: list[list[int]] = []
    for start in range(0, len(order), size):
        pool = order[start : start + size]
        micro_batches = buckets.plan([lengths[row] for row in pool], token_budget=token_budget)
        planned += [[pool[index] for index in micro_batch] for micro_batch in micro_batches]
    rng.shuffle(planned)
    return planned


def data_sha256(texts: Sequence[str], labels: Sequence[str]) -> str:
    """Identity of the training data: the hash of every text and label, in order."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(f"{len(text)}:{text}{label}\n".encode())
    return digest.hexdigest()
