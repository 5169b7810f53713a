"""Small valid inputs of every kind, made in code: what mutations begin with."""

# ruff: noqa: E501 (tables of odd bytes)

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.faults.fuzz.oracle_surfaces import IDS, LABELS, batch_lines
from tests.faults.fuzz.surfaces import SECRET
from tests.workbooks import write_ods, write_xlsx
from worker.model.encoding import Encoding
from worker.model.manifest import MANIFEST, REQUIRED, WEIGHTS, Base, Manifest, Probe

TEXTS = (
    "A fine film, and a long one that I would see again.",
    'He said "never again" and left;\nthe rest of us stayed.',
    "Schade um das Geld und die Zeit, café inbegriffen 🎬",
    "It was\tneither good nor bad | 1,5 of 5",
)
ROWS = [
    {"id": f"r{at}", "text": text, "label": ("pos", "neg")[at % 2], "stars": at}
    for at, text in enumerate(TEXTS * 2)
]


@dataclass(frozen=True, slots=True)
class Seed:
    """A valid input: the name its file gets, its bytes, what tries it, and how it may be read."""

    name: str
    content: bytes
    surface: str = "file"
    options: Mapping[str, Any] = field(default_factory=dict)


@cache
def seeds(kind: str) -> tuple[Seed, ...]:
    """The valid inputs of a kind; see KINDS."""
    return tuple(KINDS[kind]())


def _csv_text(**dialect: Any) -> str:
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(ROWS[0]), **dialect)
    writer.writeheader()
    writer.writerows(ROWS)
    return written.getvalue()


def _delimited() -> list[Seed]:
    plain = _csv_text(lineterminator="\n")
    return [
        Seed("a.csv", plain.encode(), options={"counted": True, "quote": "double"}),
        Seed(
            "b.csv",
            _csv_text(delimiter=";").encode("utf-8-sig"),
            options={"counted": True, "quote": "double"},
        ),
        Seed("c.csv", _csv_text(quoting=csv.QUOTE_ALL).encode("utf-16")),
        Seed("d.csv", _csv_text(doublequote=False, escapechar="\\", lineterminator="\n").encode()),
        Seed("e.tsv", _csv_text(dialect="excel-tab").encode()),
        Seed("f.csv", _csv_text(delimiter="|").encode("utf-32"), options={"keep_columns": ["stars"]}),
        Seed("g.csv", plain.replace("\n", "\r").encode("cp1252", "replace"), options={"encoding": "cp1252"}),
        Seed("h.csv", b"sep=,\n" + plain.encode(), options={"no_header": True, "text_column": "2"}),
        Seed("i.csv", plain.encode("utf-16-le"), options={"encoding": "utf-16-le", "stream": True}),
        Seed(
            "j.csv",
            plain.encode(),
            options={"stream": True, "skip_lines": 1, "columns": ["a", "b", "c", "d"]},
        ),
    ]


def _plain() -> list[Seed]:
    lines = "\n".join(text.replace("\n", " ") for text in TEXTS * 3)
    labelled = "\n".join(
        f"__label__{'pos' if at % 2 else 'neg'} {text}" for at, text in enumerate(["a b"] * 9)
    )
    return [
        Seed("a.txt", lines.encode()),
        Seed("b.txt", lines.encode("utf-16")),
        Seed("c.txt", labelled.encode(), options={"stream": True}),
        Seed("d.txt", lines.encode("cp037", "replace"), options={"encoding": "cp037"}),
        Seed("e", lines.encode("shift_jis", "replace"), options={"encoding": "shift_jis", "format": "txt"}),
    ]


def _json() -> list[Seed]:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    nested = [{"review": {"body": row["text"], "deep": {"er": [row]}}, "id": row["stars"]} for row in ROWS]
    document = {"meta": {"made": 1.5e300}, "data": {"reviews": ROWS, "none": []}}
    return [
        Seed("a.jsonl", lines.encode(), options={"counted": True, "format": "jsonl"}),
        Seed("b.jsonl", lines.encode("utf-16"), options={"keep_columns": ["stars"]}),
        Seed("c.json", json.dumps(ROWS, indent=1).encode()),
        Seed("d.json", json.dumps(document, ensure_ascii=False).encode()),
        Seed(
            "e.jsonl",
            "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in nested).encode(),
            options={
                "text_column": "review.body",
                "keep_columns": ["review"],
                "counted": True,
                "format": "jsonl",
            },
        ),
        Seed("f.json", json.dumps(document).encode("utf-32"), options={"stream": True}),
        Seed("g", lines.encode(), options={"stream": True}),
    ]


