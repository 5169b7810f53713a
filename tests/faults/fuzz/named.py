"""Hostile inputs with a name: what people send to break a reader, and what broke one before."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.fuzz import named_packed, named_places, named_servers
from tests.faults.fuzz.guard import Input

Make = Callable[[Path], Input]


@dataclass(frozen=True, slots=True)
class Case:
    """An input made in an empty folder; `slow` ones are left to the runs that have time."""

    name: str
    make: Make
    slow: bool = False


def _written(name: str, content: bytes, surface: str = "file", **options: Any) -> Make:
    def make(folder: Path) -> Input:
        (folder / name).write_bytes(content)
        return Input(surface, folder / name, options)

    return make


def _built(name: str, build: Callable[[], bytes], **options: Any) -> Make:
    """As `_written`, but a large content is made only when it is needed."""
    return lambda folder: _written(name, build(), **options)(folder)


def _many_names() -> bytes:
    objects = ({f"k{row}-{at}": 1 for at in range(20_000)} | {"text": "good"} for row in range(50))
    return "\n".join(map(json.dumps, objects)).encode()


def _texts() -> Iterator[Case]:
    digits, deep = "1" * 100_000, "[" * 100_000
    rows = "good film,{}\n" * 3
    for what, cell in (
        ("many digits and a letter", f"{digits}x"),
        ("many digits", digits),
        ("a huge exponent", f"1e{digits}"),
        ("an open bracket and spaces", f'"[{" " * 50_000},x"'),
        ("a formula", "=cmd|' /C calc'!A0"),
        ("a bidi override", "\u202eevil"),
    ):
        yield Case(
            f"csv label of {what}", _written("a.csv", f"text,label\n{rows.format(*[cell] * 3)}".encode())
        )
        yield Case(
            f"csv column named by {what}", _written("a.csv", f"{cell},b\n1,good film\n2,bad film\n".encode())
        )
        line = json.dumps({"text": "a good film", "label": cell, "id": cell})
        yield Case(f"jsonl label of {what}", _written("a.jsonl", f"{line}\n{line}\n".encode()))
    for kind, number in (("whole", digits), ("decimal", f"0.{digits}"), ("infinite", "1e99999")):
        line = f'{{"text": "a good film", "label": {number}, "id": {number}}}\n'
        yield Case(f"jsonl with a {kind} number", _written("a.jsonl", line.encode() * 2))
        yield Case(f"json with a {kind} number", _written("a.json", f"[{line},{line}]".encode()))
    for name in ("a.jsonl", "a.json", "a", "a.txt", "a.csv"):
        yield Case(f"arrays without end in {name}", _written(name, deep.encode()))
        yield Case(f"objects without end in {name}", _written(name, b'{"a":' * 100_000))
    for depth in (150, 400, 470, 900):
        inner = "[" * depth + "]" * depth
        objects = '{"a":' * depth + "1" + "}" * depth
        for value in (inner, objects):
            line = f'{{"text": "a good film", "id": {value}, "more": {value}}}\n'.encode()
            for name, content in (("a.jsonl", line * 2), ("a.json", b"[" + line + b"]")):
                make = _written(name, content, keep_columns=["more"], text_column="text")
                yield Case(f"{value[0]} {depth} deep in a kept column of {name}", make)
            if depth == 470:
                yield Case(f"{value[0]} {depth} deep, unused", _written("a.jsonl", line * 2))
    dotted = ".".join("a" * 400)
    nested = '{"a":' * 90 + '{"a.a": 1, "a": "good"}' + "}" * 90
    yield Case("a path of 400 names", _written("a.jsonl", nested.encode(), text_column=dotted))
    arrays = ",".join(f'"a{at}":[{{"x":1}}]' for at in range(20_000))
    yield Case("20,000 arrays of objects", _written("a.json", f"{{{arrays}}}".encode()))
    late = ",".join('{"x":1}' for _ in range(300_000))
    yield Case(
        "a long array behind many",
        _written("a.json", f'{{{arrays[:9000].rpartition(",")[0]},"z":[{late}]}}'.encode()),
    )
    yield Case("a million names of members", _built("a.jsonl", _many_names))
    yield Case(
        "a csv of 100,000 columns",
        _written(
            "a.csv",
            b",".join(b"c%d" % at for at in range(100_000)) + b"\n" + b"a good film," * 99_999 + b"x\n",
        ),
    )
    yield Case(
        "a csv of 100,000 nameless columns",
        _written("a.csv", (b"text" + b"," * 99_999 + b"\n") + (b"a good film" + b"," * 99_999 + b"\n") * 3),
    )
    yield Case("labels of fastText without end", _written("a.txt", (b"__label__a " * 18_000 + b"good\n") * 3))
    yield Case(
        "quotes that open in each line",
        _written("a.csv", b"text,label\n" + b'a","c\n' * 200_000, quote="double"),
    )
    yield Case(
        "quotes that open in each line, guessed", _written("a.csv", b"text,label\n" + b'a","c\n' * 20_000)
    )
    yield Case(
        "a long line under open quotes",
        _written("a.csv", b"text,label\n" + b'a","c\n' * 490 + b"x" * 4_000_000 + b"\n"),
    )
    yield Case(
        "a quote never closed",
        _written("a.csv", b'text,label\n"good,pos\n' + (b"fine" * 200 + b",neg\n") * 8_000),
    )
    yield Case(
        "a cell of quotes", _written("a.csv", b'text,label\n"' + b'""' * 1_500_000 + b'" ,pos\ngood,neg\n')
    )
    yield Case(
        "spaces around quotes",
        _written("a.csv", b"text,label\n" + b" " * 100_000 + b'"good" ,pos\n "a" , neg\n'),
    )
    yield Case("NULs everywhere", _written("a.csv", b"te\0xt,label\ngood\0,pos\n\0\0,\0\n"))
    yield Case("NULs in the rows", _written("a.csv", b"text,label\n" + b"good\0,pos\nfine,neg\n" * 20))
    yield Case(
        "lone surrogates", _written("a.jsonl", b'{"text": "\\ud800 film"}\n{"text": "ok", "te\\udfff": 1}\n')
    )
    yield Case("surrogates as UTF-8", _written("a.csv", b"text\n" + b"\xed\xa0\x80 film\nfine film\n" * 5))
    yield Case(
        "surrogates in UTF-16",
        _written("a.csv", codecs.BOM_UTF16_LE + "text\nok ".encode("utf-16-le") + b"\x00\xd8\n\x00" * 4),
    )
    for border in (65_536, 131_072, 262_144):
        for shift in range(4):
            text = "text\n" + "x" * (border - 6 - shift) + "🎬🎬 fine\nfine\n"
            for encoding in ("utf-8", "utf-16", "utf-16-be"):
                made = (
                    text if encoding == "utf-8" else text.replace("x", "x")[: border // 2] + "🎬 fine\nfine\n"
                )
                yield Case(
                    f"a character across byte {border}, shifted by {shift}, in {encoding}",
                    _written("a.csv", made.encode(encoding), encoding=encoding),
                )
    marks = {
        name: getattr(codecs, name)
        for name in ("BOM_UTF8", "BOM_UTF16_LE", "BOM_UTF16_BE", "BOM_UTF32_LE", "BOM_UTF32_BE")
    }
    marks |= {
        "UTF-7": b"+/v8",
        "GB18030": b"\x84\x31\x95\x33",
        "two": codecs.BOM_UTF8 * 2,
        "mixed": codecs.BOM_UTF8 + codecs.BOM_UTF16_LE,
    }
    for mark, content in marks.items():
        for name in ("a.csv", "a.txt", "a.jsonl", "a.json", "a", "a.parquet", "a.xlsx"):
            yield Case(f"{mark} alone in {name}", _written(name, content))
            yield Case(
                f"{mark} before ASCII in {name}", _written(name, content + b'text\n{"text": "fine"}\n')
            )
    for encoding in (
        "idna",
        "punycode",
        "utf-7",
        "unicode_escape",
        "raw_unicode_escape",
        "undefined",
        "hz",
        "iso2022_jp",
        "utf-8-sig",
        "rot13",
        "big5hkscs",
        "cp037",
        "mbcs",
        "x\0y",
        "../x",
    ):
        for name, content in (
            ("a.csv", b"text,label\ngood \\x film,pos\nb\xe4d ~{,neg\n"),
            ("a.json", b'[{"text": "g\\u00e4~ +AGE- \xff"}]'),
            ("a.txt", b"xn--a\\\n\xff\n"),
        ):
            for stream in (False, True):
                yield Case(
                    f"--encoding {encoding} of {name}{' in a stream' * stream}",
                    _written(name, content, encoding=encoding, stream=stream),
                )
    for name in (
        "a.csv",
        "a.tsv",
        "a.txt",
        "a.jsonl",
        "a.json",
        "a.parquet",
        "a.xlsx",
        "a.ods",
        "a.xls",
        "a.csv.gz",
        "a.csv.zst",
        "a",
    ):
        yield Case(f"nothing in {name}", _written(name, b""))
        yield Case(f"a line end in {name}", _written(name, b"\n"))


CASES: tuple[Case, ...] = (
    *_texts(),
    *(Case(name, make, slow) for name, make, slow in named_packed.cases()),
    *(Case(name, make, slow) for name, make, slow in named_places.cases()),
    *(Case(name, make, slow) for name, make, slow in named_servers.cases()),
)
