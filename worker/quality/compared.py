"""Several jobs beside each other: who labelled what, at what cost, and how far they agree on what they share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import NONE, Codes, Raters, Rows, crossed
from worker.agreement.intervals import UNDEFINED, Estimate, share_of
from worker.agreement.pairs import (
    ManyStatistics,
    PairStatistics,
    many_statistics,
    pair_statistics,
    paired_difference,
)
from worker.errors import Invalid
from worker.policy import REASONS, Policy
from worker.reviews import Job
from worker.store.queries import Queries

Places: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ComparedRater:
    """Who labelled shared reviews in a job: its adapter, its oracle, or both as the policy says (`final`).

    `name` stands for it in the tables. `on` says which reviews it was to label: `all`, a random `audit`, or only
    those that it was `asked` about, whose figures say nothing of the others. `labelled` shared reviews have its
    label. `accuracy` is over the `gold` of them that have a gold label; where it was to label all and the job is
    done, a review without a label counts as wrong. `cost`, in US dollars, `tokens` and `labels` are of the whole
    job; None for an adapter, which costs neither.
    """

    name: str
    job_id: int
    rater: str
    model: str
    prompt: str | None
    window: str | None
    on: str
    labels: int
    labelled: int
    gold: int
    accuracy: Estimate
    cost: float | None
    tokens: int | None

    @property
    def cost_per_1000(self) -> float | None:
        """US dollars for 1,000 labels, by the job's bill."""
        return None if self.cost is None or not self.labels else 1000 * self.cost / self.labels


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Two raters on the shared reviews that both have labelled; `statistics` is None without any. `difference` is the
    accuracy of the first less that of the second, on those with gold."""

    first: str
    second: str
    statistics: PairStatistics | None
    difference: Estimate


@dataclass(frozen=True, slots=True)
class ComparedJobs:
    """Jobs on the `shared` reviews that all of them have. `matched` says how they were found: by `row` of the same
    file, or by `text`. `together` is of a rater per job that was to label every review; None with fewer than three.
    `notes` are what people should know of it."""

    job_ids: tuple[int, ...]
    shared: int
    matched: str
    gold: int
    raters: tuple[ComparedRater, ...]
    pairs: tuple[ComparedPair, ...]
    together: ManyStatistics | None
    together_raters: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A job with its labels, and the sha256 (N,) of its texts."""

    job: Job
    raters: Raters
    texts: NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class _Column:
    """The labels (S,) of a rater on the shared reviews, and whether it was to label all of them."""

    rater: str
    labels: Codes
    given: int
    on: str


def compare_jobs(queries: Queries, jobs: Sequence[Job]) -> ComparedJobs:
    """Every rater of these jobs, in their order, on the reviews that all of the jobs have.

    Reviews are the same if they are the same row with the same text; where jobs share more texts than such rows, as
    those of different files do, if they have the same text. Of equal texts the first is the first of the other job.

    Raises:
        Invalid: the jobs share no review, no label, or one has no label yet.
    """
    loaded = [_Loaded(job, *queries.labels_and_texts(job.id)) for job in jobs]
    for one in loaded:
        if (one.raters.adapter == NONE).all() and (one.raters.oracle == NONE).all():
            raise Invalid(f"job {one.job.id} has no label yet: `loracle status {one.job.id}` says why.")
    places, matched = _shared(loaded)
    names = _label_names(loaded)
    gold, notes = _gold(loaded, places, names)
    notes += [
        f"Job {one.job.id} is {one.job.state}: these are the labels that it has so far."
        for one in loaded
        if one.job.state != "done"
    ]
    found: list[tuple[ComparedRater, Codes]] = []
    for one, at in zip(loaded, places, strict=True):
        for column in _columns(one, at, names):
            rater = _described(queries, one, column, gold, name=_letters(len(found)))
            found.append((rater, column.labels))
    pairs = tuple(_pair(one, other, gold, names) for one, other in itertools.combinations(found, 2))
    # Of a job the last one: its final labels say what its adapter and its oracle have said.
    last = {rater.job_id: (rater, labels) for rater, labels in found if rater.on == "all"}
    whole = list(last.values())
    together = _together([labels for _, labels in whole], names) if len(whole) > 2 else None
    return ComparedJobs(
        job_ids=tuple(job.id for job in jobs),
        shared=len(places[0]),
        matched=matched,
        gold=int((gold != NONE).sum()),
        raters=tuple(rater for rater, _ in found),
        pairs=pairs,
        together=together,
        together_raters=tuple(rater.name for rater, _ in whole) if together is not None else (),
        notes=tuple(notes),
    )