def _table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(len(ROWS)), pa.int64()),
            "text": [row["text"] for row in ROWS],
            "label": pa.array([row["label"] for row in ROWS]).dictionary_encode(),
            "when": pa.array([1_700_000_000_123_456_789] * len(ROWS), pa.timestamp("ns", "UTC")),
            "list": [[{"a": at, "b": "x"}] for at in range(len(ROWS))],
            "amount": pa.array([1.5, None] * (len(ROWS) // 2)),
        }
    )


def _parquet() -> list[Seed]:
    found = []
    for at, (packing, options) in enumerate(
        [
            ("none", {}),
            ("snappy", {}),
            ("zstd", {"data_page_version": "2.0"}),
            ("gzip", {"use_dictionary": False}),
        ]
    ):
        sink = pa.BufferOutputStream()
        pq.write_table(_table(), sink, compression=packing, row_group_size=3, **options)
        kept = {"keep_columns": ["when", "list", "amount"]} if at % 2 else {}
        found.append(Seed(f"{at}.parquet", sink.getvalue().to_pybytes(), options=kept))
    return [*found, Seed("s.parquet", found[0].content, options={"stream": True})]


def _workbooks() -> list[Seed]:
    header = ["id", "text", "label"]
    rows = [header, *([row["id"], row["text"], row["label"]] for row in ROWS)]
    odd = [*rows, [1, True, ("date", 45_000)], [1.5, ("error", "#N/A"), None]]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "book"
        return [
            Seed("a.xlsx", write_xlsx(place, {"One": odd}).read_bytes()),
            Seed("b.xlsx", write_xlsx(place, {"One": rows, "Two": odd}, hidden="Two").read_bytes()),
            Seed("c.ods", write_ods(place, rows).read_bytes()),
            Seed("d.xlsx", write_xlsx(place, {"One": rows}).read_bytes(), options={"stream": True}),
        ]


def _packed() -> list[Seed]:
    plain = _csv_text(lineterminator="\n").encode()
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    return [
        Seed("a.csv.gz", gzip.compress(plain, mtime=0)),
        Seed(
            "b.csv.gz", gzip.compress(plain[:200], mtime=0) + gzip.compress(plain[200:], mtime=0) + b"\0" * 20
        ),
        Seed("c.jsonl.zst", zstandard.compress(lines)),
        Seed(
            "d.csv.zst",
            zstandard.compress(plain[:300]) + zstandard.compress(plain[300:]),
            options={"stream": True},
        ),
        Seed("e.parquet.zst", zstandard.compress(seeds("parquet")[0].content)),
        Seed("f.xlsx.gz", gzip.compress(seeds("workbooks")[0].content, mtime=0)),
    ]


def _corrections() -> list[Seed]:
    header = "job_id,row_no,text,correction,note\n"
    rows = "".join(
        f'7,{at},"{row["text"]}",pos,"a note"\n'.replace('""', '"')
        for at, row in enumerate(ROWS)
        if at % 2 == 0
    )
    tasks = [
        {
            "data": {"job_id": 7, "row_no": at, "text": row["text"]},
            "annotations": [
                {
                    "id": at, "was_cancelled": False, "completed_by": {"id": 1, "email": "a@b"},
                    "updated_at": "2026-01-02T03:04:05.678Z",
                    "result": [
                        {"from_name": "sentiment", "type": "choices", "value": {"choices": ["pos"]}},
                        {"from_name": "note", "type": "textarea", "value": {"text": ["why"]}},
                    ],
                }
            ],
        }
        for at, row in enumerate(ROWS)
    ]  # fmt: skip
    made = [
        ("a.csv", (header + rows).encode()),
        ("b.csv", (header + rows).replace(",", ";").encode("utf-16")),
        ("c.json", json.dumps(tasks, indent=1).encode()),
        ("d.jsonl", "".join(json.dumps(task) + "\n" for task in tasks).encode()),
    ]
    return [Seed(name, content, "corrections") for name, content in made]


