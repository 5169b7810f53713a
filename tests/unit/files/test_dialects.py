"""Tables as people have them: quotes, delimiters, headers, line ends; what was guessed is announced."""

import csv
import io
import random

import pytest

from worker.errors import ColumnMissing, FileUnreadable, OptionInvalid
from worker.files import ReadOptions, open_reviews
from worker.reviews import Reject, Review


def read(path, data, **options):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    file = open_reviews(path, ReadOptions(**options))
    records = list(file.read())
    return file, records


def texts(records):
    return [record.text if isinstance(record, Review) else record.reason for record in records]


def test_quotes_of_a_tsv_whose_lines_are_whole_without_them_are_characters(tmp_path):
    data = 'id\ttext\n1\t"Best pizza\n2\tCold food\n3\tA 55" TV"\n'
    file, records = read(tmp_path / "r.tsv", data)
    assert texts(records) == ['"Best pizza', "Cold food", 'A 55" TV"']
    assert any("--quote none" in line for line in file.announcements)
    quoted = 'id\ttext\n1\t"Best ""pizza"""\n2\t"two\nlines"\n'
    assert texts(read(tmp_path / "r.tsv", quoted)[1]) == ['Best "pizza"', "two\nlines"]


def test_backslash_before_a_quote_is_recognised(tmp_path):
    file, records = read(tmp_path / "r.csv", 'text,label\n"so \\"fresh\\", no",neg\n"fine",pos\n')
    assert texts(records) == ['so "fresh", no', "fine"]
    assert any("--quote backslash" in line for line in file.announcements)


def test_spaces_around_quotes_are_no_part_of_a_cell(tmp_path):
    data = 'label, text, id\nneg, "Bad, really", 1\npos, "He said ""fine""" , 2\n'
    assert texts(read(tmp_path / "r.csv", data)[1]) == ["Bad, really", 'He said "fine"']


def test_a_backslash_before_anything_else_stays(tmp_path):
    data = 'id,text\n1,"He said \\"no\\" twice"\n2,\\N\n3,C:\\new\n4,"a \\\\ b"\n5,a\\, b\n'
    assert texts(read(tmp_path / "r.csv", data)[1]) == [
        'He said "no" twice',
        r"no text (\N)",
        r"C:\new",
        r"a \ b",
        "a, b",
    ]
    # A line too long for a record must not end the file.
    long = 'id,text\n1,"' + "\n".join(["x" * 1_000_000] * 6) + "\n2,b\n"
    _, records = read(tmp_path / "r.csv", long, quote="backslash")
    assert records[-1] == Review(records[-1].row_no, "b", "2")


def test_quotes_that_read_well_as_they_are_stay_so(tmp_path):
    data = 'id,text\n1,"it ends with \\""\n ,1, good\n2, bad,  ""a"" """\n2,"7,neg\n"\n'
    file, records = read(tmp_path / "r.csv", data)
    assert texts(records) == ['it ends with \\"\n ,1, good\n2, bad,  "a" "', "7,neg\n"]
    assert not any("--quote" in line for line in file.announcements)
    # A space before a quote says nothing where quotes are characters.
    _, records = read(tmp_path / "r.tsv", 'id\ttext\n1\t  55" wide\n2\t "a" bad\n3\tfine\n')
    assert texts(records) == ['  55" wide', ' "a" bad', "fine"]


def test_a_record_that_swallows_records_is_never_silent(tmp_path):
    rows = [f"{n},a review of it,{'neg' if n % 2 else 'pos'}" for n in range(100)]
    rows[60], rows[63] = '60,"a stray quote,pos', '63,a TV of 55",neg'
    data = "id,text,label\n" + "\n".join(rows) + "\n"
    file, records = read(tmp_path / "r.csv", data)
    assert len(records) == 97
    assert len(file.notes) == 1
    assert "1 record holds lines that look like records" in file.notes[0]
    assert "line 62" in file.notes[0]
    assert "--quote none" in file.notes[0]
    found = read(tmp_path / "r.csv", data, quote="none")[1]
    assert len(found) == 100
    assert found[60].text == '"a stray quote'
    # What has another number of cells than the header is no record, and its lines are.
    rows[60], rows[63] = '60,a review,"pos', '63",a review of it,neg'
    rows[61:63] = []
    _, records = read(tmp_path / "r.csv", "id,text,label\n" + "\n".join(rows) + "\n")
    assert [record.line_no for record in records if isinstance(record, Reject)] == [62]
    assert len(records) == 98
    lines = "text,title\n" + '"one, two\nthree, four",five\n' + "x,y\n" * 3
    file, records = read(tmp_path / "r.csv", lines)
    assert records[0].text == "one, two\nthree, four"
    assert file.notes == []