def _shared(loaded: Sequence[_Loaded]) -> tuple[list[Places], str]:
    """The places of the shared reviews in each job, in the order of the first one's rows; and how they were found."""
    by_row = [_keys(one.texts, one.raters.row_no) for one in loaded]
    by_text = [_keys(one.texts, _occurrences(one.texts)) for one in loaded]
    rows, texts = _common(by_row), _common(by_text)
    keys, shared, matched = (by_row, rows, "row") if len(rows) >= len(texts) else (by_text, texts, "text")
    if not len(shared):
        raise Invalid(_nothing_shared(loaded, by_text))
    places = []
    for own in keys:
        order = np.argsort(own)
        places.append(order[np.searchsorted(own, shared, sorter=order)])
    in_order = np.argsort(places[0])
    return [one[in_order] for one in places], matched


def _keys(texts: NDArray[np.bytes_], numbers: Places) -> NDArray[np.bytes_]:
    """A key (N,) for each text with its number."""
    size = texts.dtype.itemsize
    joined = np.empty((len(texts), size + 8), dtype=np.uint8)
    joined[:, :size] = texts.view(np.uint8).reshape(-1, size)
    joined[:, size:] = numbers.astype(">i8").view(np.uint8).reshape(-1, 8)
    found: NDArray[np.bytes_] = joined.view(f"S{size + 8}").reshape(-1)
    return found


