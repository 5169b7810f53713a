"""Statistics of pairs against statsmodels, scikit-learn, irrCAC and exact recomputation, over every shared table."""

import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from tests.cases import for_each
from tests.unit.agreement_reference import IRRCAC
from tests.unit.agreement_tables import PUBLISHED, TABLES, Table, as_json, counted, names_of, pair_of
from worker.agreement import Z_95, wilson
from worker.agreement.intervals import Estimate, count_interval
from worker.agreement.kappa import Coefficient, ac1, kappa, sample_variance, scotts_pi

each_table = for_each({name: (table,) for name, table in TABLES.items()})
TABLES_OF_ALL = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), st.integers(0, 60), max_size=16
).filter(lambda table: sum(table.values()) > 0)
COEFFICIENTS = ("observed", "kappa", "ac1", "alpha")


def exact_kappa(table: Table) -> Fraction | None:
    """Cohen (1960), in whole numbers."""
    n = sum(table.values())
    equal = sum(count for (first, second), count in table.items() if first == second)
    firsts, seconds = Counter[str](), Counter[str]()
    for (first, second), count in table.items():
        firsts[first] += count
        seconds[second] += count
    by_chance = sum(count * seconds[label] for label, count in firsts.items())
    return Fraction(n * equal - by_chance, n * n - by_chance) if by_chance != n * n else None


def exact_ac1(table: Table) -> Fraction | None:
    """Gwet (2008), in fractions."""
    labels, n = names_of(table), sum(table.values())
    if len(labels) < 2:
        return None
    equal = Fraction(sum(count for (first, second), count in table.items() if first == second), n)
    by_chance = Fraction(0)
    for label in labels:
        used = Fraction(sum(pair.count(label) * count for pair, count in table.items()), 2 * n)
        by_chance += used * (1 - used)
    by_chance /= len(labels) - 1
    return (equal - by_chance) / (1 - by_chance)


