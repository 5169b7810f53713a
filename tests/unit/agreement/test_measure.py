"""Which raters are compared on which reviews, on jobs made by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from tests.unit.agreement_tables import cascade_of, counted, many_of, pair_of
from worker.agreement.columns import NONE, Raters, uniform_audit
from worker.agreement.intervals import UNDEFINED, Estimate
from worker.agreement.measure import Measurement, measure
from worker.policy import REASONS, Policy
from worker.quality.measured import worsened
from worker.quality.thresholds import thresholds

LABELS = ("neg", "pos")
JOB = 7


def raters(
    *,
    gold: Sequence[str | None] | None = None,
    picked: Sequence[str | None] | None = None,
    judged: Sequence[str | None] | None = None,
    drawn: Sequence[bool] | None = None,
    adapter: Sequence[str | None] | None = None,
    oracle: Sequence[str | None] | None = None,
    reason: Sequence[str | None] | None = None,
    scores: Sequence[float] | None = None,
    lengths: Sequence[int] | None = None,
    labels: tuple[str, ...] = LABELS,
    gold_on: Literal["all", "random"] = "all",
) -> Raters:
    n = max(len(one) for one in (gold, adapter, oracle, reason, []) if one is not None)

    def codes(names: Sequence[str | None] | None, known: Sequence[str]) -> np.ndarray:
        given = [None] * n if names is None else names
        return np.array([NONE if name is None else known.index(name) for name in given], dtype=np.int16)

    return Raters(
        labels=labels,
        row_no=np.arange(1, n + 1),
        gold=codes(gold, labels),
        picked=codes(picked, labels),
        judged=codes(judged, labels),
        drawn=np.zeros(n, dtype=bool) if drawn is None else np.array(drawn),
        adapter=codes(adapter, labels),
        oracle=codes(oracle, labels),
        adapter_score=np.full(n, np.nan) if scores is None else np.array(scores),
        oracle_score=np.full(n, np.nan),
        characters=np.full(n, 10) if lengths is None else np.array(lengths),
        reason=codes(reason, REASONS),
        gold_on=gold_on,
    )


def drawn(policy: Policy, n: int, seed: int = 0) -> Raters:
    """A job of n reviews that went through its policy; some adapters fail, some oracles don't answer."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 2, n)
    gold: list[str | None] = []
    adapter: list[str | None] = []
    oracle: list[str | None] = []
    reason: list[str | None] = []
    scores = draw.uniform(0.5, 1, n)
    for row in range(n):
        audited = policy.is_audited(JOB, row + 1)
        has_adapter = draw.random() < 0.97 and (policy.kind != "oracle" or audited)
        mine = LABELS[truth[row] if draw.random() < scores[row] else 1 - truth[row]]
        why = None
        if policy.kind == "oracle":
            why = "policy"
        elif not has_adapter:
            why = "fallback" if policy.kind != "adapter" else None
        elif policy.below is not None and scores[row] < policy.below:
            why = "cascade"
        elif audited:
            why = "audit"
        answer = LABELS[truth[row] if draw.random() < 0.95 else 1 - truth[row]]
        gold.append(LABELS[truth[row]] if draw.random() < 0.8 else None)
        adapter.append(mine if has_adapter else None)
        reason.append(why)
        oracle.append(answer if why is not None and draw.random() < 0.95 else None)
        if not has_adapter:
            scores[row] = np.nan
    return raters(
        gold=gold, adapter=adapter, oracle=oracle, reason=reason, scores=scores.tolist(),
        lengths=draw.integers(5, 500, n).tolist(),
    )  # fmt: skip


def named(codes: np.ndarray) -> list[str | None]:
    return [None if code == NONE else LABELS[code] for code in codes.tolist()]