def _occurrences(texts: NDArray[np.bytes_]) -> Places:
    """How many equal texts (N,) come before each."""
    order = np.argsort(texts, kind="stable")
    first = np.ones(len(texts), dtype=bool)
    first[1:] = texts[order][1:] != texts[order][:-1]
    place = np.arange(len(texts))
    found = np.empty(len(texts), dtype=np.int64)
    found[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    return found


def _common(keys: Sequence[NDArray[np.bytes_]]) -> NDArray[np.bytes_]:
    found = keys[0]
    for one in keys[1:]:
        found = np.intersect1d(found, one, assume_unique=True)
    return found


def _nothing_shared(loaded: Sequence[_Loaded], keys: Sequence[NDArray[np.bytes_]]) -> str:
    said = ", ".join(f"{one.job.id} ('{one.job.name}')" for one in loaded)
    for (one, first), (other, second) in itertools.combinations(zip(loaded, keys, strict=True), 2):
        if not len(_common([first, second])):
            said = f"{one.job.id} ('{one.job.name}') and {other.job.id} ('{other.job.name}')"
            break
    return (
        f"the jobs {said} have no review in common, so nothing can be compared. Compare jobs of the same file, or of "
        "samples of it that overlap (the same --sample and --seed)."
    )


def _label_names(loaded: Sequence[_Loaded]) -> tuple[str, ...]:
    """All labels, those of the first job first."""
    for one, other in itertools.combinations(loaded, 2):
        if not {*one.raters.labels} & {*other.raters.labels}:
            raise Invalid(
                f"jobs {one.job.id} and {other.job.id} have no label in common: {', '.join(one.raters.labels)} and "
                f"{', '.join(other.raters.labels)}."
            )
    return tuple(dict.fromkeys(name for one in loaded for name in one.raters.labels))


def _renamed(codes: Codes, own: Sequence[str], names: Sequence[str]) -> Codes:
    """Codes of `own` labels as places in `names`."""
    table = np.array([*(names.index(name) for name in own), NONE], dtype=np.int16)
    # NONE is -1, the last of the table.
    found: Codes = table[codes]
    return found


def _gold(
    loaded: Sequence[_Loaded], places: Sequence[Places], names: Sequence[str]
) -> tuple[Codes, list[str]]:
    """The gold label (S,) of each shared review, by the first job that has one."""
    gold = np.full(len(places[0]), NONE, dtype=np.int16)
    differ = np.zeros(len(gold), dtype=bool)
    for one, at in zip(loaded, places, strict=True):
        own = _renamed(one.raters.gold[at], one.raters.labels, names)
        differ |= (gold != NONE) & (own != NONE) & (gold != own)
        gold = np.where(gold == NONE, own, gold).astype(np.int16)
    if not differ.any():
        return gold, []
    return gold, [
        f"The jobs have different gold labels for {int(differ.sum()):,} shared reviews (file or corrections): the "
        "first job named counts."
    ]


def _columns(one: _Loaded, at: Places, names: Sequence[str]) -> list[_Column]:
    raters, policy = one.raters, Policy.parse(one.job.policy)
    by_oracle = policy.kind == "oracle"
    audited = raters.reason[raters.oracle != NONE] == REASONS.index("audit")
    sample = "audit" if audited.all() else "asked"
    on = {"adapter": "audit" if by_oracle else "all", "oracle": "all" if by_oracle else sample}
    wanted: dict[str, Codes] = {"adapter": raters.adapter, "oracle": raters.oracle}
    if not by_oracle and raters.decided.any():
        wanted["final"] = raters.final
        on["final"] = "all"
    return [
        _Column(rater, _renamed(codes[at], raters.labels, names), int((codes != NONE).sum()), on[rater])
        for rater, codes in wanted.items()
        if (codes != NONE).any()
    ]


def _described(queries: Queries, one: _Loaded, column: _Column, gold: Codes, *, name: str) -> ComparedRater:
    job = one.job
    adapter = queries.adapters.get(job.adapter_id)
    prompt = window = cost = tokens = None
    model = adapter.name
    if column.rater == "adapter":
        window = _tokens_read(adapter.manifest)
    elif job.oracle_id is not None:
        details = queries.oracle.scorer(job.oracle_id).details
        bills = queries.oracle.costs(job.id)
        cost, tokens = sum(bill.cost + bill.lost for bill in bills), sum(bill.tokens for bill in bills)
        prompt, window = details["template"]["name"], details["window"]
        model = details["model"] if column.rater == "oracle" else f"{adapter.name}, {details['model']}"
    known = gold != NONE
    if column.on != "all" or job.state != "done":
        known = known & (column.labels != NONE)
    return ComparedRater(
        name=name,
        job_id=job.id,
        rater=column.rater,
        model=model,
        prompt=prompt,
        window=window,
        on=column.on,
        labels=column.given,
        labelled=int((column.labels != NONE).sum()),
        gold=int(known.sum()),
        accuracy=share_of(int((column.labels == gold)[known].sum()), int(known.sum())),
        cost=cost,
        tokens=tokens,
    )


def _tokens_read(manifest: Any) -> str | None:
    encoding = manifest.get("encoding", {})
    if "max_length" not in encoding:
        return None
    return f"{encoding.get('truncation', 'head')}:{encoding['max_length']} tokens"


def _pair(
    one: tuple[ComparedRater, Codes], other: tuple[ComparedRater, Codes], gold: Codes, names: Sequence[str]
) -> ComparedPair:
    first, second = one[1], other[1]
    counts = crossed(first, second, len(names))
    both: Rows = (first != NONE) & (second != NONE) & (gold != NONE)
    right, too = (first == gold)[both], (second == gold)[both]
    return ComparedPair(
        one[0].name,
        other[0].name,
        pair_statistics(counts, names) if counts.any() else None,
        paired_difference(
            int((right & too).sum()),
            int((right & ~too).sum()),
            int((~right & too).sum()),
            int((~right & ~too).sum()),
        )
        if both.any()
        else UNDEFINED,
    )


def _together(columns: Sequence[Codes], names: Sequence[str]) -> ManyStatistics | None:
    table = np.stack(columns, axis=1)
    table = table[(table != NONE).all(axis=1)]
    if not len(table):
        return None
    patterns, counts = np.unique(table.astype(np.int64), axis=0, return_counts=True)
    return many_statistics(patterns, counts, names)


def _letters(place: int) -> str:
    """A, B … Z, AA, AB …"""
    more, last = divmod(place, 26)
    return (_letters(more - 1) if more else "") + chr(ord("A") + last)
