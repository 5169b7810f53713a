"""Bombs: small files that claim, or hold, far more than they are."""

# ruff: noqa: E501 (tables of odd bytes)

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.faults.fuzz.guard import Input
from tests.faults.fuzz.seeds import seeds
from tests.workbooks import write_xlsx

Made = tuple[str, Callable[[Path], Input], bool]
MEGABYTE = 1024**2


def cases() -> Iterator[Made]:
    """Name, maker, and whether it takes long."""
    yield from _streams()
    yield from _workbooks()
    yield from _parquet()


def _streams() -> Iterator[Made]:
    zeros, line, rows = (
        (b"", b"\0" * MEGABYTE),
        (b"text\n", b"a" * MEGABYTE),
        (b"text\n", (b"a" * 65_535 + b"\n") * 16),
    )
    for what, (head, block), suffix in (
        ("zeros", zeros, ".csv"),
        ("one line", line, ".csv"),
        ("long lines", rows, ".csv"),
        ("one line", line, ".txt"),
        ("one line", line, ".jsonl"),
        ("spaces", (b"[", b" " * MEGABYTE), ".json"),
        ("a string", (b'[{"text": "', b"a" * MEGABYTE), ".json"),
        ("columns", (b"", b"," * MEGABYTE), ".csv"),
    ):
        name = f"a{suffix}"
        yield (
            f"a zstd bomb of {what} in {name}",
            _file(f"{name}.zst", _zstd(head, block, 1200)),
            what != "zeros",
        )
        yield f"a gzip bomb of {what} in {name}", _file(f"{name}.gz", _gzip(head, block, 1200)), True
    many = _zstd(b"", b"\0" * MEGABYTE, 5000)
    yield "a bomb within a bomb", _file("a.csv.gz", lambda: gzip.compress(many())), False
    yield "a bomb within two", _file("a.csv.zst", lambda: zstandard.compress(gzip.compress(many()))), False
    wide = _zstd(b"", b"," * (2 * MEGABYTE) + b"\n", 60)
    yield "rows of two million cells", _file("a.csv.zst", wide), True
    named = ",".join(f"{at:x}" for at in range(500_000)).encode() + b"\n"
    yield "rows of half a million named cells", _file("a.csv.zst", _zstd(named, named, 60)), True
    cells = b"text,label\n", b"fine," + b"x" * MEGABYTE + b"\n"
    yield "labels of a megabyte", _file("a.csv.zst", _numbered(*cells, 700)), True
    objects = b"{}," * (MEGABYTE // 3)
    yield (
        "a hundred megabytes of empty objects",
        _file("a.json.zst", _zstd(b'{"a":[' + b"{}," * 9, objects, 100)),
        True,
    )
    yield "a line of 1.2 gigabytes in a pipe", _file("a", lambda: b"", piped=1200), True
    yield "lines of 1.2 gigabytes in a pipe", _file("a", lambda: b"", piped=1200, format="csv"), True
    yield (
        "a zstd window of 2 GB",
        _file("a.csv.zst", lambda: b"\x28\xb5\x2f\xfd\x04\xa8" + b"\0" * 100),
        False,
    )


def _numbered(head: bytes, row: bytes, times: int) -> Callable[[], bytes]:
    """Rows that differ at their end."""

    def build() -> bytes:
        packer = zstandard.ZstdCompressor().compressobj()
        pieces = [packer.compress(head)]
        pieces += [packer.compress(row[:-9] + b"%08d\n" % at) for at in range(times)]
        return b"".join([*pieces, packer.flush()])

    return build


def _zstd(head: bytes, block: bytes, times: int) -> Callable[[], bytes]:
    def build() -> bytes:
        packer = zstandard.ZstdCompressor().compressobj()
        return b"".join(
            [packer.compress(head), *(packer.compress(block) for _ in range(times)), packer.flush()]
        )

    return build


def _gzip(head: bytes, block: bytes, times: int) -> Callable[[], bytes]:
    # Members may follow each other: one is packed, and repeated.
    return lambda: gzip.compress(head) + gzip.compress(block * 50) * (times // 50)


def _file(name: str, build: Callable[[], bytes], **options: Any) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        (folder / name).write_bytes(build())
        return Input("file", folder / name, {"dry": True, **options})

    return make


def _workbooks() -> Iterator[Made]:
    def cell(place: str, text: str = "x") -> str:
        return f'<row r="{place.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}"><c r="{place}" t="inlineStr"><is><t>{text}</t></is></c></row>'

    head = cell("A1", "text") + cell("A2", "fine film")
    for name, body, slow in (
        ("a cell far below and far right", head + cell("XFD1048576"), False),
        ("a cell a million rows below", head + cell("A1048576"), True),
        ("a cell far below, a bit right", head + cell("CV1048576"), True),
        ("a cell far below, more right", head + cell("GR1048576"), True),
        ("places that are none", head + cell("A0") + cell("ZZZZZZ9999999999") + cell("1A"), False),
        ("a formula", head + '<row r="3"><c r="A3"><f>WEBSERVICE("http://x/")</f></c></row>', False),
        (
            "a formula with a value",
            head + '<row r="3"><c r="A3" t="str"><f>A1</f><v>=A1</v></c></row>',
            False,
        ),
        (
            "a date that is none",
            head + '<row r="3"><c r="A3" s="1"><v>1e300</v></c><c r="B3" s="1"><v>-5</v></c></row>',
            False,
        ),
        ("a string that isn't there", head + '<row r="3"><c r="A3" t="s"><v>4000000000</v></c></row>', False),
        ("elements nested deeply", head + "<row>" * 100_000, False),
    ):
        yield f"a workbook with {name}", _book(sheet=_sheet(body.encode())), slow
    big = b'<row r="%d">' % 3 + b'<c r="B3"/>' * 100
    yield (
        "a workbook of millions of empty cells",
        _book(sheet=lambda: _sheet(head.encode() + (big + b"</row>") * 60_000)()),
        True,
    )
    yield (
        "a workbook with a cell of 500 MB",
        _book(sheet=lambda: _sheet(f"{cell('A1', 'text')}{cell('A2', 'x' * 500 * MEGABYTE)}".encode())()),
        True,
    )
    yield "a workbook with 300 MB of shared strings", _book(strings=_shared_strings), True
    yield (
        "a workbook whose dimension lies",
        _book(sheet=_sheet(head.encode(), b'<dimension ref="A1:XFD1048576"/>')),
        False,
    )
    laughs = (
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + at, b"&%c;" % (97 + at) * 10) for at in range(9))
        + b"]>"
    )
    yield (
        "a workbook with a billion laughs",
        _book(sheet=lambda: laughs + _sheet(cell("A1", "&j;").encode())()),
        False,
    )
    yield "a workbook within a workbook", _nested, False
    yield "a zip of 3 GB", _huge_zip, True


