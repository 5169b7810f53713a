import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import class_weights, data_sha256, read_labelled, split, steps
from worker.errors import ColumnMissing, TrainingInvalid
from worker.files import ReadOptions


def write(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labelled(labels: list[str]) -> list[tuple[str, str]]:
    return [(f"A review, number {number}, of this book.", label) for number, label in enumerate(labels)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 256), max_size=300), st.integers(256, 4096), st.integers(0, 5))
def test_an_epoch_holds_every_review_once_within_the_budget(
    lengths: list[int], budget: int, seed: int
) -> None:
    planned = steps(lengths, token_budget=budget, seed=seed)
    assert sorted(row for step in planned for row in step) == list(range(len(lengths)))
    assert all(len(step) * max(lengths[row] for row in step) <= budget for step in planned)
    assert planned == steps(lengths, token_budget=budget, seed=seed)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=100), st.floats(0.01, 0.99))
def test_the_split_is_a_partition_with_each_label_in_both_parts(labels: list[int], share: float) -> None:
    train, validation = split(labels, share, 0)
    assert sorted(train + validation) == list(range(len(labels)))
    for label in set(labels):
        if labels.count(label) >= 2:
            assert label in {labels[row] for row in train} & {labels[row] for row in validation}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=300), st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_split_has_the_same_share_of_each_label(labels: list[int], share: float, seed: int) -> None:
    train, validation = split(labels, share, seed)
    assert (train, validation) == split(labels, share, seed)
    for label in set(labels):
        count = labels.count(label)
        aside = sum(labels[row] == label for row in validation)
        assert abs(aside - count * share) <= 1
        assert count == 1 or 1 <= aside < count


def test_splits_differ_by_seed_and_are_in_random_order() -> None:
    labels = [0] * 50 + [1] * 50
    train, validation = split(labels, 0.2, 1)
    assert sorted(validation) != sorted(split(labels, 0.2, 2)[1])
    assert train != sorted(train)
    assert [labels[row] for row in train] != sorted(labels[row] for row in train)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), max_size=200))
def test_weighted_labels_weigh_the_same(drawn: list[int]) -> None:
    labels = [*range(5), *drawn]
    weights = class_weights(labels, 5)
    totals = [weights[label] * labels.count(label) for label in range(5)]
    assert totals == pytest.approx([len(labels) / 5] * 5)
    assert sum(weights[label] for label in labels) == pytest.approx(len(labels))


def test_a_label_without_reviews_has_no_weight() -> None:
    assert class_weights([0, 0, 0, 1], 2) == [pytest.approx(2 / 3), 2.0]
    with pytest.raises(TrainingInvalid, match="1 of 3 labels"):
        class_weights([0, 1], 3)


def test_epochs_differ() -> None:
    assert steps([5] * 50, token_budget=20, seed=1) != steps([5] * 50, token_budget=20, seed=2)


@pytest.mark.parametrize(
    ("found", "labels", "gold"),
    [
        (["1", "0", "1"], ("negative", "positive"), ["positive", "negative", "positive"]),
        (["pos", "NEG", "pos"], ("negative", "positive"), ["positive", "negative", "positive"]),
        (["red", "Blue", "red"], ("Blue", "red"), ["red", "Blue", "red"]),
        (["2", "0", "1"], ("0", "1", "2"), ["2", "0", "1"]),
        (["10", "2", "1.5"], ("1.5", "2", "10"), ["10", "2", "1.5"]),
        (
            ["Fair", "good", "FAIR", "Bad", "Good"],
            ("Bad", "Fair", "good"),
            ["Fair", "good", "Fair", "Bad", "good"],
        ),
    ],
)
def test_label_names_come_from_the_data(
    tmp_path: Path, found: list[str], labels: tuple[str, ...], gold: list[str]
) -> None:
    # Named, since a column of 0 to 2 could be a rating and isn't guessed to hold labels.
    reviews = read_labelled(
        [write(tmp_path / "reviews.csv", labelled(found))], read=ReadOptions(label_column="label")
    )
    assert reviews.labels == labels
    assert reviews.gold == gold


def test_given_label_names_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", labelled(["0", "1", "bad", "GOOD"]))
    reviews = read_labelled([path], read=ReadOptions(labels="good,bad"))
    assert reviews.labels == ("good", "bad")
    assert reviews.gold == ["good", "bad", "bad", "good"]


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingInvalid, match="mixed"):
        read_labelled(
            [write(tmp_path / "r.csv", labelled(["good", "mixed"]))], read=ReadOptions(labels="bad,good")
        )


