"""Seeded mutations: of any bytes, and of what lies within a format's own packing."""

# ruff: noqa: E501 (tables of odd bytes)

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import zstandard

from tests.faults.fuzz.seeds import SECRET, Seed, adapter_files, seeds

TOKENS: dict[str, tuple[bytes, ...]] = {
    "": (
        b"", b"\0", b"\n", b"\r", b"\r\n", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xff\xfe\0\0", b"\0\0\xfe\xff",
        b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf0\x9f", b"\xc3", b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"9" * 400,
        b"-1", b"1e999", b"NaN", b"\x7f", b"\x1a", b"\xe2\x80\xa8", b"\xc2\x85", b"A" * 5000, b"text",
    ),
    "csv": (b'"', b'""', b",", b";", b"\t", b"|", b"\\", b'\\"', b'","', b' "', b"sep=;\n", b"=1+1", b"__label__x ", b"\\N"),
    "json": (
        b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\u0000", b"\\ud800", b'"\\ud83d', b"null", b"true", b"[" * 2000,
        b'{"a":' * 400, b"1" * 5000, b"-", b"1.", b"{'a': 1}", b"\\", b"Infinity", b"{}", b"[]", b'"text": 5',
    ),
    "xml": (
        b"<", b">", b"&", b"&#0;", b"&lt;", b"&x;", b"<row>", b"</row>", b'<c r="A1"/>', b'<c r="XFD1048576"><v>1</v></c>',
        b'r="A0"', b'r="ZZZZZ99999999"', b't="s"', b't="e"', b't="d"', b"<f>A1</f>", b"<v>1e999</v>", b"<v>-1</v>",
        b"<v>99999999999</v>", b'<dimension ref="A1:XFD1048576"/>', b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"<!--", b"]]>",
        b'count="4294967295"', b"<mergeCells><mergeCell ref='A1:B9'/></mergeCells>", b's="99"', b"\xed\xa0\x80",
    ),
    "env": (
        b"=", b"'", b'"', b"#", b"${A}", b"${LORACLE_HOME:-x}", b"export ", b"@", b":", b"/", b"%00", b"%zz", b"?", b"[::1",
        b"LORACLE_HOME=~nobody/x\n", b"LORACLE_LEASE_S=inf\n", b"LORACLE_MAX_COST=1e-400\n", b"LORACLE_THREADS=9\n" + b"9" * 99,
        b"sqlite:///", b"redis://", b"https://", b"\xf0\x9f\x8e\xac", b"\\", b"xn--", b"\xe3\x80\x82", b":99999",
        f"DATABASE_URL=postgresql://a:{SECRET}@h/d\n".encode(), b"LORACLE_DTYPE=", b"\nREDIS_URL=",
    ),
}  # fmt: skip
DICTIONARY = {
    "csv": "csv", "txt": "csv", "json": "json", "parquet": "", "workbooks": "xml", "packed": "csv",
    "corrections": "json", "adapters": "json", "archives": "", "bases": "json", "settings": "env",
    "batches": "json", "answers": "json",
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 10**40, -(10**400), 1.5, 1e308, float("inf"), float("nan"), "", " ", "x", "\0",
    "\ud800", "a" * 300, "a" * 5000, "..", "/etc/passwd", "~x", [], {}, [[]], [{}], {"": {}}, ["a", 1, None], "2026-13-45",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", {"a": {"b": {"c": 1}}}, [1] * 50,
)  # fmt: skip


def mutated(seed: Seed, kind: str, generator: random.Random) -> Seed:
    """The seed with one to four changes, of which the first may be one within its format."""
    content = seed.content
    inner = INNER.get(kind)
    if inner is not None and generator.random() < 0.6:
        content = inner(content, kind, generator)
        if generator.random() < 0.8:
            return replace(seed, content=content)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        content = _changed(content, kind, generator)
    return replace(seed, content=content)


def _changed(content: bytes, kind: str, generator: random.Random) -> bytes:
    """Bits flipped, a piece cut, doubled, moved or taken from another seed, or a token of the format put in."""
    size = len(content)
    at, end = sorted(generator.randrange(size + 1) for _ in range(2))
    if generator.random() < 0.7:
        end = min(end, at + generator.randrange(1, 12))
    way = generator.randrange(8)
    if way == 0 and size:
        place = generator.randrange(size)
        flipped = content[place] ^ (1 << generator.randrange(8))
        return content[:place] + bytes([flipped]) + content[place + 1 :]
    if way == 1:
        return content[:at] + content[end:]
    if way == 2:
        return content[:at] + content[at:end] * generator.choice((2, 3, 50)) + content[end:]
    if way == 3:
        other = generator.choice(seeds(kind)).content
        cut = generator.randrange(len(other) + 1)
        return content[:at] + other[cut:] if generator.random() < 0.5 else other[:cut] + content[at:]
    if way == 4:
        return content[:at] if generator.random() < 0.5 else content[at:]
    if way == 5:
        return content[:at] + generator.randbytes(end - at) + content[end:]
    tokens = TOKENS[DICTIONARY[kind]] or TOKENS[""]
    token = generator.choice(tokens if generator.random() < 0.6 else TOKENS[""])
    return content[:at] + token + (content[at:] if generator.random() < 0.6 else content[end:])


