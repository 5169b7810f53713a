"""A random sample of a file's reviews, the same for the same file, size and seed."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b

from worker.reviews import Reject, Review

MAX_STRATA = 64
"""With more different gold labels than this the column isn't labels, and the sample is simply random."""


def sample(reviews: Callable[[], Iterator[Review | Reject]], n: int, seed: int) -> frozenset[int]:
    """The row numbers of `n` random readable reviews, of all of them where there are no more.

    Every gold label gets its share of the sample (largest remainder). One pass; memory grows with `n` only:
    the sample is the reviews with the smallest keyed hashes of their row numbers.
    """
    if n < 0:
        raise ValueError(f"n is {n}, it must not be negative")
    key = blake2b(str(seed).encode(), digest_size=16).digest()
    everything: list[tuple[int, int]] = []
    strata: dict[str | None, list[tuple[int, int]]] = {}
    counts: Counter[str | None] = Counter()
    stratified = True
    for review in reviews():
        if isinstance(review, Reject):
            continue
        row_no = review.row_no
        digest = blake2b(row_no.to_bytes(8, "big"), digest_size=8, key=key).digest()
        entry = (-int.from_bytes(digest, "big"), row_no)
        _keep_smallest(everything, entry, n)
        if stratified:
            counts[review.gold_label] += 1
            _keep_smallest(strata.setdefault(review.gold_label, []), entry, n)
            if len(counts) > MAX_STRATA:
                stratified = False
                strata.clear()
    if not stratified:
        return frozenset(row_no for _, row_no in everything)
    shares = _shares(counts, n)
    return frozenset(
        row_no for label, heap in strata.items() for _, row_no in heapq.nlargest(shares[label], heap)
    )


def _keep_smallest(heap: list[tuple[int, int]], entry: tuple[int, int], n: int) -> None:
    """Keeps the `n` entries with the smallest hashes; they are negated, so the heap's root is the largest."""
    if len(heap) < n:
        heapq.heappush(heap, entry)
    elif n and entry > heap[0]:
        heapq.heapreplace(heap, entry)


def _shares(counts: Counter[str | None], n: int) -> dict[str | None, int]:
    """How many of `n` each label gets: its proportion, rounded by the largest remainder."""
    total = counts.total()
    if n >= total:
        return dict(counts)
    shares = {label: n * count // total for label, count in counts.items()}
    by_remainder = sorted(
        counts, key=lambda label: (-(n * counts[label] % total), label is None, label or "")
    )
    for label in by_remainder[: n - sum(shares.values())]:
        shares[label] += 1
    return shares
