"""The estimators of a cascade with an audit: against a slow recomputation, against a census, and by simulation."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import for_each
from tests.unit.agreement_tables import LETTERS, TABLES, Table, as_json, cascade_of, pair_of
from worker.agreement import Z_95
from worker.agreement.cascade import CascadeStatistics
from worker.agreement.intervals import count_interval

Cascade = tuple[Table, dict[str, int], Table]

ESCALATED: Table = {("a", "a"): 200, ("a", "b"): 150, ("b", "a"): 120, ("b", "b"): 230}
TRUSTED = {"a": 4000, "b": 5000}
AUDITED: Table = {("a", "a"): 190, ("a", "b"): 10, ("b", "b"): 240, ("b", "a"): 9}


def random_cascade(seed: int) -> Cascade:
    """Two to six labels; some strata audited completely, some with no disagreement seen."""
    draw = random.Random(seed)
    labels = LETTERS[: draw.randint(2, 6)]
    escalated = {
        (one, other): draw.randint(0, 40) for one in labels for other in labels if draw.random() < 0.8
    }
    audited = {
        (one, other): draw.randint(1, 60) if one == other else draw.randint(0, 5)
        for one in labels
        for other in labels
        if one == other or draw.random() < 0.5
    }
    trusted = {
        label: sum(count for (one, _), count in audited.items() if one == label) * draw.choice([1, 1, 3, 20])
        for label in labels
    }
    return escalated, trusted, audited


CASCADES: dict[str, Cascade] = {
    "a thousand and more": (ESCALATED, TRUSTED, AUDITED),
    "nothing escalated": ({}, TRUSTED, AUDITED),
    "all escalated": (ESCALATED, {}, {}),
    "all audited": (ESCALATED, {"a": 200, "b": 249}, AUDITED),
    "no disagreement": ({("a", "a"): 9}, {"a": 900, "b": 800}, {("a", "a"): 40, ("b", "b"): 60}),
    "one audited review of each label": (ESCALATED, TRUSTED, {("a", "a"): 1, ("b", "b"): 1}),
    "one label only": ({("a", "a"): 5}, {"a": 90}, {("a", "a"): 9}),
    "a label only the oracle uses": ({("a", "c"): 5}, {"a": 90, "b": 50}, {("a", "c"): 9, ("b", "b"): 7}),
    "all disagree": ({("a", "b"): 5}, {"a": 90, "b": 90}, {("a", "b"): 9, ("b", "a"): 9}),
} | {f"random {seed}": random_cascade(seed) for seed in range(14)}

each_cascade = for_each({name: (cascade,) for name, cascade in CASCADES.items()})


def estimated_shares(cascade: Cascade, final: bool) -> dict[tuple[str, str], Fraction]:
    escalated, trusted, audited = cascade
    n = sum(escalated.values()) + sum(trusted.values())
    shares: dict[tuple[str, str], Fraction] = {}
    for (one, other), count in escalated.items():
        cell = (other, other) if final else (one, other)
        shares[cell] = shares.get(cell, Fraction(0)) + Fraction(count, n)
    for (one, other), count in audited.items():
        drawn = sum(seen for (label, _), seen in audited.items() if label == one)
        if count:
            shares[one, other] = shares.get((one, other), Fraction(0)) + Fraction(
                trusted[one] * count, n * drawn
            )
    return {cell: share for cell, share in shares.items() if share}


def recomputed(cascade: Cascade, final: bool, kind: str) -> tuple[float, float] | None:
    """Kappa or AC1 and its standard error, in loops, as the formulas are written."""
    escalated, trusted, audited = cascade
    shares = estimated_shares(cascade, final)
    names = sorted(
        {label for cell in shares for label in cell} | {a for a, count in trusted.items() if count}
    )
    names = sorted(
        {*names, *(label for cell, count in (escalated | audited).items() if count for label in cell)}
    )
    n = sum(escalated.values()) + sum(trusted.values())
    first = {a: sum(float(share) for (one, _), share in shares.items() if one == a) for a in names}
    second = {b: sum(float(share) for (_, other), share in shares.items() if other == b) for b in names}
    agree = float(sum(share for (one, other), share in shares.items() if one == other))
    half = {a: (first[a] + second[a]) / 2 for a in names}
    if kind == "kappa":
        chance = sum(first[a] * second[a] for a in names)
    elif len(names) < 2:
        return None
    else:
        chance = sum(half[a] * (1 - half[a]) for a in names) / (len(names) - 1)
    if chance > 1 - 1e-9:
        return None

    def score(a: str, b: str) -> float:
        bracket = second[a] + first[b]
        if kind == "ac1":
            bracket = ((1 - 2 * half[a]) + (1 - 2 * half[b])) / 2 / (len(names) - 1)
        return (a == b) / (1 - chance) - (1 - agree) / (1 - chance) ** 2 * bracket

    variance = 0.0
    for a, total in trusted.items():
        if not total:
            continue
        drawn = sum(count for (one, _), count in audited.items() if one == a)
        scores = [score(a, b) for b in names for _ in range(audited.get((a, b), 0) + 1)]
        mean = sum(scores) / len(scores)
        spread = sum((one - mean) ** 2 for one in scores) / (len(scores) - 1) if len(scores) > 1 else 0.0
        variance += (total / n) ** 2 * (1 - drawn / total) * spread / drawn
    return (agree - chance) / (1 - chance), math.sqrt(variance)


def both(cascade: Cascade) -> list[tuple[bool, CascadeStatistics]]:
    return [(final, cascade_of(*cascade, final=final)) for final in (False, True)]


def cells(one: CascadeStatistics) -> dict[tuple[str, str], float]:
    return {
        (first, second): share
        for first, row in zip(one.labels, one.table, strict=True)
        for second, share in zip(one.labels, row, strict=True)
    }


@each_cascade
def test_estimates_and_intervals_equal_the_formulas_in_loops(cascade: Cascade) -> None:
    for final, one in both(cascade):
        assert one.reason is None
        shares = estimated_shares(cascade, final)
        assert {cell: share for cell, share in cells(one).items() if share} == pytest.approx(
            {cell: float(share) for cell, share in shares.items()}, abs=1e-9
        )
        agree = sum(share for (first, second), share in shares.items() if first == second)
        assert one.observed.value == pytest.approx(float(agree), abs=1e-9)
        assert one.disagreements.value == pytest.approx(float((1 - agree) * one.n), abs=1e-6)
        for kind in ("kappa", "ac1"):
            estimate, reference = getattr(one, kind), recomputed(cascade, final, kind)
            if reference is None:
                assert (estimate.value, estimate.interval) == (None, None)
                continue
            value, error = reference
            assert estimate.value == pytest.approx(value, abs=1e-9)
            low, high = estimate.interval
            assert -1 <= low <= estimate.value <= high <= 1
            if error > 1e-12 and abs(value) < 1 - 1e-12:
                half = Z_95 * error / (1 - value**2)
                assert low == pytest.approx(math.tanh(math.atanh(value) - half), abs=1e-9)
                assert high == pytest.approx(math.tanh(math.atanh(value) + half), abs=1e-9)


@each_cascade
def test_the_ends_of_observed_agreement_are_hypergeometric_in_the_trusted_reviews(cascade: Cascade) -> None:
    escalated, trusted, audited = cascade
    wrong = sum(count for (one, other), count in audited.items() if one != other)
    low, high = count_interval(wrong, sum(audited.values()), sum(trusted.values()))
    for final, one in both(cascade):
        certain = (
            0 if final else sum(count for (first, second), count in escalated.items() if first != second)
        )
        left = one.disagreements.value
        assert left is not None
        assert one.disagreements.interval == pytest.approx(
            (min(left, certain + low), max(left, certain + high))
        )
        assert one.observed.interval == pytest.approx(
            tuple(1 - end / one.n for end in reversed(one.disagreements.interval or ()))
        )


@for_each({name: (table,) for name, table in TABLES.items()})
def test_a_complete_audit_is_the_census_of_the_job(table: Table) -> None:
    trusted = {
        label: sum(count for (one, _), count in table.items() if one == label)
        for label in {a for a, _ in table}
    }
    census = pair_of(table, finite=sum(table.values()))
    for _, one in both(({}, trusted, table)):
        for kind in ("observed", "kappa", "ac1"):
            estimate, reference = getattr(one, kind), getattr(census, kind)
            if reference.value is None:
                assert estimate.value is None
            else:
                assert estimate.value == pytest.approx(reference.value, abs=1e-9)
                assert estimate.interval == pytest.approx(reference.interval, abs=1e-9)


def test_a_uniform_audit_of_one_label_is_the_plain_sample() -> None:
    found = cascade_of({}, {"a": 1000}, {("a", "a"): 90, ("a", "b"): 10}, final=False)
    plain = pair_of({("a", "a"): 90, ("a", "b"): 10}, finite=1000)
    assert found.observed.value == plain.observed.value
    assert found.observed.interval == pytest.approx(plain.observed.interval)


def test_final_labels_disagree_only_where_the_adapter_was_trusted() -> None:
    (_, adapter), (_, found) = both((ESCALATED, TRUSTED, AUDITED))
    # An audit changes no label, so audited disagreements are left too: sum of N_a e_a / n_a.
    assert found.disagreements.value == pytest.approx(4000 * 10 / 200 + 5000 * 9 / 249)
    assert adapter.disagreements.value == pytest.approx(150 + 120 + 4000 * 10 / 200 + 5000 * 9 / 249)
    assert cells(found)["b", "b"] == pytest.approx((150 + 230 + 5000 * 240 / 249) / 9700)
    assert (found.n, found.escalated, found.trusted, found.audited) == (9700, 700, 9000, 449)


def test_a_label_the_audit_never_met_leaves_the_figures_undefined_and_says_why() -> None:
    for _, one in both((ESCALATED, TRUSTED, {("a", "a"): 12})):
        assert one.reason == "the audit saw none of the trusted reviews 5,000 labelled 'b'"
        assert (one.observed.value, one.kappa.value, one.ac1.value, one.disagreements.value) == (None,) * 4
        assert (one.table, one.n, one.audited) == ((), 9700, 12)
        assert as_json(one)["observed"] == {"value": None, "low": None, "high": None}


@each_cascade
def test_the_json_has_no_undefined_numbers_and_what_was_counted(cascade: Cascade) -> None:
    for _, one in both(cascade):
        kept = as_json(one)
        assert sum(map(sum, kept["escalated_table"])) == one.escalated
        assert sum(map(sum, kept["audited_table"])) == one.audited
        assert sum(kept["trusted_by_label"]) == one.trusted


def test_labels_come_in_the_order_given_and_change_ac1_alone() -> None:
    plain = cascade_of(ESCALATED, TRUSTED, AUDITED, final=False)
    wider = cascade_of(ESCALATED, TRUSTED, AUDITED, ("c", "b", "a"), final=False)
    assert wider.labels == ("c", "b", "a")
    assert wider.kappa.value == pytest.approx(plain.kappa.value)
    assert (wider.ac1.value or 0) > (plain.ac1.value or 0)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_new_names_of_the_labels_change_no_figure(seed: int) -> None:
    escalated, trusted, audited = random_cascade(seed)
    turned = str.maketrans("abcdef", "fedcba")

    def renamed(table: Table) -> Table:
        return {
            (one.translate(turned), other.translate(turned)): count for (one, other), count in table.items()
        }

    other = {label.translate(turned): count for label, count in trusted.items()}
    for (_, one), (_, same) in zip(
        both((escalated, trusted, audited)),
        both((renamed(escalated), other, renamed(audited))),
        strict=True,
    ):
        for kind in ("observed", "kappa", "ac1"):
            assert getattr(one, kind).value == pytest.approx(getattr(same, kind).value, abs=1e-9)
            assert getattr(one, kind).interval == pytest.approx(getattr(same, kind).interval, abs=1e-9)


def test_intervals_cover_the_job_where_the_pooled_table_never_does() -> None:
    draw = np.random.default_rng(3)
    n = 6000
    score = 1 - draw.beta(0.6, 3, n) / 2
    adapter = (draw.random(n) < 0.4).astype(int)
    # Over-confident: twice as often wrong as the score promises.
    oracle = np.where(draw.random(n) < np.minimum(1, 2 * (1 - score)), 1 - adapter, adapter)
    unsure = score < 0.8

    def counted(first: np.ndarray, second: np.ndarray) -> Table:
        return {
            (LETTERS[a], LETTERS[b]): int(((first == a) & (second == b)).sum())
            for a in (0, 1)
            for b in (0, 1)
        }

    truth = pair_of(counted(adapter, oracle), finite=n)
    final_truth = pair_of(counted(np.where(unsure, oracle, adapter), oracle), finite=n)
    escalated = counted(adapter[unsure], oracle[unsure])
    trusted = {LETTERS[a]: int((~unsure & (adapter == a)).sum()) for a in (0, 1)}
    figures = [(which, kind) for which in ("adapter", "final") for kind in ("observed", "kappa", "ac1")]
    covered = dict.fromkeys([*figures, ("pooled", "kappa")], 0)
    values: dict[tuple[str, str], list[float]] = {figure: [] for figure in figures}
    repetitions = 400
    for _ in range(repetitions):
        audit = ~unsure & (draw.random(n) < 0.05)
        seen = counted(adapter[audit], oracle[audit])
        found = {
            which: cascade_of(escalated, trusted, seen, final=which == "final")
            for which in ("adapter", "final")
        }
        for which, kind in figures:
            estimate = getattr(found[which], kind)
            true = getattr(truth if which == "adapter" else final_truth, kind).value
            covered[which, kind] += estimate.interval[0] <= true <= estimate.interval[1]
            values[which, kind].append(estimate.value - true)
        pooled = pair_of({cell: escalated[cell] + seen[cell] for cell in seen}).kappa
        assert pooled.interval is not None
        covered["pooled", "kappa"] += pooled.interval[0] <= (truth.kappa.value or 0) <= pooled.interval[1]
    for figure in figures:
        assert 0.93 <= covered[figure] / repetitions <= 0.995, figure
        assert abs(np.mean(values[figure])) < 0.01, figure
    assert covered["pooled", "kappa"] < 0.05 * repetitions
