"""Adapters, settings and answers of servers that somebody made to do harm."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.fuzz.guard import Input
from tests.faults.fuzz.oracle_surfaces import IDS, batch_lines
from tests.faults.fuzz.seeds import (
    SECRET,
    adapter_files,
    completion,
    manifest_of,
    result_line,
    safetensors,
    tar_of,
)
from worker.model.manifest import MANIFEST, WEIGHTS

Made = tuple[str, Callable[[Path], Input], bool]
DEEP = b"[" * 100_000
LONG = "x" * 5000


def cases() -> Iterator[Made]:
    """Name, maker, and whether it takes long."""
    for name, make in (*_adapters(), *_archives(), *_settings(), *_batches(), *_answers(), *_corrections()):
        yield name, make, False


def _corrections() -> Iterator[tuple[str, Callable[[Path], Input]]]:
    def task(**changes: Any) -> dict[str, Any]:
        result = [{"from_name": "sentiment", "value": {"choices": ["pos"]}}]
        annotation = {"result": result, "completed_by": 1, **changes.pop("annotation", {})}
        return {"data": {"job_id": 7, "row_no": 1, **changes}, "annotations": [annotation]}

    note = [
        {"from_name": "sentiment", "value": {"choices": ["pos"]}},
        {"from_name": "note", "value": {"text": ["a\0\ud800"]}},
    ]
    for name, one in {
        "a row of 100 digits": task(row_no=10**100),
        "a job of 5,000 digits": task(job_id=10**4000),
        "a result that is a number": task(annotation={"result": 5}),
        "a note that no database takes": task(annotation={"result": note}),
        "an author that no database takes": task(annotation={"completed_by": "\ud800\0"}),
        "a label that no database takes": task(
            annotation={"result": [{"from_name": "sentiment", "value": {"choices": ["\ud800"]}}]}
        ),
        "a moment before time": task(annotation={"updated_at": "0001-01-01T00:00:00+23:59"}),
    }.items():
        for file in ("a.json", "a.jsonl"):
            content = json.dumps([one, one] if file == "a.json" else one).encode()
            yield f"{file} of corrections with {name}", _file(file, content, "corrections")
        yield (
            f"corrections of two with {name}",
            _file(
                "a.json", json.dumps([{**one, "annotations": one["annotations"] * 2}]).encode(), "corrections"
            ),
        )
    yield "annotations nested deeply", _file("a.json", DEEP, "corrections")
    yield "lines of annotations nested deeply", _file("a.jsonl", DEEP, "corrections")
    csv = b"job_id,row_no,correction,note\n7,1,pos,"
    for name, cell in {
        "a NUL": b"a\0b",
        "a long cell": b"x" * 1_000_000,
        "half a character": b"\xc3",
        "an open quote": b'"x',
    }.items():
        yield f"a csv of corrections with {name}", _file("a.csv", csv + cell, "corrections")


def _file(name: str, content: bytes, surface: str, **options: Any) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        (folder / name).write_bytes(content)
        return Input(surface, folder / name, options)

    return make


def _adapters() -> Iterator[tuple[str, Callable[[Path], Input]]]:
    manifest = json.loads(adapter_files()[MANIFEST])
    base = manifest["base"]
    for name, text in {
        "is nested deeply": DEEP,
        "has members nested deeply": b'{"a":' * 100_000,
        "is no text": b"\xff\xfe\0",
        "is a number": b"1" * 10_000,
        "is empty": b"",
    }.items():
        yield f"a manifest that {name}", _adapter({MANIFEST: text})
    for name, changes in {
        "a name of half a surrogate pair": {"name": "\ud800"},
        "a name with a NUL": {"name": "a\0b"},
        "a base that is a number": {"base": {**base, "id": 5}},
        "a base that is none": {"base": {**base, "id": ""}},
        "a base of a long name": {"base": {**base, "id": LONG}},
        "a base with a NUL": {"base": {**base, "id": "a\0b"}},
        "a hash that is a number": {"base": {"id": "/", "revision": 5, "weights_sha256": 5}},
        "a file of a long name": {"files": {**manifest["files"], LONG: "0"}},
        "a file above": {"files": {**manifest["files"], "../x": "0"}},
        "a file with a NUL": {"files": {**manifest["files"], "a\0b": "0"}},
        "a file without a name": {"files": {**manifest["files"], "": "0"}},
        "a file of half a surrogate pair": {"files": {**manifest["files"], "\ud800": "0"}},
        "a training nested deeply": {"training": json.loads('{"a":' * 400 + "1" + "}" * 400)},
        "labels that are numbers": {"labels": [1, 2]},
        "labels that are one text": {"labels": "ab"},
        "labels that no database takes": {"labels": ["a\0", "\ud800"]},
        "labels that are lists": {"labels": [[], {}]},
        "a temperature of text": {"temperature": "1"},
        "a temperature of many digits": {"temperature": 10**400},
        "a logit of many digits": {"probes": [{"text": "x", "logits": [10**400, 1]}]},
        "a logit that is none": {"probes": [{"text": "x", "logits": [float("nan"), float("inf")]}]},
        "a training that is none": {"training": {"loss": float("nan")}},
        "a moment that is a list": {"created_at": []},
        "languages that are a text": {"languages": "en"},
        "a format that is true": {"format": True},
    }.items():
        yield f"a manifest with {name}", _adapter({MANIFEST: json.dumps({**manifest, **changes}).encode()})
    for name, weights in {
        "of one number": safetensors({"score": []}),
        "of nothing": safetensors({}),
        "empty": b"",
        "with a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "with a header of 100 MB": struct.pack("<Q", 100 * 1024**2) + b"{" + b" " * 1000,
        "with a header nested deeply": struct.pack("<Q", len(DEEP)) + DEEP,
        "of a huge shape": _weights({"dtype": "F32", "shape": [2, 2**62], "data_offsets": [0, 8]}),
        "of a negative shape": _weights({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}),
        "of an unknown kind": _weights({"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}),
        "beyond its end": _weights({"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}),
        "that are a pickle": b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR.",
    }.items():
        files = {**adapter_files(), WEIGHTS: weights}
        del files[MANIFEST]
        yield f"weights {name}", _adapter({WEIGHTS: weights, MANIFEST: manifest_of(files).to_json().encode()})
    for name in (MANIFEST, WEIGHTS, "tokenizer.json", "more.txt", "README.md"):
        for target in ("/dev/zero", "/etc/passwd", ".", "none"):
            yield f"an adapter whose {name} is a link to {target}", _adapter({}, links={name: target})
    for name in (MANIFEST, WEIGHTS):
        # More than an adapter may have; weights are mapped into memory whole.
        yield f"an adapter with {name} of 600 MB", _adapter({}, sparse=name)


def _weights(entry: dict[str, Any]) -> bytes:
    header = json.dumps({"score": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def _adapter(
    changes: dict[str, bytes], links: dict[str, str] | None = None, sparse: str = ""
) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        for name, content in {**adapter_files(), **changes}.items():
            (folder / name).write_bytes(content)
        for name, target in (links or {}).items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
        if sparse:
            with (folder / sparse).open("r+b") as file:
                file.truncate(600 * 1024**2)
        return Input("adapter", folder)

    return make


def _archives() -> Iterator[tuple[str, Callable[[Path], Input]]]:
    files = adapter_files()
    for name, odd in {
        "a file above": _entry("../evil", b"x"),
        "an absolute file": _entry("/tmp/evil", b"x"),
        "a link out": _entry(WEIGHTS, kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "a hard link out": _entry(WEIGHTS, kind=tarfile.LNKTYPE, linkname="/etc/passwd"),
        "a device": _entry(WEIGHTS, kind=tarfile.CHRTYPE),
        "a pipe": _entry(WEIGHTS, kind=tarfile.FIFOTYPE),
        "a directory": _entry(WEIGHTS, kind=tarfile.DIRTYPE),
        "a file of 8 TB": _entry(WEIGHTS, size=2**43),
        "a file twice": _entry("tokenizer.json", b"[]"),
        "holes of 4 TB": _holes(2**42),
        "holes of 8 EB": _holes(2**63 - 1),
        "a size below nothing": _pax(b"19 size=-99999999\n"),
        "a size that is no number": _pax(b"16 size=0x7ffff\n"),
        "a name in an odd character set": _pax(b"24 hdrcharset=BINARY!!!\n" + b"14 path=\xff\xfe\xfd\n\n"),
        "a length that is none": _pax(b"99999999999 path=x\n"),
    }.items():
        yield f"an archive with {name}", _archive(odd + tar_of(files))
        yield (
            f"an archive that ends with {name}",
            _archive(tar_of(files)[:-10240].rstrip(b"\0") + b"\0" * 512 + odd),
        )
    yield "an archive of nothing", _archive(b"")
    yield "an archive of zeros", _archive(bytes(10240))
    yield "an archive of noise", _archive(bytes(range(256)) * 40)


def _archive(content: bytes) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        (folder / MANIFEST).write_bytes(adapter_files()[MANIFEST])
        (folder / "a.tar").write_bytes(content)
        return Input("archive", folder / "a.tar", {"manifest": str(folder / MANIFEST)})

    return make


def _entry(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    linkname: str = "",
    size: int | None = None,
) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, linkname, len(content) if size is None else size
    target = io.BytesIO(entry.tobuf(tarfile.GNU_FORMAT))
    target.seek(0, 2)
    target.write(content + bytes(-len(content) % 512))
    return target.getvalue()


def _holes(size: int) -> bytes:
    """GNU's sparse file: a head that says how large it is, and nothing in it."""
    entry = bytearray(tarfile.TarInfo(WEIGHTS).tobuf(tarfile.GNU_FORMAT))
    entry[156:157] = b"S"
    entry[386:410] = b"00000000000\0" * 2
    entry[483:495] = b"\x80" + size.to_bytes(11, "big")
    entry[148:156] = b" " * 8
    entry[148:156] = b"%06o\0 " % sum(entry)
    return bytes(entry)


