"""A sample is random but repeatable, and gives every gold label its share."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.files import sample
from worker.reviews import Reject, Review

kinds = st.lists(st.sampled_from(["pos", "neg", None, "reject"]), max_size=60)


def records(found):
    return [
        Reject(row, row, "bad") if kind == "reject" else Review(row, "x", gold_label=kind)
        for row, kind in enumerate(found, 1)
    ]


@settings(max_examples=60, deadline=None)
@given(found=kinds, n=st.integers(0, 70), seed=st.integers(0, 5))
def test_sample_has_n_readable_rows_in_proportion_to_their_labels(found, n, seed):
    rows = sample(lambda: iter(records(found)), n, seed)
    readable = {row: kind for row, kind in enumerate(found, 1) if kind != "reject"}
    assert len(rows) == min(n, len(readable))
    assert rows <= set(readable)
    assert rows == sample(lambda: iter(records(found)), n, seed)
    for kind, count in Counter(readable.values()).items():
        share = min(n, len(readable)) * count / len(readable)
        assert abs(sum(readable[row] == kind for row in rows) - share) < 1


def test_seed_chooses_the_sample():
    everything = records(["pos", "neg"] * 500)
    samples = {sample(lambda: iter(everything), 20, seed) for seed in range(20)}
    assert len(samples) == 20


def test_every_row_is_as_likely_as_any_other():
    everything = records([None] * 40)
    drawn = Counter(row for seed in range(800) for row in sample(lambda: iter(everything), 10, seed))
    assert all(140 < drawn[row] < 260 for row in range(1, 41))  # 200 expected, 12 the standard deviation


def test_column_with_very_many_labels_gives_a_plain_sample():
    everything = [Review(row, "x", gold_label=str(row)) for row in range(1, 301)]
    unlabelled = [Review(row, "x") for row in range(1, 301)]
    assert sample(lambda: iter(everything), 30, 7) == sample(lambda: iter(unlabelled), 30, 7)
