"""A plain PEFT adapter, without a manifest, becomes one of ours: what it doesn't say is asked for, never guessed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from worker.errors import AdapterInvalid, AdapterUnsaved, BaseNotFound, HeadMissing
from worker.model.bases import find_base, weights_sha256
from worker.model.encoding import Encoding
from worker.model.manifest import MANIFEST, WEIGHTS, Base, Manifest

CONFIG = "adapter_config.json"
HEAD = re.compile(r"(?P<layer>.*\.(classifier|score)(\.out_proj)?)\.weight")
"""The last layer of transformers' sequence classifiers: it has a row per label."""
_UNNAMED = re.compile(r"LABEL_\d+")


@dataclass(frozen=True, slots=True)
class PlainAdapter:
    """What the files of a plain PEFT adapter say: its base, and how many labels its head has."""

    directory: Path
    base_id: str
    revision: str
    labels: int

    @classmethod
    def read(cls, directory: Path) -> PlainAdapter:
        """The adapter in a directory, as far as it can be known without torch and without its base.

        Raises:
            AdapterInvalid: it is none, one of ours already, pickled, not for classification, or without a head.
        """
        if (directory / MANIFEST).exists():
            raise AdapterInvalid(
                f"{directory} has a {MANIFEST}: it is one of Loracle's adapters already. Use it as it is, or put it "
                f"into the database with `loracle adapters add {directory}`."
            )
        try:
            config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AdapterInvalid(
                f"{directory} has no {CONFIG}. Name the directory that PEFT's save_pretrained wrote."
            ) from None
        except (OSError, ValueError) as error:
            raise AdapterInvalid(f"{directory / CONFIG} can't be read: {error}.") from None
        if not isinstance(config, dict):
            raise AdapterInvalid(f"{directory / CONFIG} is no JSON object.")
        kind, task = config.get("peft_type"), config.get("task_type")
        if kind != "LORA" or task != "SEQ_CLS":
            raise AdapterInvalid(
                f"{directory / CONFIG} says peft_type {kind} and task_type {task}. Loracle scores with LoRA adapters "
                "for sequence classification: LORA and SEQ_CLS."
            )
        return cls(
            directory,
            base_id=str(config.get("base_model_name_or_path") or ""),
            revision=str(config.get("revision") or ""),
            labels=_labels_of_head(directory),
        )

    def names(self, given: Sequence[str], base: Path) -> tuple[str, ...]:
        """The labels' names, in the order of the head: those given, else those in the base's own configuration.

        Raises:
            AdapterInvalid: nobody names them, or there are more or fewer than the head has rows.
        """
        names = tuple(given) or _names_in(base)
        if len(names) == self.labels and len(set(names)) == len(names):
            return names
        if given:
            raise AdapterInvalid(
                f"--labels names {len(names)} labels ({', '.join(names)}), and the head of {self.directory} has "
                f"{self.labels}. Name each once, in the order of the numbers that it was trained with."
            )
        raise AdapterInvalid(
            f"{self.directory} doesn't say what its {self.labels} labels are called. Name them in the order of the "
            "numbers that it was trained with: --labels negative,positive"
        )


def import_adapter(
    plain: PlainAdapter,
    out: Path,
    *,
    name: str,
    labels: Sequence[str],
    encoding: Encoding,
    base_id: str | None = None,
    languages: tuple[str, ...] = (),
) -> Manifest:
    """Writes a copy with tokenizer, manifest and probes into the new directory `out`; the original stays as it is.

    `labels` may be empty where the base names them; `base_id` is another place of the base than the adapter says.
    The copy is loaded with every check that a worker makes.

    Raises:
        AdapterInvalid: the adapter doesn't fit its base, or something that it doesn't say is missing.
        HostUnfit: the base can't be found or loaded here.
    """
    if out.exists():
        raise AdapterUnsaved(f"{out} is there already. Choose another directory with --out.")
    named = base_id or plain.base_id
    if not named:
        raise AdapterInvalid(f"{plain.directory} doesn't say what its base is. Name it with --base.")
    try:
        place = find_base(named, "" if base_id else plain.revision)
    except BaseNotFound as error:
        raise BaseNotFound(f"{error} Or name the base of this adapter with --base.") from None
    labels = plain.names(labels, place)
    # Torch takes seconds: what is asked for is told before.
    import torch

    from worker.model.classifier import Classifier
    from worker.model.lora import check_weights, training_summary, with_adapter
    from worker.model.pretrained import load_pretrained, load_tokenizer

    base = Base(
        id=str(Path(named).resolve()) if Path(named).is_dir() else named,
        revision=place.name if place.parent.name == "snapshots" else "",
        weights_sha256=weights_sha256(place),
    )
    pretrained = load_pretrained(place, labels)
    check_weights(plain.directory, labels, pretrained.fresh)
    tokenizer = load_tokenizer(tokenizer_place(plain, place))
    classifier = Classifier(pretrained.model, tokenizer, labels, encoding, base)
    classifier.model = with_adapter(pretrained.model, plain.directory)
    training = {"imported_from": "PEFT", "lora": training_summary(classifier.model.peft_config["default"])}
    manifest = classifier.save(out, name=name, training=training, metrics={}, languages=languages)
    try:
        # PEFT passes over tensors for which the base has no layer.
        if lost := sorted(_shapes(plain.directory).keys() - _shapes(out).keys()):
            raise AdapterInvalid(
                f"{len(lost)} of the tensors in {plain.directory} have no place in {named} ({lost[0]}, …): it was "
                "trained on another base, or changes embeddings. Name the base that it was trained on with --base."
            )
        Classifier.load(out, device=torch.device("cpu"), dtype=torch.float32)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return manifest


def tokenizer_place(plain: PlainAdapter, base: Path) -> Path:
    """Where the tokenizer comes from: the adapter's directory where it holds one, else the base's."""
    return plain.directory if (plain.directory / "tokenizer.json").is_file() else base


def _labels_of_head(directory: Path) -> int:
    weights = directory / WEIGHTS
    if not weights.is_file():
        pickled = directory / "adapter_model.bin"
        way = (
            "it holds adapter_model.bin, a pickle, which may run code when it is read. Where you trust it, load it "
            "with PEFT and write it anew with save_pretrained(…, safe_serialization=True)"
            if pickled.is_file()
            else "PEFT's save_pretrained writes it"
        )
        raise AdapterInvalid(f"{directory} has no {WEIGHTS}: {way}.")
    heads = {
        match["layer"]: shape[0]
        for key, shape in _shapes(directory).items()
        if ".lora_" not in key and (match := HEAD.fullmatch(key))
    }
    if not heads:
        raise HeadMissing(
            f"{weights} holds no classification head, so its scores would come from random numbers. Train it again "
            'with task_type SEQ_CLS, or with modules_to_save=["classifier"] (or "score").'
        )
    return heads[max(heads, key=len)]


def _shapes(directory: Path) -> dict[str, Sequence[int]]:
    try:
        with safe_open(directory / WEIGHTS, framework="numpy") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise AdapterInvalid(f"{directory / WEIGHTS} is no safetensors file: {error}.") from error


def _names_in(base: Path) -> tuple[str, ...]:
    """The labels that the base's own configuration names; none where they are transformers' LABEL_0, LABEL_1."""
    try:
        found = json.loads((base / "config.json").read_text(encoding="utf-8")).get("id2label", {})
        names = tuple(str(found[str(number)]) for number in range(len(found)))
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return ()
    return () if any(_UNNAMED.fullmatch(name) for name in names) else names