@pytest.mark.parametrize(
    "columns", [("id", "text"), ("label", "text"), ("id", "label", "text"), ("text", "label")]
)
def test_a_text_of_lines_that_look_like_records_comes_back_equal(tmp_path, columns):
    rng = random.Random(5)
    pieces = ["1, good bed", "2, bad food", "neg,bad", "7,pos,fine", "fine,neg", "plain", "8,neg,x\n9,pos,y"]
    wanted = [
        {
            "id": str(n),
            "label": "pos" if n % 3 else "neg",
            "text": "\n".join(rng.choices(pieces, k=n % 4 + 1)),
        }
        for n in range(200)
    ]
    made = io.StringIO()
    csv.writer(made).writerows([columns, *([row[name] for name in columns] for row in wanted)])
    _, records = read(tmp_path / "r.csv", made.getvalue())
    assert texts(records) == [row["text"] for row in wanted]


def test_excels_sep_line_is_obeyed_and_skipped(tmp_path):
    _, records = read(tmp_path / "r.csv", b"\xef\xbb\xbfsep=;\r\nid;text\r\n1;a, b\r\n;\r\n")
    assert records[0] == Review(1, "a, b", "1")
    assert records[1].line_no == 4


def test_lines_before_the_header_are_skipped_and_counted(tmp_path):
    _, records = read(tmp_path / "r.csv", "Export of May\n\nid,text\n1,a\n2,\n", skip_lines=2)
    assert records == [Review(1, "a", "1"), Reject(2, 5, "no text (empty)", "2")]
    assert texts(read(tmp_path / "r.txt", "x\ny\n", skip_lines=1)[1]) == ["y"]


def test_rs_row_names_have_no_name_in_the_header(tmp_path):
    file, records = read(tmp_path / "r.csv", '"text","label"\n"1","fine","pos"\n"2","bad","neg"\n')
    assert [(record.text, record.gold_label) for record in records] == [("fine", "pos"), ("bad", "neg")]
    assert any("row names" in line for line in file.announcements)
    # Commas in texts that nobody quoted are no row names.
    for data in ("text,label\nBad, really,neg\nFine, yes,pos\n", "text,label\nBad,so,neg\nBad,no,neg\n"):
        _, records = read(tmp_path / "r.csv", data)
        assert texts(records) == ["broken line: 3 cells where the header has 2"] * 2


def test_commas_below_a_header_of_one_cell_are_characters_of_the_text(tmp_path):
    file, records = read(
        tmp_path / "r.csv", 'text\nGood film, really.\nBad one\n"Quoted, ok"\nSo, so, "so"\n'
    )
    assert texts(records) == ["Good film, really.", "Bad one", "Quoted, ok", 'So, so, "so"']
    assert any("--delimiter tab" in line for line in file.announcements)
    assert texts(read(tmp_path / "r.csv", "text\nGood, really.\n")[1]) == ["Good, really."]
    # Names of rows, a delimiter at the end of each row, and what is said on the command line, stay what they are.
    assert texts(read(tmp_path / "r.csv", '"text"\n"1","fine"\n"2","bad"\n')[1]) == ["fine", "bad"]
    assert texts(read(tmp_path / "r.csv", "text\nfine,\nbad,\n")[1]) == ["fine", "bad"]
    told = read(tmp_path / "r.csv", "text\nGood, really.\nBad one\n", delimiter=",")[1]
    assert texts(told) == ["broken line: 2 cells where the header has 1", "Bad one"]


@pytest.mark.parametrize("name", ["r.csv", "r.txt"])
def test_lines_that_end_with_cr_are_cut_there_and_announced(tmp_path, name):
    head = "text,label\r" if name == "r.csv" else ""
    rest = ",pos" if name == "r.csv" else ""
    file, records = read(tmp_path / name, head + f"one{rest}\rtwo{rest}\r")
    assert texts(records) == ["one", "two"]
    assert any("CR" in line for line in file.announcements)


@pytest.mark.parametrize(
    "data",
    [
        "positive,Lovely place.\nnegative,Cold food and more.\n",
        "Lovely,5\nAwful,1\n",
        "r1,Lovely\nr2,Awful\n",
        "Lovely place.,2024-05-01\nAwful food.,2024-05-02\n",
        "nan,Lovely\nnan,Awful\n",
    ],
)
def test_a_first_review_is_no_header(tmp_path, data):
    with pytest.raises(ColumnMissing) as caught:
        read(tmp_path / "r.csv", data)
    message = str(caught.value)
    assert "no header" in message
    columns = message.partition("--columns ")[2].partition(",")[0]
    assert columns
    given = message.partition("--columns ")[2].partition(", or")[0]
    assert len(read(tmp_path / "r.csv", data, columns=tuple(given.split(",")))[1]) == 2
    place = message.partition("--text-column ")[2][0]
    assert len(read(tmp_path / "r.csv", data, no_header=True, text_column=place)[1]) == 2


def test_a_label_is_no_header_even_where_the_text_column_is_told(tmp_path):
    with pytest.raises(ColumnMissing, match="no header"):
        read(tmp_path / "r.csv", "positive,Lovely.\npositive,Good.\n", text_column="Lovely.")


