"""Columns are taken as told or guessed, and every guess is announced."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worker.errors import ColumnMissing, OptionInvalid
from worker.files import Columns, GoldColumn, ReadOptions, open_reviews
from worker.files.gold import MARKERS
from worker.reviews import Review

LONG = "a long and winding review of a thing"


def opened(path, data, **options):
    path.write_text(data)
    return open_reviews(path, ReadOptions(**options))


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("id,text,label", Columns("text", "label", "id")),
        ("Review_ID,Review Text,Sentiment", Columns("Review Text", "Sentiment", "Review_ID")),
        ("body,text,stars", Columns("text")),
        ("comment,rating,score", Columns("comment")),
        ("uuid,content,polarity", Columns("content", "polarity", "uuid")),
    ],
)
def test_columns_are_guessed_by_their_names(tmp_path, header, columns):
    file = opened(tmp_path / "r.csv", f"{header}\nx,{LONG},1\n")
    assert file.columns == columns


def test_guesses_are_announced_with_the_option_that_changes_them(tmp_path):
    file = opened(tmp_path / "r.csv", "id;review;label\n1;fine;pos\n")
    assert file.announcements == (
        "delimiter: semicolon (guessed; --delimiter chooses another)",
        "text column: 'review' (guessed; --text-column chooses another)",
        "label column: 'label' (guessed; --label-column chooses another)",
        "id column: 'id' (guessed; --id-column chooses another)",
    )
    told = opened(
        tmp_path / "r.csv",
        "id,review,label\n1,fine,pos\n",
        text_column="review",
        label_column="label",
        id_column="id",
        keep_columns=("label",),
    )
    assert told.announcements == ()
    assert list(told.read()) == [Review(1, "fine", "1", "pos", {"label": "pos"})]


def test_all_keeps_each_column_that_has_no_other_use(tmp_path):
    path = tmp_path / "r.csv"
    file = opened(path, "id,text,label,,shop,Stars\n1,fine,pos,x,Rome,5\n", keep_columns=("ALL", "label"))
    assert file.columns.kept == ("label", "shop", "Stars")
    assert "columns kept: label, shop, Stars" in file.announcements
    assert list(file.read()) == [
        Review(1, "fine", "1", "pos", {"label": "pos", "shop": "Rome", "Stars": "5"})
    ]
    lines = opened(
        tmp_path / "r.jsonl",
        '{"text": "fine", "by": {"name": "Ann"}, "shop": "Rome"}\n',
        keep_columns=("all",),
    )
    assert lines.columns.kept == ("by", "shop")
    pq.write_table(pa.table({"text": ["fine"], "n": [1], "raw": [b"x"]}), tmp_path / "r.parquet")
    assert open_reviews(tmp_path / "r.parquet", ReadOptions(keep_columns=("all",))).columns.kept == (
        "n",
        "raw",
    )
    # A column of that name can be kept alone, and none is dropped in silence.
    assert opened(path, "text,shop,All\nfine,Rome,x\n", keep_columns=("all",)).columns.kept == ("All",)
    with pytest.raises(ColumnMissing, match="2 columns named 'shop'"):
        opened(path, "text,shop,shop\nfine,Rome,Pisa\n", keep_columns=("all",))


def test_only_column_of_text_is_guessed_whatever_its_name(tmp_path):
    assert opened(tmp_path / "r.csv", "n,stuff\n1,fine\n2,3\n").columns.text == "stuff"


def test_clearly_longest_column_is_guessed(tmp_path):
    assert opened(tmp_path / "r.csv", f"who,stuff\nAnn,{LONG}\nBob,{LONG}\n").columns.text == "stuff"
    with pytest.raises(ColumnMissing, match=r"no column 'text' \(found: who, stuff\)"):
        opened(tmp_path / "r.csv", "who,stuff\nAnna,short\nBob,brief\n")


@pytest.mark.parametrize(
    ("values", "guessed"),
    [
        (["pos", "neg"], True),
        (["0", "1", "1.0"], True),
        (["Positive", "", "neutral"], True),
        (["1", "2"], False),
        (["-1", "1"], False),
        (["1", "4.5"], False),
        ([f"name {n}" for n in range(11)], False),
    ],
)
def test_label_column_with_values_like_ratings_is_not_gold(tmp_path, values, guessed):
    rows = "".join(f"fine,{value}\n" for value in values)
    file = opened(tmp_path / "r.csv", "text,label\n" + rows)
    assert file.columns.label == ("label" if guessed else None)
    assert any("'label'" in line for line in file.announcements)
    assert opened(tmp_path / "r.csv", "text,label\n" + rows, label_column="label").columns.label == "label"


def test_same_columns_are_guessed_in_jsonl_and_parquet(tmp_path):
    rows = [{"key": n, "stuff": LONG, "label": n % 2, "score": 0.5} for n in range(3)]
    jsonl = opened(tmp_path / "r.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    parquet = open_reviews(tmp_path / "r.parquet")
    assert jsonl.columns == parquet.columns == Columns("stuff", "label", "key")
    assert list(jsonl.read()) == list(parquet.read())
    assert next(parquet.read()) == Review(1, LONG, "0", "0")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_guessed_from_the_header(tmp_path, delimiter):
    file = opened(tmp_path / "r.csv", f"id{delimiter}text\n1{delimiter}fine\n")
    assert next(file.read()).text == "fine"


def test_delimiter_told_is_used_and_tab_has_a_name(tmp_path):
    assert next(opened(tmp_path / "r.csv", "id\ttext\n1\ta,b\n", delimiter="tab").read()).text == "a,b"
    assert next(opened(tmp_path / "r.csv", "id~text\n1~a,b\n", delimiter="~").read()).text == "a,b"


@pytest.mark.parametrize(
    ("data", "fmt"),
    [('{"text": "a"}\n', "jsonl"), ("id,text\n1,a\n", "csv"), ("id\ttext\n1\ta\n", "tsv")],
)
def test_format_of_an_unknown_name_is_told_by_the_first_line(tmp_path, data, fmt):
    file = opened(tmp_path / "reviews", data)
    assert file.format == fmt
    assert file.announcements[0] == f"format: {fmt} (guessed from the first line; --format chooses another)"


@pytest.mark.parametrize(
    ("labels", "cell", "label"),
    [
        (("negative", "positive"), "Positive", "positive"),
        (("negative", "positive"), " POS ", "positive"),
        (("neg", "pos"), "negative", "neg"),
        (("NEG", "POS"), "pos", "POS"),
        (("negative", "positive"), "['pos']", "positive"),
        (("negative", "positive"), "__label__negative", "negative"),
        (("negative", "positive"), "true", "positive"),
        (("negative", "positive"), "False", "negative"),
        (("negative", "positive"), "neutral", None),
        (("negative", "positive"), "1", None),
        (("negative", "positive"), "nan", None),
        (("negative", "positive"), "", None),
        (("negative", "positive"), None, None),
        (("negative", "neutral", "positive"), "neu", "neutral"),
        (("negative", "neutral", "positive"), "true", None),
        (("1", "2", "3"), "1.0", "1"),
        (("a", "b"), "²", None),
    ],
)
def test_gold_cells_mean_labels_by_name_or_synonym(labels, cell, label):
    assert GoldColumn(labels)(cell) == label


TWO, THREE = ("negative", "positive"), ("negative", "neutral", "positive")


def test_a_value_that_means_no_label_is_named_with_what_can_be_typed():
    column = GoldColumn(TWO)
    for cell in ("so so", "so so", "negative"):
        column(cell)
    assert column.announcements() == [
        "2 gold labels are none of negative/positive, and left out: 'so so' (2). "
        "--labels says what a value means, as in --labels 'so so=LABEL'"
    ]
    told = GoldColumn(TWO, ReadOptions(labels="1=negative,5=positive").meanings)
    told("3")
    assert told.announcements() == ["1 gold label is not in --labels, and left out: '3' (1)"]


@pytest.mark.parametrize(
    ("labels", "cells", "gold"),
    [
        (TWO, ["0", "1.0", ""], ["negative", "positive", None]),
        (TWO, ["0", "nan", "1"], ["negative", None, "positive"]),
        (THREE, ["0", "2", "1"], ["negative", "positive", "neutral"]),
        (THREE, ["0", "2"], [None] * 2),
        (("1", "2"), ["0", "1"], [None, "1"]),
        (TWO, ["1", "2", "3", "4", "5"], [None] * 5),
        (TWO, ["1"] * 50 + ["2"] * 50, [None] * 100),
        (TWO, ["1", "1"], [None, None]),
        (TWO, ["-1", "0", "1"], [None] * 3),
        (TWO, ["0", "4"], [None] * 2),
        (TWO, ["0", "1", "positive"], [None, None, "positive"]),
        (TWO, ["0", "1", "mixed"], [None] * 3),
        (THREE, ["0", "1"], [None] * 2),
        (TWO, ["0.5", "0", "1"], [None] * 3),
    ],
)
def test_numbers_are_places_only_where_the_whole_column_shows_it(labels, cells, gold):
    column = GoldColumn(labels)
    column.look(cells)
    assert [column(cell) for cell in cells] == gold
    growing = GoldColumn(labels, growing=True)
    came = [growing(cell) for cell in cells]
    # What a stream took for places is given back: then the job has no gold at all, as the numbers had none.
    assert ([None] * len(cells) if growing.taken_back else came) in (gold, [None] * len(cells))
    assert growing.taken_back or came == gold


@pytest.mark.parametrize(
    ("told", "cells", "gold"),
    [
        ("1=negative,2=positive", ["1", "2.0", "3"], ["negative", "positive", None]),
        (
            "1-2=negative,4-5=positive",
            ["1", "2", "3", "4.5", "5"],
            ["negative"] * 2 + [None] + ["positive"] * 2,
        ),
        ("1-2=negative,4.5=positive", ["1,5", "4,5", "3,0"], ["negative", "positive", None]),
        ("-1=neg,1=pos", ["-1", "0", "1"], ["negative", None, "positive"]),
        ("bad=negative,good=positive", ["BAD", "good", "positive"], ["negative", "positive", "positive"]),
        ("positive,negative", ["0", "1", "Positive"], ["positive", "negative", "positive"]),
        ("negative,positive", ["1", "positive"], ["positive"] * 2),
        ("negative,positive", ["1", "2"], [None] * 2),
        ("negative,positive", ["5", "3", "1", "positive"], [None] * 3 + ["positive"]),
        ("NA=negative,1=positive", ["NA", "1", "N/A"], ["negative", "positive", None]),
    ],
)
def test_labels_says_what_values_mean(told, cells, gold):
    column = GoldColumn(TWO, ReadOptions(labels=told).meanings)
    column.look(cells)
    assert [column(cell) for cell in cells] == gold
    missing = {cell for cell, label in zip(cells, gold, strict=True) if label is None} - MARKERS
    assert bool(column.announcements() or column.doubt()) == bool(missing)
    growing = GoldColumn(TWO, ReadOptions(labels=told).meanings, growing=True)
    came = [growing(cell) for cell in cells]
    assert growing.taken_back or came == gold


@pytest.mark.parametrize(
    "told", ["", "1=", "=negative", "1=negative,positive", "2-1=negative", "1=a,1=b", "1-3=a,2=b"]
)
def test_labels_that_say_nothing_or_two_things_are_refused(told):
    with pytest.raises(OptionInvalid, match="--labels"):
        ReadOptions(labels=told)


def test_labels_must_name_labels_of_the_adapter():
    with pytest.raises(OptionInvalid, match="'good', which is none of the labels negative, positive"):
        GoldColumn(TWO, ReadOptions(labels="1=good").meanings)


def test_numbers_that_mean_nothing_are_announced_with_a_command_that_maps_them():
    column = GoldColumn(TWO)
    column.look(["5", "1", "3", "2", "4"])
    assert "--labels 1-2=negative,4-5=positive" in (column.doubt() or "")