def safetensors(shapes: Mapping[str, list[int]]) -> bytes:
    """A file of weights, all of them 0."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def adapter_files() -> dict[str, bytes]:
    """The files of a small adapter, whose manifest is right."""
    files = dict.fromkeys(REQUIRED, b"{}")
    files[WEIGHTS] = safetensors(
        {"base.layer.lora_A.weight": [2, 4], "score.weight": [2, 4], "score.bias": [2]}
    )
    return {**files, MANIFEST: manifest_of(files).to_json().encode()}


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    """The manifest of these files."""
    return Manifest(
        name="seed",
        base=Base("no/where", "", "0" * 64),
        labels=LABELS,
        encoding=Encoding(64),
        files={name: sha256(content).hexdigest() for name, content in files.items()},
        probes=(Probe("fine", (0.25, 0.75)),),
        languages=("en",),
    )


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An archive as the database has it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def _manifests() -> list[Seed]:
    files = adapter_files()
    return [Seed(name, files[name], "adapter") for name in (MANIFEST, WEIGHTS)]


def _archives() -> list[Seed]:
    return [Seed("a.tar", tar_of(adapter_files()), "archive")]


def _bases() -> list[Seed]:
    index = {"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    return [Seed("model.safetensors.index.json", json.dumps(index).encode(), "base")]


def _settings() -> list[Seed]:
    lines = [
        f"DATABASE_URL=postgresql://me:{SECRET}@db.example:5432/reviews?sslmode=require&connect_timeout=3",
        f"REDIS_URL=rediss://:{SECRET}@[::1]:6379/0?ssl_cert_reqs=none",
        "OPENAI_BASE_URL=https://api.example/v1/",
        f"OPENAI_API_KEY={SECRET}",
        "LORACLE_DEVICE=cuda:0",
        "LORACLE_BATCH_SIZE=17",
        "LORACLE_LEASE_S=1.5",
        "LORACLE_THREADS=2",
        "LORACLE_MAX_COST=12.50",
        "LORACLE_LOG_LEVEL=DEBUG",
    ]
    more = ["DATABASE_URL=sqlite:////tmp/a%20b.db\nREDIS_URL=redis+socket:///run/x.sock?virtual_host=3\n"]
    texts = [
        "\n".join(lines),
        *more,
        f"export A='quoted # x'\nREDIS_URL=redis://u:{SECRET}@h/1\nB=${{A}}\"q\"\n",
    ]
    return [
        Seed(f"{at}.env", text.encode(), "settings", {"dotenv": dotenv})
        for at, text in enumerate(texts)
        for dotenv in (False, True)
    ]


def completion(ids: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """A good answer to a chat about these ids."""
    return {
        "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-6-luna",
        "choices": [
            {
                "index": 0, "finish_reason": "stop", "logprobs": None,
                "message": {"role": "assistant", "content": json.dumps(dict.fromkeys(ids, "positive")), "refusal": None},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }  # fmt: skip


def result_line(line: Any, **response: Any) -> bytes:
    """A line of a result file of the Batch API."""
    usual = {"status_code": 200, "request_id": "r1", "body": completion(line.ids)}
    return (
        json.dumps({"id": "x", "custom_id": line.custom_id, "response": {**usual, **response}}).encode()
        + b"\n"
    )


def _batches() -> list[Seed]:
    refused = {"error": {"message": "bad", "code": "bad_value", "param": "temperature"}}
    good = b"".join(result_line(line) for line in batch_lines())
    bad = b"".join(result_line(line, status_code=400, body=refused) for line in batch_lines())
    asked = json.dumps({"temperature": 0, "max_tokens": 100}).encode()
    return [
        Seed("output.jsonl", good, "batch"),
        Seed("errors.jsonl", bad, "batch", {"part": "errors"}),
        Seed("metadata.json", asked, "batch", {"part": "metadata"}),
    ]


def _answers() -> list[Seed]:
    decisions = {
        "id": "d1", "object": "decision", "created": 1, "model": "gpt-6-luna",
        "answers": [
            {
                "name": key, "type": "choice", "choice": "positive",
                "probabilities": [{"value": label, "probability": at} for label, at in zip(LABELS, (0.25, 0.75), strict=True)],
            }
            for key in IDS
        ],
        "usage": {"input_tokens": 100, "output_tokens": 0, "total_tokens": 100},
    }  # fmt: skip
    wrong = {"error": {"message": "no temperature", "type": "invalid", "code": "bad", "param": "temperature"}}
    return [
        Seed("chat.json", json.dumps(completion(IDS)).encode(), "answer"),
        Seed("decisions.json", json.dumps(decisions).encode(), "answer", {"route": "decisions"}),
        *(
            Seed(f"{code}.json", json.dumps(wrong).encode(), "answer", {"status": code})
            for code in (400, 429, 500)
        ),
    ]


KINDS = {
    "csv": _delimited, "txt": _plain, "json": _json, "parquet": _parquet, "workbooks": _workbooks, "packed": _packed,
    "corrections": _corrections, "adapters": _manifests, "archives": _archives, "bases": _bases,
    "settings": _settings, "batches": _batches, "answers": _answers,
}  # fmt: skip