def _in_json(content: bytes, kind: str, generator: random.Random) -> bytes:
    """A member, an item or a name somewhere in the document, or in one of its lines, made odd."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    at = generator.randrange(len(lines))
    try:
        document = json.loads(lines[at])
    except ValueError:
        return _changed(content, kind, generator)
    document = _odd(document, generator)
    # Half a surrogate pair is written as an escape; NaN and Infinity as Python does it.
    lines[at] = json.dumps(document, ensure_ascii=generator.random() < 0.9).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _odd(value: Any, generator: random.Random) -> Any:
    if not value or not isinstance(value, (dict, list)) or generator.random() < 0.15:
        return copy.deepcopy(generator.choice(ODD))
    keys: Any = list(value) if isinstance(value, dict) else range(len(value))
    key = generator.choice(keys)
    way = generator.random()
    if way < 0.1:
        del value[key]
    elif way < 0.15 and isinstance(value, dict):
        value[generator.choice(("", "text", "a\0", "\ud800", "x" * 300, "a.b", "text.a"))] = value.pop(key)
    elif way < 0.2 and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = _odd(value[key], generator)
    return value


def _in_zip(content: bytes, kind: str, generator: random.Random) -> bytes:
    """One part of a workbook changed, packed again."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(target, "w") as new,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # a name that is there twice is one of the mutations
        chosen = generator.choice(old.namelist())
        for name in old.namelist():
            part = old.read(name)
            if name == chosen:
                for _ in range(generator.choice((1, 1, 3))):
                    part = _changed(part, kind, generator)
                if generator.random() < 0.1:
                    continue
                if generator.random() < 0.1:
                    new.writestr(name, b"")
            new.writestr(name, part, generator.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)))
    return target.getvalue()


def _in_packing(content: bytes, kind: str, generator: random.Random) -> bytes:
    """The payload changed, packed again; or packed twice."""
    is_gzip = content.startswith(b"\x1f\x8b")
    if is_gzip:
        inner = gzip.decompress(content)
    else:
        inner = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    changed = _changed(inner, kind, generator)
    pack: Callable[[bytes], bytes] = gzip.compress if is_gzip else zstandard.compress
    return pack(pack(changed)) if generator.random() < 0.1 else pack(changed)


def _in_footer(content: bytes, kind: str, generator: random.Random) -> bytes:
    """A parquet footer with odd bytes, or with another length; or the head of a page."""
    size = struct.unpack("<I", content[-8:-4])[0]
    footer = bytearray(content[-8 - size : -8])
    if generator.random() < 0.2:
        size = generator.choice((0, 1, size - 1, size + 1, 2**31, 2**32 - 1))
    for _ in range(generator.choice((1, 1, 2, 6))):
        footer[generator.randrange(len(footer))] = generator.choice(
            (0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256))
        )
    body = bytearray(content[: -8 - len(footer)])
    if generator.random() < 0.5:
        body[generator.randrange(4, len(body))] = generator.choice((0, 0x7F, 0xFF, generator.randrange(256)))
    return bytes(body) + bytes(footer) + struct.pack("<I", size) + b"PAR1"


NAMES = (
    "..",
    "../x",
    "/tmp/x",
    "a/b",
    "manifest.json",
    "\0",
    "x" * 300,
    ".",
    "",
    "adapter_config.json/",
    "C:\\x",
)


def _in_tar(content: bytes, kind: str, generator: random.Random) -> bytes:
    """An archive with an odd entry or an odd head whose checksum is right."""
    if generator.random() < 0.4:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=generator.choice((0, 1, 2))) as archive:
            files = list(adapter_files().items())
            generator.shuffle(files)
            odd = generator.randrange(len(files))
            for at, (name, data) in enumerate(files):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                if at == odd:
                    entry.type = generator.choice(
                        (b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"x", b"g", b"Z")
                    )
                    entry.linkname = generator.choice(("../../etc/passwd", "/etc/passwd", name, ""))
                    if generator.random() < 0.7:
                        entry.name = generator.choice((*NAMES, name))
                with contextlib.suppress(ValueError):  # a name that this kind of archive can't have
                    archive.addfile(entry, io.BytesIO(data))
        return target.getvalue()
    blocks = bytearray(content)
    at = 512 * generator.randrange(len(blocks) // 512)
    head = blocks[at : at + 512]
    for _ in range(generator.choice((1, 2))):
        field_at, size = generator.choice(
            ((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
        )
        odd_field = generator.choice(
            (b"7" * size, b"\xff" * size, b"\x80" + b"\x7f" * (size - 1), b"\0" * size, b"-1", b"S")
        )
        head[field_at : field_at + min(size, len(odd_field))] = odd_field[:size]
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    blocks[at : at + 512] = head
    return bytes(blocks)


def _in_text(content: bytes, kind: str, generator: random.Random) -> bytes:
    """The same text in another encoding, as another program would have saved it."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _changed(content, kind, generator)
    encoding = generator.choice(
        ("utf-16", "utf-16-be", "utf-32", "utf-7", "utf-8-sig", "cp1252", "shift_jis", "cp037")
    )
    return _changed(text.encode(encoding, "replace"), kind, generator)


def _in_weights(content: bytes, kind: str, generator: random.Random) -> bytes:
    """The manifest as JSON, or the weights' header, made odd."""
    if content.startswith(b"{"):
        return _in_json(content, kind, generator)
    (size,) = struct.unpack("<Q", content[:8])
    header = _in_json(content[8 : 8 + size], kind, generator)
    length = len(header) if generator.random() < 0.8 else generator.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    return struct.pack("<Q", length) + header + content[8 + size :]


INNER: dict[str, Callable[[bytes, str, random.Random], bytes]] = {
    "csv": _in_text, "txt": _in_text, "json": _in_json, "parquet": _in_footer, "workbooks": _in_zip,
    "packed": _in_packing, "corrections": _in_json, "adapters": _in_weights, "archives": _in_tar,
    "bases": _in_json, "batches": _in_json, "answers": _in_json,
}  # fmt: skip