def _pax(records: bytes) -> bytes:
    return _entry("pax", records, kind=tarfile.XHDTYPE) + _entry(WEIGHTS, b"x")


def _settings() -> Iterator[tuple[str, Callable[[Path], Input]]]:
    wrong = (
        "postgresql://me:{}@", "postgresql://me:{}", "postgresql://{}@h:x/d", "postgresql://me:{}@h:99999/d",
        "postgresql://me:{}@[::1/d", "postgresql://me:{}@h/a/b", "postgresql://me:a#{}@h/d", "postgresql://me:{}%zz@h/d",
        "postgresql://h/d?password={}", "postgresql://me:{}@h/d?a", "mysql://me:{}@h/d", "postgresql:/me:{}@h/d",
        "redis://:{}@h/x", "redis://:{}@h:0/1", "rediss://:{}@h/0?ssl_password={}", "redis://h/0?password={}", "{}",
        "redis://:{}@a,b/0", "redis://:{}@h;redis://:{}@i", "redis+socket://:{}@/x", "postgresql://me:{}@\u3002/d",
        "postgresql://me:{}@xn--\u00e9/d", "sqlite://me:{}@h/d", "postgresql://me:{}@h/d\t", "postgresql://me:{}@h\u2100/d",
    )  # fmt: skip
    for at, url in enumerate(wrong):
        for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_BASE_URL"):
            secret = name != "OPENAI_BASE_URL"
            text = f"{name}={url.replace('{}', SECRET)}\n"
            if secret or at < 3:
                yield (
                    f"{name} that is wrong in way {at}",
                    _file("x.env", text.encode(), "settings", dotenv=at % 2 == 1),
                )
    laughs = "A=0123456789\n" + "".join(f"{chr(66 + at)}={f'${{{chr(65 + at)}}}' * 10}\n" for at in range(12))
    for name, content in {
        "a home of nobody": b"LORACLE_HOME=~nobodyatall/x",
        "a home that is too long": b"LORACLE_HOME=/" + LONG.encode(),
        "a home of odd bytes": b"LORACLE_HOME=\xff\xfe",
        "a lease without end": b"LORACLE_LEASE_S=inf",
        "a wait without end": b"LORACLE_BULK_POLL_S=1e999",
        "threads of 60 digits": b"LORACLE_THREADS=" + b"9" * 60,
        "a limit of 5,000 digits": b"LORACLE_MAX_COST=" + b"9" * 5000,
        "a limit of almost nothing": b"LORACLE_MAX_COST=1e-999999999",
        "a price nested deeply": b"LORACLE_PRICES=" + DEEP,
        "a key of odd bytes": b"OPENAI_API_KEY=\xff\xfe",
        "a key of lines": b"OPENAI_API_KEY='a\nb'",
        "a billion laughs": laughs.encode(),
        "itself": b"A=${A}\nB=${B:-${B}}\n",
        "quotes": b"A=" + b"'\\" * 100_000,
        "NULs": b"A=\0\n",
        "UTF-16": "LORACLE_DEVICE=cpu\n".encode("utf-16"),
        "a mark": b"\xef\xbb\xbfLORACLE_DEVICE=cpu\n",
        "a million lines": b"A=1\n" * 1_000_000,
    }.items():
        for dotenv in (False, True):
            yield (
                f"settings with {name}{' in .env' * dotenv}",
                _file("x.env", content, "settings", dotenv=dotenv),
            )
    yield "a .env of 5 GB", _file("x.env", b"A=1\n", "settings", dotenv=True, sparse=True)