def _shared_strings() -> bytes:
    return b'<sst uniqueCount="4294967295">' + b"<si><t>%s</t></si>" % (b"x" * 1000) * 300_000 + b"</sst>"


def _sheet(body: bytes, before: bytes = b"") -> Callable[[], bytes]:
    start = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    return lambda: start + before + b"<sheetData>" + body + b"</sheetData></worksheet>"


def _book(
    sheet: Callable[[], bytes] | None = None, strings: Callable[[], bytes] | None = None
) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        plain = write_xlsx(folder / "plain", {"One": [["text"], ["fine film"]]})
        path = folder / "a.xlsx"
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                is_sheet = sheet is not None and "worksheets/sheet1" in name
                new.writestr(name, sheet() if is_sheet and sheet else old.read(name))
            if strings is not None:
                new.writestr("xl/sharedStrings.xml", strings())
        return Input("file", path, {"dry": True})

    return make


def _nested(folder: Path) -> Input:
    content = seeds("workbooks")[0].content
    for _ in range(20):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/workbook.xml", content)
        content = packed.getvalue()
    (folder / "a.xlsx").write_bytes(content)
    return Input("file", folder / "a.xlsx")


def _huge_zip(folder: Path) -> Input:
    path = folder / "a.xlsx"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/workbook.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(3000):
            part.write(b"\0" * MEGABYTE)
    return Input("file", path)


def _parquet() -> Iterator[Made]:
    plain = seeds("parquet")[0].content
    size = struct.unpack("<I", plain[-8:-4])[0]
    for name, content in {
        "cut off": plain[:-1],
        "cut in half": plain[: len(plain) // 2],
        "that is its magic": b"PAR1PAR1",
        "with a footer of 4 GB": plain[:-8] + b"\xff\xff\xff\xff" + b"PAR1",
        "with a footer of nothing": plain[:-8] + b"\0\0\0\0" + b"PAR1",
        "without pages": plain[:4] + plain[-8 - size :],
        "with a garbled footer": plain[: -8 - size] + bytes(size) + plain[-8:],
        "that is encrypted": plain[:-4] + b"PARE",
    }.items():
        yield f"a parquet file {name}", _file("a.parquet", lambda content=content: content), False
    for what, length, rows, packing in (
        ("one text in many rows", 150_000, 50_000, "zstd"),
        ("one long text in many rows", 20 * MEGABYTE, 500, "zstd"),
        ("a text of 500 MB", 500 * MEGABYTE, 1, "zstd"),
    ):

        def build(length: int = length, rows: int = rows, packing: str = packing) -> bytes:
            column = pa.DictionaryArray.from_arrays(
                pa.array([0] * rows, pa.int32()), pa.array(["x" * length])
            )
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table({"text": column, "id": pa.array(range(rows))}), sink, compression=packing)
            return bytes(sink.getvalue().to_pybytes())

        yield f"a parquet file with {what}", _file("a.parquet", build), True
