"""What an adapter says of itself. Needs no torch, so that every process can read it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.errors import AdapterChanged, AdapterInvalid, ManifestMissing
from worker.model.encoding import Encoding
from worker.model.scaling import Scaling

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
REQUIRED = (WEIGHTS, "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
DOCUMENTATION = (".md", ".png")
METRICS = "metrics.json"
FORMAT = 1
_MOST_CHARS = 4 * 1024**2
_LONGEST_NAME = 100
BUNDLED = Path(__file__).parent.parent / "data" / "minilm-imdb"
"""The adapter that comes with this package."""


def is_documentation(name: str) -> bool:
    """Whether a file may lie in an adapter directory without being part of the contract.

    Hidden files, Markdown, pictures, and of the JSON files only the measured metrics: a stray one such as
    special_tokens_map.json could change the tokenizer.
    """
    return name.startswith(".") or name.endswith(DOCUMENTATION) or name == METRICS


def is_language(code: object) -> bool:
    """Whether it has the form of a language's code (ISO 639-1)."""
    return isinstance(code, str) and re.fullmatch("[a-z]{2}", code) is not None


@dataclass(frozen=True, slots=True)
class Base:
    """The pretrained model under an adapter: id, revision ("" for a local one) and its weights' sha256."""

    id: str
    revision: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A sentence and the fp32 logits, one per label before temperature, that the adapter must give it."""

    text: str
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contract of an adapter directory: all that can change a label, and how to check it.

    `languages` are those of the texts it was trained on (ISO 639-1), none where that isn't known. `labels` are in
    the order of the logits. Probabilities are softmax(-(largest logit - logit) ** exponent /
    temperature): `exponent` 1 is plain temperature scaling. `files` maps each file of the directory, but the manifest
    and documentation, to its sha256.
    """

    name: str
    base: Base
    labels: tuple[str, ...]
    encoding: Encoding
    files: Mapping[str, str]
    probes: tuple[Probe, ...]
    temperature: float = 1.0
    exponent: float = 1.0
    created_at: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise AdapterInvalid(
                f"the manifest of adapter '{self.name}' has format {self.format}; this version reads "
                f"{FORMAT}."
            )
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise AdapterInvalid(f"adapter '{self.name}' needs two or more distinct labels: {self.labels}.")
        if not 0 < self.temperature < math.inf:
            raise AdapterInvalid(f"adapter '{self.name}' has temperature {self.temperature}; it must be > 0.")
        if not 0 < self.exponent < math.inf:
            raise AdapterInvalid(f"adapter '{self.name}' has exponent {self.exponent}; it must be > 0.")
        base = (self.base.id, self.base.revision, self.base.weights_sha256)
        if not all(isinstance(text, str) for text in (self.name, *base, *self.labels, *self.files.values())):
            raise AdapterInvalid(f"{MANIFEST} of '{self.name}' has a number where a text belongs.")
        if not all(is_language(code) for code in self.languages):
            raise AdapterInvalid(
                f"adapter '{self.name}' has languages {list(self.languages)}; a code has two letters, such as en."
            )
        if any(len(probe.logits) != len(self.labels) for probe in self.probes):
            raise AdapterInvalid(f"a probe of adapter '{self.name}' hasn't one logit per label.")

    def _check_storable(self) -> None:
        """Refuses what no database takes, and what can't be written again.

        Raises:
            AdapterInvalid: NUL characters or half surrogate pairs, or members nested too deeply.
        """
        try:
            written = self.to_json()
            written.encode()
        except (RecursionError, UnicodeEncodeError, TypeError) as error:
            raise AdapterInvalid(f"{MANIFEST} can't be read: {error}.") from error
        if re.search(r"(?<!\\)(?:\\\\)*\\u0000", written):
            raise AdapterInvalid(f"{MANIFEST} can't be read: it holds a NUL character.")

    def to_json(self) -> str:
        """The manifest as readable JSON, the same text for the same manifest."""
        fields = dataclasses.asdict(self)
        # Manifests older than these fields keep their hash.
        if self.exponent == 1:
            del fields["exponent"]
        if not self.languages:
            del fields["languages"]
        return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads what `to_json` wrote.

        Raises:
            AdapterInvalid: the text is no JSON, lacks a field or has one that this version doesn't know.
        """
        try:
            fields = json.loads(text)
            found = cls(
                **{
                    **fields,
                    "base": Base(**fields["base"]),
                    "labels": tuple(fields["labels"]),
                    "encoding": Encoding(**fields["encoding"]),
                    "files": dict(fields["files"]),
                    "languages": tuple(fields.get("languages", ())),
                    "probes": tuple(
                        Probe(str(p["text"]), tuple(float(value) for value in p["logits"]))
                        for p in fields["probes"]
                    ),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise AdapterInvalid(f"{MANIFEST} can't be read: {error}.") from error
        found._check_storable()
        return found

    @property
    def scaling(self) -> Scaling:
        """How this adapter's logits become probabilities."""
        return Scaling(self.temperature, self.exponent)

    @property
    def sha256(self) -> str:
        """Identity of the adapter: the hash of everything its manifest says."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest of an adapter directory.

        Raises:
            ManifestMissing: the directory or its manifest does not exist.
            AdapterInvalid: the manifest can't be read.
        """
        path = directory / MANIFEST
        if not directory.is_dir():
            raise ManifestMissing(f"there is no adapter directory {directory}. `loracle train` makes one.")
        if not path.is_file():
            raise ManifestMissing(
                f"{directory} has no {MANIFEST}: it is no adapter made by `loracle train`, or part of it "
                f"is missing."
            )
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(_MOST_CHARS + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise AdapterInvalid(f"{path} can't be read: {error}.") from error
        if len(text) > _MOST_CHARS:
            raise AdapterInvalid(f"{path} can't be read: it has more than {_MOST_CHARS:,} characters.")
        return cls.from_json(text)

    def verify_files(self, directory: Path) -> None:
        """Checks that the directory holds the files the manifest names, unchanged, and no other.

        A file that the manifest doesn't know could change the tokenizer, or be a pickle; documentation and
        hidden files are left alone.

        Raises:
            AdapterInvalid: the weights are no safetensors, or the manifest forgets a file it must name.
            AdapterChanged: a file is missing, new, or has other bytes.
        """
        if not (directory / WEIGHTS).is_file():
            raise AdapterInvalid(
                f"{directory} has no {WEIGHTS}. Loracle loads safetensors only, never pickled weights."
            )
        for name in REQUIRED:
            if name not in self.files:
                raise AdapterInvalid(f"the manifest of adapter '{self.name}' names no {name}.")
        for name in self.files:
            # Only names: a path would make this check read whatever file of this host a manifest likes.
            if name in (".", "..") or Path(name).name != name or "\\" in name or len(name) > _LONGEST_NAME:
                raise AdapterInvalid(
                    f"the manifest of adapter '{self.name}' names '{name}', which is no file name."
                )
        for path in sorted(directory.iterdir()):
            if path.name not in self.files and path.name != MANIFEST and not is_documentation(path.name):
                raise AdapterChanged(
                    f"{path} is not part of adapter '{self.name}' ({MANIFEST} doesn't name it). Remove it."
                )
        for name, expected in self.files.items():
            path = directory / name
            if not path.is_file():
                raise AdapterChanged(f"{directory} lacks {name}, which its {MANIFEST} names.")
            if file_sha256(path) != expected:
                raise AdapterChanged(
                    f"{path} was changed after the adapter was made (its sha256 differs from {MANIFEST}). "
                    "Restore the file or train the adapter again."
                )


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