def _batches() -> Iterator[tuple[str, Callable[[Path], Input]]]:
    line, *_ = batch_lines()
    good = completion(line.ids)
    for name, response in {
        "a status without end": {"status_code": float("inf")},
        "a status of many digits": {"status_code": 10**400},
        "a request that is a list": {"request_id": []},
        "a request that no database takes": {"request_id": "a\0\ud800"},
        "a model that no database takes": {"body": {**good, "model": "a\0\ud800"}},
        "tokens below nothing": {
            "body": {**good, "usage": {"prompt_tokens": -5, "completion_tokens": -9, "total_tokens": 0}}
        },
        "tokens of many digits": {
            "body": {**good, "usage": {"prompt_tokens": 10**30, "completion_tokens": 0, "total_tokens": 0}}
        },
        "a body nested deeply": {"body": json.loads("[" * 400 + "]" * 400)},
        "a body that is a text": {"body": "x" * 100_000},
        "an error nested deeply": {
            "status_code": 400,
            "body": {"error": json.loads('{"error":' * 400 + "1" + "}" * 400)},
        },
    }.items():
        yield f"a result with {name}", _file("out.jsonl", result_line(line, **response) * 2, "batch")
    for name, content in {
        "nested deeply": DEEP,
        "of objects nested deeply": b'{"a":' * 100_000,
        "of odd bytes": b"\xff\xfe\0\n{}\n[]\n5\n\xef\xbb\xbf{}",
        "of many digits": b'{"custom_id":' + b"1" * 100_000 + b"}",
        "of numbers": b'{"custom_id": "x", "response": 5}\n{"custom_id": "x", "response": {"status_code": {}}}',
    }.items():
        for part in ("output", "errors", "metadata"):
            yield f"{part} {name}", _file("out.jsonl", content, "batch", part=part)