def exact_alpha(table: Table) -> Fraction | None:
    """Krippendorff (2011), by the matrix of coincidences: each review puts both orders of its two values in."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for (first, second), count in table.items():
        coincidences[first, second] += count
        coincidences[second, first] += count
    values: Counter[str] = Counter()
    for (first, _), count in coincidences.items():
        values[first] += count
    total = values.total()
    observed = sum(count for (first, second), count in coincidences.items() if first != second)
    expected = sum(values[first] * values[second] for first in values for second in values if first != second)
    return 1 - Fraction((total - 1) * observed, expected) if expected else None


def width(found: Estimate) -> float:
    low, high = found.interval or (math.nan, math.nan)
    return high - low


def standard_error(found: Estimate) -> float:
    """What the transformed interval was made of."""
    assert found.value is not None
    assert found.interval is not None
    return (math.atanh(found.interval[1]) - math.atanh(found.value)) * (1 - found.value**2) / Z_95


def assert_close(found: float | None, reference: Fraction | float | None) -> None:
    if reference is None or found is None:
        assert found is None
        assert reference is None
    else:
        assert found == pytest.approx(float(reference), abs=1e-9, rel=1e-9)


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float) else []


def has_one_sided(table: Table) -> bool:
    """Whether a rater gave one label only."""
    given = [pair for pair, count in table.items() if count]
    return 1 in (len({first for first, _ in given}), len({second for _, second in given}))


@each_table
def test_kappa_equals_the_one_in_whole_numbers(table: Table) -> None:
    found = pair_of(table)
    # 0.0000 (-0.68 to 0.41) was shown beside an accuracy of 0.957.
    expected = None if has_one_sided(table) else exact_kappa(table)
    assert_close(found.kappa.value, expected)
    assert (found.alpha.value is None) == (found.kappa.value is None)


def test_of_few_reviews_value_and_interval_fit_together() -> None:
    for n in range(1, 13):
        for both, first, second in itertools.product(range(n + 1), repeat=3):
            if both + first + second > n:
                continue
            table = {
                ("a", "a"): both,
                ("a", "b"): first,
                ("b", "a"): second,
                ("b", "b"): n - both - first - second,
            }
            found = pair_of(table)
            for one in (found.kappa, found.ac1, found.alpha):
                if one.value is not None:
                    assert -1 <= (one.low or 0) <= one.value <= (one.high or 0) <= 1
                    assert one.low != one.high


@each_table
def test_kappa_and_its_variance_equal_statsmodels(table: Table) -> None:
    labels, n = names_of(table), sum(table.values())
    counts = counted(table, labels)
    found = kappa(counts / n)
    if len(labels) < 2:
        assert found is None
        return
    # Where no variance is left, statsmodels divides by it for a test that isn't compared.
    with np.errstate(all="ignore"):
        reference = cohens_kappa(counts)
    assert found is not None
    assert found.value == pytest.approx(reference.kappa, abs=1e-9)
    variance = sample_variance(found.scores, counts / n, n)
    # Fleiss, Cohen and Everitt (1969) divide by n where a sample's variance divides by n - 1.
    if variance is not None and found.expected > 1e-6:
        assert variance / n * (n - 1) / n == pytest.approx(reference.var_kappa, abs=1e-12, rel=1e-7)


@each_table
def test_kappa_equals_scikit_learns(table: Table) -> None:
    counts = {pair: count for pair, count in table.items() if count}
    if has_one_sided(table):
        return
    reference = cohen_kappa_score(
        [first for first, _ in counts],
        [second for _, second in counts],
        sample_weight=np.array(list(counts.values()), dtype=np.float64),
    )
    assert_close(pair_of(table).kappa.value, reference)


@each_table
def test_ac1_and_alpha_equal_their_definition_in_fractions(table: Table) -> None:
    found = pair_of(table)
    assert_close(found.ac1.value, exact_ac1(table))
    assert_close(found.alpha.value, None if has_one_sided(table) else exact_alpha(table))


@for_each({f"{name}, finite: {finite}": (name, finite) for name in IRRCAC for finite in (False, True)})
def test_coefficients_and_their_standard_errors_equal_irrcacs(name: str, finite: bool) -> None:
    n = sum(TABLES[name].values())
    found = pair_of(TABLES[name], finite=3 * n if finite else None)
    # irrCAC divides by n where a sample's variance divides by n - 1, and corrects alpha itself for small samples but
    # not its standard error.
    scale = math.sqrt(n / (n - 1)) * (math.sqrt(2 / 3) if finite else 1)
    reference = IRRCAC[name]
    for place, (one, shrink) in enumerate(
        ((found.kappa, 1.0), (found.ac1, 1.0), (found.alpha, 1 - 1 / (2 * n)))
    ):
        assert one.value == pytest.approx(reference[2 * place], abs=1e-9)
        # They round to 13 places, which is what the rest of a tiny standard error hangs on.
        assert standard_error(one) == pytest.approx(reference[2 * place + 1] * scale * shrink, rel=1e-7)


def test_published_figures_are_met() -> None:
    cohen = pair_of(PUBLISHED["Cohen 1960, two clinicians"])
    assert round(cohen.kappa.value or 0, 3) == 0.492
    fleiss = pair_of(PUBLISHED["Fleiss 1981, table 13.1"])
    assert (round(fleiss.kappa.value or 0, 2), round(standard_error(fleiss.kappa), 3)) == (0.68, 0.088)
    gwet = pair_of(PUBLISHED["Gwet 2002, a rare trait"])
    assert (round(gwet.kappa.value or 0, 4), round(gwet.ac1.value or 0, 4)) == (-0.0234, 0.9408)
    for name, alpha in (("binary", 0.095), ("nominal", 0.692)):
        assert round(pair_of(PUBLISHED[f"Krippendorff 2011, {name}"]).alpha.value or 0, 3) == alpha
    # Cicchetti and Feinstein (1990): the two tables of their paradox, positive and negative agreement.
    one_sided = pair_of(PUBLISHED["Feinstein and Cicchetti 1990, one-sided"])
    assert [round(one.specific.value or 0, 3) for one in one_sided.by_label] == [0.914, 0.4]


@each_table
def test_figures_of_a_label_equal_counting_it(table: Table) -> None:
    n = sum(table.values())
    for one in pair_of(table).by_label:
        first = sum(count for pair, count in table.items() if pair[0] == one.label)
        second = sum(count for pair, count in table.items() if pair[1] == one.label)
        both = table.get((one.label, one.label), 0)
        assert (one.first, one.second, one.both) == (first, second, both)
        assert_close(one.specific.value, Fraction(2 * both, first + second) if first + second else None)
        assert_close(one.of_first.value, Fraction(both, first) if first else None)
        assert_close(one.of_second.value, Fraction(both, second) if second else None)
        assert_close(one.bias.value, Fraction(first - second, n))
        if first:
            assert one.of_first.interval == wilson(both, first)


@for_each(
    {f"{name}, {size} times": (table, size) for name, table in TABLES.items() for size in (None, 1, 2, 40)}
)
def test_every_figure_is_finite_in_order_and_json(table: Table, size: int | None) -> None:
    n = sum(table.values())
    found = pair_of(table, finite=None if size is None else n * size)
    assert all(math.isfinite(number) for number in numbers(as_json(found)))
    estimates = [getattr(found, name) for name in COEFFICIENTS]
    estimates += [
        getattr(one, name) for one in found.by_label for name in ("specific", "of_first", "of_second", "bias")
    ]
    for one in estimates:
        if one.value is None:
            assert one.interval is None
        else:
            low, high = one.interval
            assert -1 <= low <= one.value <= high <= 1
            # Of a sample nothing is known for sure, however much the reviews seen agree.
            assert low == pytest.approx(high, abs=1e-12) if size == 1 else low < high


def test_half_of_a_job_says_as_much_of_it_as_twice_the_reviews_of_endless_ones() -> None:
    table = {("a", "a"): 40, ("a", "b"): 9, ("b", "a"): 4, ("b", "b"): 47}
    half = pair_of(table, finite=200)
    one = half.by_label[0]
    assert one.of_first.interval == pytest.approx(wilson(80, 98))
    overlap = wilson(80, 106)
    assert one.specific.interval == pytest.approx(tuple(2 * end / (1 + end) for end in overlap))
    # Newcombe's distances are made of Wilson's, and phi alone depends on the 100 reviews themselves.
    endless = pair_of(table).by_label[0].bias
    assert width(one.bias) == pytest.approx(width(endless) / math.sqrt(2), rel=0.02)
    low, high = count_interval(87, 100, 200)
    assert half.observed.interval == (low / 200, high / 200)


def test_labels_that_could_have_been_given_count_for_ac1_alone() -> None:
    table = {("a", "a"): 20, ("a", "b"): 3, ("b", "b"): 9}
    plain, with_third = pair_of(table), pair_of(table, labels=("c", "b", "a"))
    assert with_third.labels == ("c", "b", "a")
    assert with_third.kappa.value == pytest.approx(plain.kappa.value)
    assert with_third.alpha.value == pytest.approx(plain.alpha.value)
    # Pe halves as K - 1 doubles.
    by_chance = 1 - (1 - (plain.observed.value or 0)) / (1 - (plain.ac1.value or 0))
    expected = ((plain.observed.value or 0) - by_chance / 2) / (1 - by_chance / 2)
    assert with_third.ac1.value == pytest.approx(expected)


def test_of_one_label_ac1_is_known_if_another_could_have_been_given() -> None:
    assert pair_of({("a", "a"): 9}).ac1.value is None
    assert pair_of({("a", "a"): 9}, labels=("a", "b")).ac1.value == 1.0


def test_a_label_outside_the_known_ones_comes_after_them() -> None:
    found = pair_of({("a", "z"): 2, ("c", "c"): 1}, labels=("b", "a"))
    assert found.labels == ("b", "a", "c", "z")


def test_a_job_smaller_than_its_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="5 can't be a sample of 4"):
        pair_of({("a", "b"): 5}, finite=4)


def test_where_all_agree_the_lower_end_is_that_of_observed_agreement_carried_over() -> None:
    found = pair_of({("a", "a"): 25, ("b", "b"): 25})
    low = wilson(50, 50)[0]
    assert found.kappa.value == 1.0
    assert found.kappa.interval == (pytest.approx(1 - (1 - low) / 0.5), 1.0)


@settings(deadline=None)
@given(TABLES_OF_ALL, st.integers(1, 5))
def test_agreement_is_symmetric_in_the_raters_and_bias_changes_its_sign(table: Table, size: int) -> None:
    finite = size * sum(table.values())
    found = pair_of(table, finite=finite)
    turned = pair_of({(second, first): count for (first, second), count in table.items()}, finite=finite)
    for name in COEFFICIENTS:
        assert_same(getattr(found, name), getattr(turned, name))
    for one, other in zip(found.by_label, turned.by_label, strict=True):
        assert_same(one.specific, other.specific)
        assert_same(one.of_first, other.of_second)
        assert_close(one.p_value, other.p_value)
        if one.bias.value is not None and one.bias.interval is not None:
            low, high = one.bias.interval
            assert_same(Estimate(-one.bias.value, -high, -low), other.bias)


@settings(deadline=None)
@given(TABLES_OF_ALL, st.randoms(use_true_random=False))
def test_new_names_and_another_order_of_the_labels_change_no_figure(
    table: Table, shuffle: random.Random
) -> None:
    names = list("wxyz")
    shuffle.shuffle(names)
    renamed = dict(zip("abcd", names, strict=True))
    cells = list(table.items())
    shuffle.shuffle(cells)
    found = pair_of(table)
    other = pair_of({(renamed[first], renamed[second]): count for (first, second), count in cells})
    for name in COEFFICIENTS:
        assert_same(getattr(found, name), getattr(other, name))
    assert found.marginal.p_value == pytest.approx(other.marginal.p_value, abs=1e-9)
    by_name = {one.label: one for one in other.by_label}
    for one in found.by_label:
        assert_same(one.specific, by_name[renamed[one.label]].specific)
        assert_same(one.bias, by_name[renamed[one.label]].bias)


@settings(deadline=None)
@given(TABLES_OF_ALL)
def test_a_larger_job_leaves_more_to_chance(table: Table) -> None:
    n = sum(table.values())
    widths = []
    for finite in (n, 2 * n, 10 * n, 1000 * n):
        found = pair_of(table, finite=finite).kappa
        if found.interval is None:
            return
        widths.append(found.interval[1] - found.interval[0])
    assert widths[0] == pytest.approx(0, abs=1e-12)
    assert widths[1] <= widths[2] <= widths[3]


@given(TABLES_OF_ALL)
def test_scores_average_to_what_a_review_more_would_move(table: Table) -> None:
    """The linearised scores are the derivative of the coefficient by the share of each cell."""
    labels, n = names_of(table), sum(table.values())
    if len(labels) < 2 or n < 5:
        return
    shares = counted(table, labels) / n
    for coefficient in (kappa, ac1, scotts_pi):
        found = coefficient(shares)
        assert isinstance(found, Coefficient)
        mean = float((shares * found.scores).sum())
        for cell in ((0, 0), (0, 1), (1, 0)):
            moved = shares * (1 - 1e-6)
            moved[cell] += 1e-6
            other = coefficient(moved)
            assert isinstance(other, Coefficient)
            if found.expected < 0.02:
                continue
            slope = (other.value - found.value) / 1e-6
            assert slope == pytest.approx(float(found.scores[cell]) - mean, abs=1e-2, rel=1e-2)


def assert_same(one: Estimate, other: Estimate) -> None:
    assert_close(one.value, other.value)
    if one.interval is None or other.interval is None:
        assert one.interval == other.interval
    else:
        assert one.interval == pytest.approx(other.interval, abs=1e-9)