def table(*columns: Sequence[str | None]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for row in zip(*columns, strict=True):
        if None not in row:
            found[row] = found.get(row, 0) + 1
    return found


def whole(found: Sequence[Measurement]) -> dict[tuple[str, str], Measurement]:
    return {(",".join(one.raters), one.selection): one for one in found if one.slice == "all"}


def figures(one: Measurement) -> Any:
    """Without what else is known of the reviews."""
    rest = {"gold": None} if one.statistics.kind == "pair" else {}
    return dataclasses.replace(one.statistics, unanswered=0, **rest)


EXPECTED = {
    "adapter": {("gold,adapter", "all"), ("gold,final", "all")},
    "oracle": {("gold,final", "all"), ("gold,oracle", "all")},
    "fallback": {("gold,adapter", "all"), ("gold,final", "all")},
    "cascade": {("gold,adapter", "all"), ("gold,final", "all"), ("adapter,oracle", "escalated")},
}
AUDITED = {
    "adapter": {("gold,oracle", "audit"), ("adapter,oracle", "audit"), ("adapter,oracle,gold", "audit")},
    "oracle": {("gold,adapter", "audit"), ("adapter,oracle", "audit"), ("adapter,oracle,gold", "audit")},
    "fallback": {("gold,oracle", "audit"), ("adapter,oracle", "audit"), ("adapter,oracle,gold", "audit")},
    "cascade": {
        ("gold,oracle", "audit"), ("adapter,oracle,gold", "audit"),
        ("adapter,oracle", "audit+cascade"), ("final,oracle", "audit+cascade"),
    },
}  # fmt: skip


def policies() -> list[Policy]:
    return [
        Policy(kind, below=0.7 if kind == "cascade" else None, audit=audit, audit_seed=3)  # type: ignore[arg-type]
        for kind in EXPECTED
        for audit in (0.0, 0.3)
    ]


@pytest.mark.parametrize("policy", policies(), ids=str)
def test_each_policy_allows_its_comparisons_and_no_other(policy: Policy) -> None:
    found = whole(measure(drawn(policy, 800), policy, JOB))
    assert set(found) == EXPECTED[policy.kind] | (AUDITED[policy.kind] if policy.audit else set())


@pytest.mark.parametrize("policy", policies(), ids=str)
def test_nothing_is_twice_and_nothing_is_nan(policy: Policy) -> None:
    for n in (0, 1, 2, 30, 1200):
        job = drawn(policy, n, seed=n)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = measure(job, policy, JOB)
        keys = [(one.raters, one.selection, one.slice) for one in found]
        assert len(keys) == len(set(keys))
        for one in found:
            assert one.n > 0
            text = json.dumps(one.model_dump(mode="json"), allow_nan=False)
            assert Measurement.model_validate(json.loads(text)) == one


@pytest.mark.parametrize("kind", ["adapter", "fallback"])
def test_an_audit_is_a_sample_of_what_the_adapter_labelled(kind: Any) -> None:
    policy = Policy(kind, audit=0.3)
    job = drawn(policy, 900)
    found = whole(measure(job, policy, JOB))
    audited = job.asked_for("audit")
    adapter, oracle = named(job.adapter[audited]), named(job.oracle[audited])
    population = int((job.adapter != NONE).sum())
    one = found["adapter,oracle", "audit"]
    assert figures(one) == pair_of(table(adapter, oracle), LABELS, finite=population)
    assert one.statistics.unanswered == oracle.count(None) > 0
    assert np.array_equal(one.statistics.table, counted(table(adapter, oracle), LABELS))
    gold = named(job.gold[audited])
    with_gold = int(((job.adapter != NONE) & (job.gold != NONE)).sum())
    one = found["gold,oracle", "audit"]
    assert figures(one) == pair_of(table(gold, oracle), LABELS, finite=with_gold)
    one = found["adapter,oracle,gold", "audit"]
    assert figures(one) == many_of(dict(sorted(table(adapter, oracle, gold).items())), finite=with_gold)


def with_foreign(job: Raters) -> Raters:
    """The same job, and every fifth review that the adapter labelled is in another language: the oracle decides."""
    foreign = (job.row_no % 5 == 0) & (job.adapter != NONE)
    return dataclasses.replace(
        job,
        reason=np.where(foreign, REASONS.index("language"), job.reason).astype(np.int16),
        oracle=np.where(foreign, 1 - job.adapter, job.oracle).astype(np.int16),
    )


@pytest.mark.parametrize("kind", ["adapter", "fallback"])
def test_reviews_in_other_languages_are_in_an_audit_as_often_as_others(kind: Any) -> None:
    policy = Policy(kind, audit=0.3)
    job = with_foreign(drawn(policy, 900))
    hashed = np.array([policy.is_audited(JOB, row) for row in job.row_no.tolist()]) & (job.adapter != NONE)
    foreign = job.asked_for("language")
    assert 0 < (hashed & foreign).sum() < foreign.sum()
    one = whole(measure(job, policy, JOB))["adapter,oracle", "audit"]
    adapter, oracle = named(job.adapter[hashed]), named(job.oracle[hashed])
    assert figures(one) == pair_of(table(adapter, oracle), LABELS, finite=int((job.adapter != NONE).sum()))
    assert np.array_equal(uniform_audit(job, policy, JOB), hashed & (job.oracle != NONE))
    assert (job.final[foreign] == job.oracle[foreign]).all()


def test_reviews_in_other_languages_count_in_a_cascade_as_those_that_the_oracle_decides() -> None:
    policy = Policy("cascade", below=0.7, audit=0.3)
    job = with_foreign(drawn(policy, 1500))
    found = whole(measure(job, policy, JOB))["adapter,oracle", "audit+cascade"]
    assert found.statistics.kind == "cascade"
    decided = job.deferred & (job.adapter != NONE)
    assert found.statistics.escalated == int((decided & (job.oracle != NONE)).sum())
    assert found.statistics.audited == int((job.asked_for("audit") & (job.oracle != NONE)).sum())
    asked = {row.below: row.asked for row in thresholds(job, policy, JOB)}
    # Whatever the adapter's score is.
    assert min(asked.values()) >= job.asked_for("language").sum() / (job.adapter != NONE).sum()


def test_under_the_policy_oracle_the_adapters_labels_are_the_sample() -> None:
    policy = Policy("oracle", audit=0.3)
    job = drawn(policy, 900)
    found = whole(measure(job, policy, JOB))
    one = found["adapter,oracle", "audit"]
    expected = pair_of(
        table(named(job.adapter), named(job.oracle)), LABELS, finite=int((job.oracle != NONE).sum())
    )
    assert figures(one) == expected
    assert found["gold,adapter", "audit"].statistics.finite == int((job.gold != NONE).sum())
    assert found["gold,oracle", "all"].statistics.finite is None


def test_a_cascade_is_weighted_and_never_pooled() -> None:
    policy = Policy("cascade", below=0.7, audit=0.3)
    job = drawn(policy, 1500)
    found = whole(measure(job, policy, JOB))
    adapter, oracle, final = named(job.adapter), named(job.oracle), named(job.final)
    why = [None if one == NONE else REASONS[one] for one in job.reason.tolist()]
    escalated = table(*_where(why, "cascade", adapter, oracle))
    audited = table(*_where(why, "audit", adapter, oracle))
    trusted: dict[str, int] = {}
    for reason, mine, theirs in zip(why, adapter, oracle, strict=True):
        if mine is not None and reason != "cascade" and not (reason == "audit" and theirs is None):
            trusted[mine] = trusted.get(mine, 0) + 1
    for target in ("adapter", "final"):
        one = found[f"{target},oracle", "audit+cascade"]
        assert figures(one) == cascade_of(escalated, trusted, audited, LABELS, final=target == "final")
    by_adapter, by_final = (
        found[f"{target},oracle", "audit+cascade"].statistics.observed.value
        for target in ("adapter", "final")
    )
    assert by_final > by_adapter
    one = found["adapter,oracle", "escalated"]
    assert figures(one) == pair_of(escalated, LABELS)
    # The uniform sample has escalated reviews too: those that the draw would have taken.
    hashed = [policy.is_audited(JOB, row) for row in job.row_no.tolist()]
    expected_rows = [
        h and a is not None and o is not None for h, a, o in zip(hashed, adapter, oracle, strict=True)
    ]
    assert uniform_audit(job, policy, JOB).tolist() == expected_rows
    assert any(h and w == "cascade" for h, w in zip(expected_rows, why, strict=True))
    assert final != adapter


def _where(why: list[str | None], reason: str, *columns: list[str | None]) -> list[list[str | None]]:
    return [[value for value, one in zip(column, why, strict=True) if one == reason] for column in columns]


def test_a_cascade_whose_audit_saw_nothing_says_why_it_is_undefined() -> None:
    policy = Policy("cascade", below=0.7, audit=0.001)
    job = raters(
        adapter=["pos", "pos", "neg"],
        oracle=["pos", None, None],
        reason=["cascade", None, None],
        scores=[0.6, 0.9, 0.9],
    )
    one = whole(measure(job, policy, JOB))["adapter,oracle", "audit+cascade"]
    assert one.statistics.observed.value is one.statistics.observed.interval is None
    assert "the audit saw none of the trusted reviews" in one.statistics.reason


def test_a_review_without_label_counts_against_the_rater_that_was_to_label_all() -> None:
    job = raters(
        gold=["pos", "neg", "pos", None],
        adapter=["pos", "pos", None, "neg"],
        scores=[0.9, 0.8, math.nan, 0.7],
    )
    found = whole(measure(job, Policy(), JOB))
    for key in ("gold,adapter", "gold,final"):
        one = found[key, "all"]
        assert one.n == 2
        gold = one.statistics.gold
        assert (gold.n, gold.labelled, gold.accuracy.value) == (3, 2, pytest.approx(1 / 3))
        assert gold.confusion == {"neg": {"neg": 0, "pos": 1}, "pos": {"neg": 0, "pos": 1}}
        assert gold.calibration.n == 2


def test_slices_hold_every_review_once_and_are_samples_of_their_own_part() -> None:
    policy = Policy("adapter", audit=0.5)
    job = drawn(policy, 3000)
    found = measure(job, policy, JOB)
    for raters_, selection in {(one.raters, one.selection) for one in found} - {
        (("adapter", "oracle", "gold"), "audit")
    }:
        rows = [one for one in found if (one.raters, one.selection) == (raters_, selection)]
        [everything] = [one for one in rows if one.slice == "all"]
        for cut in ("length ", "score "):
            parts = [one for one in rows if one.slice.startswith(cut)]
            assert len(parts) == 10
            assert sum(one.n for one in parts) == everything.n
            assert all(one.gold is None or one.gold.calibration is None for one in parts)
            if selection == "audit":
                assert sum(one.statistics.finite for one in parts) == everything.statistics.finite


def test_few_reviews_arent_sliced() -> None:
    found = measure(drawn(Policy(), 90), Policy(), JOB)
    assert {one.slice for one in found} == {"all"}


def test_one_class_and_one_review_have_figures_or_none() -> None:
    one_class = raters(gold=["pos"] * 4, adapter=["pos"] * 4, scores=[0.9] * 4)
    one = whole(measure(one_class, Policy(), JOB))["gold,final", "all"]
    assert one.statistics.observed.value == 1.0
    assert one.statistics.kappa.value is None
    assert one.kappa_undefined == "gold has one label"
    assert one.statistics.gold.auroc is None
    # Nearly all are right, and kappa was 0.0000 (-0.68 to 0.41).
    most = raters(gold=["pos"] * 23, adapter=["pos"] * 22 + ["neg"])
    one = whole(measure(most, Policy(), JOB))["gold,final", "all"]
    assert (one.statistics.kappa, one.kappa_undefined) == (UNDEFINED, "gold has one label")
    kept = one.model_dump(mode="json")
    assert kept["statistics"]["kappa"]["value"] is None
    assert Measurement.model_validate(kept) == one
    other = raters(gold=["pos", "neg"], adapter=["pos", "pos"])
    assert whole(measure(other, Policy(), JOB))["gold,final", "all"].kappa_undefined == (
        "the final labels are all the same"
    )
    single = raters(gold=["pos"], adapter=["neg"])
    one = whole(measure(single, Policy(), JOB))["gold,final", "all"]
    assert (one.n, one.statistics.observed.value) == (1, 0.0)
    assert measure(raters(adapter=["pos", "neg"]), Policy(), JOB) == []
    assert measure(raters(gold=["pos", "neg"]), Policy(), JOB) == []


def test_labels_that_only_gold_has_are_compared_too() -> None:
    job = raters(gold=["mixed", "pos"], adapter=["pos", "pos"], labels=(*LABELS, "mixed"))
    one = whole(measure(job, Policy(), JOB))["gold,final", "all"]
    assert one.statistics.labels == (*LABELS, "mixed")
    assert one.statistics.table == ((0, 0, 0), (0, 1, 0), (0, 1, 0))
    assert one.statistics.gold.confusion["mixed"] == {"neg": 0, "pos": 1, "mixed": 0}


def test_an_audit_of_everything_is_a_census() -> None:
    policy = Policy("adapter", audit=1.0)
    job = raters(adapter=["pos", "neg", "pos"], oracle=["pos", "neg", "neg"], reason=["audit"] * 3)
    one = whole(measure(job, policy, JOB))["adapter,oracle", "audit"]
    assert one.statistics.observed == Estimate(2 / 3, 2 / 3, 2 / 3)


def test_harm_by_the_oracle_is_said_where_it_is_beyond_chance() -> None:
    def job(wrong: int, right: int) -> Raters:
        n = wrong + right
        # The adapter says pos throughout, the oracle neg, and gold sides with the one or the other.
        return raters(
            gold=["pos"] * wrong + ["neg"] * right,
            adapter=["pos"] * n,
            oracle=["neg"] * n,
            reason=["cascade"] * n,
        )

    assert worsened(job(20, 5)) == (
        "the oracle made these labels worse: it overruled the adapter on 25 reviews with gold, where the adapter was "
        "right 20 times and the oracle 5 times"
    )
    assert worsened(job(8, 5)) is None
    assert worsened(job(5, 20)) is None