def _answers() -> Iterator[tuple[str, Callable[[Path], Input]]]:
    good = completion(IDS)

    def chat(content: str) -> bytes:
        message = {"role": "assistant", "content": content, "refusal": None}
        return json.dumps({**good, "choices": [{**good["choices"][0], "message": message}]}).encode()

    for name, body in {
        "a thought without end": chat("<think>" + "a" * 20_000_000),
        "a fence without end": chat("```json" + "a" * 20_000_000),
        "an object nested deeply": chat('{"a":' * 100_000),
        "a number of many digits": chat('{"a1":' + "1" * 100_000),
        "a model that no database takes": json.dumps({**good, "model": "a\0\ud800"}).encode(),
        "usage of text": json.dumps(
            {**good, "usage": {"prompt_tokens": "5", "completion_tokens": []}}
        ).encode(),
        "usage that is a list": json.dumps({**good, "usage": [1]}).encode(),
        "choices of text": json.dumps({**good, "choices": ["x"]}).encode(),
        "tokens below nothing": json.dumps(
            {**good, "usage": {"prompt_tokens": -5, "completion_tokens": -9}}
        ).encode(),
        "tokens of many digits": json.dumps(
            {**good, "usage": {"prompt_tokens": 10**30, "completion_tokens": 1}}
        ).encode(),
        "a body nested deeply": DEEP,
        "no text": b"\xff\xfe\0",
        "nothing": b"",
        "a number": b"5",
    }.items():
        for status in (200, 400):
            yield f"an answer {status} with {name}", _file("chat.json", body, "answer", status=status)
        yield f"decisions with {name}", _file("d.json", body, "answer", route="decisions")
    for name, probability in {
        "many digits": 10**400,
        "no number": float("nan"),
        "a list": [],
        "text": "0.5",
    }.items():
        one = {
            "type": "choice",
            "choice": "positive",
            "probabilities": [
                {"value": "positive", "probability": probability},
                {"value": "negative", "probability": 0},
            ],
        }
        body = json.dumps({"answers": [{"name": key, **one} for key in IDS]}).encode()
        yield f"decisions with a probability of {name}", _file("d.json", body, "answer", route="decisions")
