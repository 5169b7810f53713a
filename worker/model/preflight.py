"""What can be known of an adapter directory before a job is pinned to it, without loading torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from worker.errors import AdapterInvalid, BaseMismatch, HeadMissing
from worker.model.bases import PACKAGED, weights_sha256
from worker.model.manifest import WEIGHTS, Manifest


def check_adapter(directory: Path) -> None:
    """Checks manifest, file hashes, the head, and the base where this machine can tell without a network.

    Raises:
        AdapterInvalid: one of its subclasses names what is wrong.
    """
    manifest = Manifest.read(directory)
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise AdapterInvalid(f"{directory} has no {WEIGHTS}. Loracle loads safetensors only.")
    try:
        with safe_open(weights, framework="numpy") as file:
            heads = [key for key in file.keys() if ".lora_" not in key]  # noqa: SIM118 (no mapping)
            rows = {file.get_slice(key).get_shape()[0] for key in heads}
    except SafetensorError as error:
        raise AdapterInvalid(f"{weights} is no safetensors file: {error}.") from error
    if len(manifest.labels) not in rows:
        raise HeadMissing(
            f"{weights} holds no classification head for the {len(manifest.labels)} labels of its manifest."
        )
    manifest.verify_files(directory)
    base = manifest.base
    local = Path(base.id)
    packaged = PACKAGED.get(base.id)
    found = weights_sha256(local) if local.is_dir() else packaged.weights_sha256 if packaged else None
    if found is not None and found != base.weights_sha256:
        raise BaseMismatch(
            f"adapter '{manifest.name}' was trained on {base.id} with weights sha256 "
            f"{base.weights_sha256[:12]}…, but the weights of that name here have {found[:12]}…."
        )
