from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.contenders.oracle import read_oracles
from trainer.data import LabelledReviews
from worker.agreement import wilson
from worker.errors import ColumnMissing, FileUnreadable

TEST = LabelledReviews(
    ["one", "two", "three", "four"],
    ["positive", "negative", "positive", "negative"],
    ("negative", "positive"),
    [],
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def result(text: str, label: str | None, scorer: str | None = "gpt-5-mini zero-shot", **more: Any) -> Any:
    return {"text": text, "label": label, "scorer": scorer, "gold_label": "negative", **more}


def test_labels_join_the_test_part_by_text(tmp_path: Path) -> None:
    rows = [result("one", "Positive"), result("two", "positive"), result("elsewhere", "negative")]
    [row] = read_oracles(write(tmp_path / "o.parquet", rows), TEST)
    # "one" is right by the test part's gold, though the file says otherwise; "elsewhere" doesn't count.
    assert (row.right, row.n) == (1, 2)
    assert row.interval == wilson(1, 2)
    assert row.key == "oracle-gpt-5-mini-zero-shot"
    assert row.title == "gpt-5-mini zero-shot"
    assert row.reason == "2 of the 4 test reviews"
    assert row.bill_per_1000 is None
    assert row.trainable_parameters is row.memory is row.train_seconds is None


def test_each_scorer_has_a_row_and_the_whole_test_part_needs_no_note(tmp_path: Path) -> None:
    rows = [
        result(text, label, scorer)
        for scorer in ("gpt few-shot", "gpt zero-shot")
        for text, label in zip(TEST.texts, TEST.gold, strict=True)
    ]
    rows[0]["label"] = "negative"
    few, zero = read_oracles(write(tmp_path / "o.parquet", rows), TEST)
    assert (few.title, few.accuracy, few.reason) == ("gpt few-shot", 0.75, "")
    assert (zero.title, zero.accuracy, zero.reason) == ("gpt zero-shot", 1.0, "")


def test_other_reviews_count_by_their_own_gold_and_say_so(tmp_path: Path) -> None:
    rows = [result("a", "negative"), result("b", "positive"), {**result("c", "positive"), "gold_label": None}]
    for row in rows:
        del row["text"]
    [row] = read_oracles(write(tmp_path / "o.parquet", rows), TEST)
    assert (row.right, row.n) == (1, 2)
    assert "2 other reviews" in row.reason


def test_what_was_left_unanswered_counts_as_wrong(tmp_path: Path) -> None:
    rows = [result("one", "positive"), result("two", None, None)]
    [row] = read_oracles(write(tmp_path / "o.parquet", rows), TEST)
    assert (row.right, row.n) == (1, 2)
    assert "1 without a label count as wrong" in row.reason


@pytest.mark.parametrize(
    ("costs", "expected"), [(["0.001", "0.003"], 2.0), ([0.001, None], None), ([None, None], None)]
)
def test_a_cost_is_what_the_bill_says_or_nothing(
    tmp_path: Path, costs: list[Any], expected: float | None
) -> None:
    rows = [result(text, "positive", cost=cost) for text, cost in zip(("one", "two"), costs, strict=True)]
    [row] = read_oracles(write(tmp_path / "o.parquet", rows), TEST)
    assert row.bill_per_1000 == (None if expected is None else pytest.approx(expected))


def test_files_that_hold_no_answers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match="no column 'scorer'"):
        read_oracles(write(tmp_path / "o.parquet", [{"label": "positive"}]), TEST)
    (tmp_path / "o.csv").write_text("label,scorer\n")
    with pytest.raises(FileUnreadable, match=r"o\.csv"):
        read_oracles(tmp_path / "o.csv", TEST)
    [row] = read_oracles(write(tmp_path / "e.parquet", [result("one", None, None)]), TEST)
    assert row.state == "left out"
    [row] = read_oracles(write(tmp_path / "n.parquet", [{"label": "x", "scorer": "gpt"}]), TEST)
    assert row.state == "left out"