@pytest.mark.parametrize(
    "header",
    [
        "Review", "review_text,sentiment", "good,bad", "Positive,Negative", "text,positive", "positive,review",
        "id,text,2023", "Q1,Q2", "1,text", ",text,label", "NA,text", "star1,star2,review title", "Kommentar",
    ],
)  # fmt: skip
def test_an_ordinary_header_is_none_where_the_text_is_told(tmp_path, header):
    names = header.split(",")
    data = f"{header}\n" + "".join(
        ",".join([f"{word} place"] * len(names)) + "\n" for word in ("good", "bad")
    )
    _, records = read(tmp_path / "r.csv", data, text_column=names[-1])
    assert texts(records) == ["good place", "bad place"]


def test_a_label_s_word_beside_a_usual_name_is_a_name(tmp_path):
    _, records = read(tmp_path / "r.csv", "text,positive\nGood.,positive\nBad.,negative\n")
    assert texts(records) == ["Good.", "Bad."]


def test_columns_must_be_as_many_as_there_are(tmp_path):
    with pytest.raises(FileUnreadable, match="--columns a,b names 2"):
        read(tmp_path / "r.csv", "1,2,x\n", columns=("a", "b"))
    with pytest.raises(OptionInvalid, match="--no-header"):
        read(tmp_path / "r.jsonl", '{"text": "a"}\n', no_header=True)


def test_columns_are_joined_in_the_order_they_are_named(tmp_path):
    data = "text,title\nIt broke.,Awful\nFine.,\n,nan\n"
    _, records = read(tmp_path / "r.csv", data, text_column="title,text")
    assert texts(records) == ["Awful\n\nIt broke.", "Fine.", "no text (nan)"]


def test_markers_of_a_missing_value_are_no_text_unless_they_are_kept(tmp_path):
    data = "text\n" + "\n".join(["nan", "NULL", "N/A", r"\N", "<NA>", "Nan", "none"]) + "\n"
    _, records = read(tmp_path / "r.csv", data)
    assert [record.kind for record in records if isinstance(record, Reject)] == ["without_text"] * 5
    assert texts(records)[5:] == ["Nan", "none"]
    assert len(texts(read(tmp_path / "r.csv", data, keep_markers=True)[1])) == 7
    assert texts(read(tmp_path / "r.csv", data, keep_markers=True)[1])[0] == "nan"


def test_fasttexts_labels_are_labels_in_every_format(tmp_path):
    for name, data in (
        ("r.txt", "__label__2 Great: fine.\n__label__1 Bad.\n"),
        ("r.csv", "text\n__label__2 Great: fine.\n__label__1 Bad.\n"),
        ("r.jsonl", '{"text": "__label__2 Great: fine."}\n{"text": "__label__1 Bad."}\n'),
    ):
        file, records = read(tmp_path / name, data)
        assert [(record.gold_label, record.text) for record in records] == [
            ("2", "Great: fine."),
            ("1", "Bad."),
        ]
        assert file.columns.label == "__label__"


def test_a_table_named_txt_is_announced(tmp_path):
    file, _ = read(tmp_path / "r.txt", "1\tgood\n2\tbad\n")
    assert any("--format tsv" in line for line in file.announcements)


def test_a_path_leads_into_objects_and_objects_are_no_texts(tmp_path):
    data = '{"review": {"text": "a fine one"}, "n": 1}\n{"review": {"text": "a bad one"}, "n": 2}\n{"n": 3}\n'
    assert texts(read(tmp_path / "r.jsonl", data, text_column="review.text")[1])[:2] == [
        "a fine one",
        "a bad one",
    ]
    with pytest.raises(ColumnMissing, match=r"--text-column review\.text"):
        read(tmp_path / "r.jsonl", data)


WRITERS = {
    "double": {},
    "all quoted": {"quoting": csv.QUOTE_ALL},
    "semicolon": {"delimiter": ";"},
    "tab": {"delimiter": "\t"},
    "backslash": {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL},
    "none": {"quoting": csv.QUOTE_NONE, "quotechar": None, "delimiter": "\t"},
}
PIECES = ["good", "bad", '"', "'", ",", ";", "\n", " ", "\\", "é", '""', '\\"', ", ", "55", "|"]


@pytest.mark.parametrize("name", WRITERS)
def test_what_pythons_writers_write_comes_back_equal_in_the_dialect_that_is_told(tmp_path, name):
    rng = random.Random(13)
    quote = name if name in ("backslash", "none") else "double"
    delimiter = WRITERS[name].get("delimiter", ",")
    for _ in range(60):
        wanted = []
        for number in range(rng.randrange(1, 8)):
            text = "".join(rng.choices(PIECES, k=rng.randrange(1, 12)))
            if name == "none":
                text = text.replace("\n", "")
            wanted.append((str(number), text, rng.choice(["pos", "neg"])))
        made = io.StringIO()
        csv.writer(made, lineterminator="\n", **WRITERS[name]).writerows([("id", "text", "label"), *wanted])
        _, records = read(tmp_path / "r.csv", made.getvalue(), quote=quote, delimiter=delimiter)
        assert len(records) == len(wanted)
        for record, (number, text, label) in zip(records, wanted, strict=True):
            if isinstance(record, Review):
                assert (record.external_id, record.text, record.gold_label) == (number, text, label)
            else:
                assert not text.strip()