def test_a_marker_of_a_missing_value_is_no_label(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", labelled(["0", "1", "NA", "nan"]))
    for reviews in (read_labelled([path]), read_labelled([path], labels=("negative", "positive"))):
        assert reviews.labels == ("negative", "positive")
        assert reviews.gold == ["negative", "positive"]
        assert "2 reviews without a label left out" in reviews.announcements


def test_of_exact_duplicates_the_first_is_kept_and_told(tmp_path: Path) -> None:
    rows = labelled(["0", "1"] * 3)
    reviews = read_labelled([write(tmp_path / "r.csv", [*rows, rows[0], rows[4], rows[0]])])
    assert reviews.texts == [text for text, _ in rows]
    assert any(line == "3 exact duplicates left out" for line in reviews.announcements)
    assert not any("different labels" in line for line in reviews.announcements)


def test_a_text_with_different_labels_is_left_out_altogether_and_told(tmp_path: Path) -> None:
    # The first was kept, and its label with it: right or wrong by chance.
    rows = labelled(["0", "1"] * 3)
    other = (rows[1][0], "0")
    reviews = read_labelled([write(tmp_path / "r.csv", [*rows, rows[1], other, rows[0]])])
    assert reviews.texts == [text for number, (text, _) in enumerate(rows) if number != 1]
    assert "1 exact duplicates left out" in reviews.announcements
    assert "3 reviews left out since the same text has different labels" in reviews.announcements


def test_labels_that_are_spelled_differently_are_no_conflict(tmp_path: Path) -> None:
    rows = [*labelled(["pos", "NEG"]), *labelled(["1", "negative"])]
    reviews = read_labelled([write(tmp_path / "r.csv", rows)], read=ReadOptions(labels="negative,positive"))
    assert reviews.gold == ["positive", "negative"]


def test_texts_with_nothing_but_conflicts_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", [*labelled(["0", "1"]), *labelled(["1", "0"])])
    with pytest.raises(TrainingInvalid, match="Keep one label for each"):
        read_labelled([path])


@pytest.mark.parametrize("found", ["1", "great"])
def test_one_label_only_is_refused_unless_labels_are_given(tmp_path: Path, found: str) -> None:
    # 1 alone means positive of negative and positive, but nothing can be learnt from it.
    path = write(tmp_path / "r.csv", labelled([found] * 12))
    with pytest.raises(TrainingInvalid, match=r"all 12 reviews have the label.*two labels or more\.$"):
        read_labelled([path])
    assert len(read_labelled([path], read=ReadOptions(labels="bad,great")).texts) == 12


def test_a_limit_that_cut_the_other_labels_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", labelled(["0"] * 5 + ["1"] * 5))
    with pytest.raises(TrainingInvalid, match="--limit"):
        read_labelled([path], limit=5)


def test_each_file_has_columns_of_its_own(tmp_path: Path) -> None:
    first = write(tmp_path / "first.csv", labelled(["0", "1"]))
    second = tmp_path / "second.csv"
    with second.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("stars", "sentiment", "review"), (5, "pos", "Loved it."), (1, "neg", "No.")]
        )
    reviews = read_labelled([first, second], read=ReadOptions(labels="negative,positive"))
    assert reviews.gold == ["negative", "positive", "positive", "negative"]
    assert any(line.startswith("second.csv: text column: 'review'") for line in reviews.announcements)


def test_a_named_column_must_be_in_each_file(tmp_path: Path) -> None:
    first = write(tmp_path / "first.csv", labelled(["0", "1"]), header=("body", "label"))
    second = write(tmp_path / "second.csv", labelled(["0", "1"]))
    with pytest.raises(ColumnMissing, match=r"second\.csv has no column 'body'"):
        read_labelled([first, second], read=ReadOptions(text_column="body"))


def test_reviews_without_a_label_are_left_out_and_told(tmp_path: Path) -> None:
    reviews = read_labelled([write(tmp_path / "r.csv", labelled(["0", "1", "", "1"]))])
    assert len(reviews.texts) == 3
    assert any("without a label" in line for line in reviews.announcements)


def test_the_limit_counts_over_all_files(tmp_path: Path) -> None:
    paths = [
        write(
            tmp_path / f"{name}.csv",
            [(f"{name}: {text}", label) for text, label in labelled(["0", "1", "0"])],
        )
        for name in "ab"
    ]
    assert len(read_labelled(paths, limit=4).texts) == 4


@pytest.mark.parametrize("number", ["{}", "-{}.5", "{},25", " {}. ", ".{}", "{}e-05"])
def test_a_text_column_of_numbers_is_refused_in_any_file(tmp_path: Path, number: str) -> None:
    first = write(tmp_path / "first.csv", labelled(["0", "1"] * 100))
    rows = [(number.format(count), "01"[count % 2]) for count in range(20)]
    second = write(tmp_path / "second.csv", rows)
    with pytest.raises(TrainingInvalid, match=r"second\.csv.*--text-column"):
        read_labelled([first, second], read=ReadOptions(text_column="text", label_column="label"))


def test_a_review_that_is_a_number_is_a_review(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", [("10", "1"), ("Nothing to say.", "0")])
    assert read_labelled([path], read=ReadOptions(text_column="text", label_column="label")).texts[0] == "10"


def test_a_label_column_of_texts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", labelled([f"value {number}" for number in range(60)]))
    with pytest.raises(TrainingInvalid, match="60 different values"):
        read_labelled([path], read=ReadOptions(label_column="label"))


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", labelled(["x", "y"]), header=("text", "colour"))
    with pytest.raises(TrainingInvalid, match=r"found: text, colour\).* --label-column"):
        read_labelled([path])
    with pytest.raises(ColumnMissing):
        read_labelled([path], read=ReadOptions(label_column="gold"))


def test_the_hash_of_the_data_sees_every_text_and_label() -> None:
    found = {
        data_sha256(*data)
        for data in ((["a", "b"], ["x", "y"]), (["b", "a"], ["x", "y"]), (["a", "b"], ["y", "x"]))
    }
    assert len(found) == 3
