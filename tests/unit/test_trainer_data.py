import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import data_sha256, read_labelled, split, steps
from worker.errors import ColumnMissing, TrainingInvalid


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


def test_epochs_differ() -> None:
    assert steps([5] * 50, token_budget=20, seed=1) != steps([5] * 50, token_budget=20, seed=2)


@pytest.mark.parametrize(
    ("found", "labels", "gold"),
    [
        (["1", "0", "1"], ("negative", "positive"), ["positive", "negative", "positive"]),
        (["pos", "NEG", "pos"], ("negative", "positive"), ["positive", "negative", "positive"]),
        (["red", "Blue", "red"], ("Blue", "red"), ["red", "Blue", "red"]),
        (["2", "0", "1"], ("0", "1", "2"), ["2", "0", "1"]),
    ],
)
def test_label_names_come_from_the_data(
    tmp_path: Path, found: list[str], labels: tuple[str, ...], gold: list[str]
) -> None:
    # Named, since a column of 0 to 2 could be a rating and isn't guessed to hold labels.
    reviews = read_labelled([write(tmp_path / "reviews.csv", labelled(found))], label_column="label")
    assert set(reviews.labels) == set(labels)
    assert reviews.gold == gold
    if "negative" in labels:
        assert reviews.labels == labels


def test_given_label_names_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", labelled(["0", "1", "bad", "GOOD"]))
    reviews = read_labelled([path], labels=("good", "bad"))
    assert reviews.labels == ("good", "bad")
    assert reviews.gold == ["good", "bad", "bad", "good"]


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingInvalid, match="mixed"):
        read_labelled([write(tmp_path / "r.csv", labelled(["good", "mixed"]))], labels=("bad", "good"))


def test_exact_duplicates_are_left_out_and_told(tmp_path: Path) -> None:
    rows = labelled(["0", "1"] * 3)
    other = (rows[1][0], "0")
    reviews = read_labelled([write(tmp_path / "r.csv", [*rows, rows[0], other])])
    assert len(reviews.texts) == 6
    assert reviews.gold[1] == "positive"
    assert any("2 exact duplicates" in line for line in reviews.announcements)
    assert any("1 of them with another label" in line for line in reviews.announcements)


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


def test_a_text_column_of_numbers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", [(str(number), "01"[number % 2]) for number in range(20)])
    with pytest.raises(TrainingInvalid, match="--text-column"):
        read_labelled([path], text_column="text", label_column="label")


def test_a_label_column_of_texts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", labelled([f"value {number}" for number in range(60)]))
    with pytest.raises(TrainingInvalid, match="60 different values"):
        read_labelled([path], label_column="label")


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", labelled(["x", "y"]), header=("text", "colour"))
    with pytest.raises(TrainingInvalid, match="--label-column"):
        read_labelled([path])
    with pytest.raises(ColumnMissing):
        read_labelled([path], label_column="gold")


def test_the_hash_of_the_data_sees_every_text_and_label() -> None:
    found = {
        data_sha256(*data)
        for data in ((["a", "b"], ["x", "y"]), (["b", "a"], ["x", "y"]), (["a", "b"], ["y", "x"]))
    }
    assert len(found) == 3
