"""Where labelled reviews are found: a path, the Hugging Face cache, the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.errors import FileUnreadable, TrainingInvalid
from worker.model.bases import HUB_TIMEOUT_S

SHORT_NAMES = {"imdb": "stanfordnlp/imdb"}

CONVERTED = "refs/convert/parquet"
"""Where the hub keeps parquet files of datasets that are published in another format
(https://huggingface.co/docs/dataset-viewer/parquet)."""

_NAME = re.compile(r"(?P<owner>\w[\w.-]*)/(?P<dataset>\w[\w.-]*)(/(?P<config>[\w.-]+))?", re.ASCII)
_FILE_NAME = re.compile(r".*\.(csv|tsv|jsonl?|ndjson|parquet|txt)(\.(gz|zst))?", re.IGNORECASE)
_SHARD = re.compile(r"(?:(?P<config>.+)/)?(?P<split>[\w.]+?)(?:-\d+-of-\d+(?:-\w+)?)?\.parquet")
_CONVERTED_SHARD = re.compile(r"(?:(?P<config>.+)/)?(?P<split>[\w.-]+)/\d+\.parquet")
_COUNT = re.compile(r"-of-(\d+)(?:-\w+)?\.parquet$")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Data:
    """Review files, and where they are from.

    `name` is the path as it was given, or the dataset's full name on the hub; `revision` the hub's commit, "" for
    files of one's own.
    """

    paths: tuple[Path, ...]
    name: str
    revision: str = ""

    def sentence(self) -> str:
        """For people: which data these are."""
        if not self.revision:
            return self.name
        files = "1 file" if len(self.paths) == 1 else f"{len(self.paths)} files"
        return f"{self.name} at revision {self.revision[:12]} ({files})"


def resolve_data(name: str | Path, split: str = "train") -> Data:
    """The files behind a path, or those of a split of a dataset on the Hugging Face hub.

    A dataset is named owner/name, where it has several configurations owner/name/configuration; `imdb` is short
    for stanfordnlp/imdb. What is in the Hugging Face cache is taken, however old, else the newest is downloaded.

    Raises:
        FileUnreadable: `name` reads like a file, and there is none.
        TrainingInvalid: there is no such dataset, split or configuration, or the hub can't be reached.
    """
    if Path(name).exists():
        return Data((Path(name),), str(name))
    if "://" in str(name):  # not shown: it may hold a password
        raise FileUnreadable(
            "A URL is no file. Databases are read by `loracle run`, `enqueue` and `plan`; write the rows into a file "
            "first, such as reviews.csv."
        )
    parts = _dataset_name(SHORT_NAMES.get(str(name), str(name)))
    if parts is None:
        raise FileUnreadable(
            f"There is no file {name} (looked in {Path.cwd()}). A dataset of the Hugging Face hub is named "
            f"owner/name, or {', '.join(SHORT_NAMES)} for short."
        )
    wanted = _Wanted(f"{parts['owner']}/{parts['dataset']}", parts["config"] or "", split)
    return _cached(wanted) or _downloaded(wanted)


def _dataset_name(name: str) -> re.Match[str] | None:
    # None where the hub would allow no such name, or it reads like a file's.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    parts = _NAME.fullmatch(name)
    if parts is None or _FILE_NAME.fullmatch(name):
        return None
    try:
        validate_repo_id(f"{parts['owner']}/{parts['dataset']}")
    except HFValidationError:
        return None
    return parts


def _shards(files: Iterable[str]) -> dict[str, tuple[str, str]]:
    # The parquet files of a repository, in order, with the configuration and the split that each is of.
    matches = {file: _CONVERTED_SHARD.fullmatch(file) or _SHARD.fullmatch(file) for file in sorted(files)}
    return {
        file: (re.sub(r"^data(/|$)", "", match["config"] or ""), match["split"])
        for file, match in matches.items()
        if match is not None
    }


@dataclass(frozen=True, slots=True)
class _Wanted:
    dataset: str
    config: str
    split: str

    def __str__(self) -> str:
        return f"{self.dataset}/{self.config}" if self.config else self.dataset

    @property
    def patterns(self) -> list[str]:
        # Where the split's files may lie; the hub's * matches / too.
        folders = [f"{self.config}/", f"*/{self.config}/"] if self.config else ["", "*/"]
        files = [f"{self.split}.parquet", f"{self.split}-*.parquet", f"{self.split}/*.parquet"]
        return [folder + file for folder in folders for file in files]

    def choose(self, shards: Mapping[str, tuple[str, str]]) -> list[str]:
        """The files of the split, in order.

        Raises:
            TrainingInvalid: there is no such split or configuration, or several that it could be.
        """
        configs = sorted({config for config, _ in shards.values()})
        if self.config and self.config not in configs:
            raise TrainingInvalid(
                f"dataset '{self.dataset}' has no configuration '{self.config}' (found: {_listed(configs)})."
            )
        inside = {file: of for file, of in shards.items() if self.config in ("", of[0])}
        splits = sorted({split for _, split in inside.values()})
        if self.split not in splits:
            raise TrainingInvalid(
                f"dataset '{self}' has no split '{self.split}' (found: {_listed(splits)}). Download the parquet "
                f"files that you want and give their paths."
            )
        chosen = {file: config for file, (config, split) in inside.items() if split == self.split}
        configs = sorted(set(chosen.values()))
        if len(configs) > 1:
            raise TrainingInvalid(
                f"dataset '{self.dataset}' has several configurations ({_listed(configs)}). Name one: "
                f"{self.dataset}/{next(filter(None, configs))}."
            )
        return list(chosen)


def _cached(wanted: _Wanted) -> Data | None:
    # None where the cache lacks one of the split's files.
    import huggingface_hub

    for revision in ["main", CONVERTED, *_cached_commits(wanted.dataset)]:
        try:
            directory = Path(
                huggingface_hub.snapshot_download(
                    wanted.dataset,
                    repo_type="dataset",
                    revision=revision,
                    allow_patterns=wanted.patterns,
                    local_files_only=True,
                )
            )
        except OSError:  # LocalEntryNotFoundError, or a cache that can't be read
            continue
        try:
            files = wanted.choose(
                _shards(path.relative_to(directory).as_posix() for path in directory.rglob("*.parquet"))
            )
        except TrainingInvalid:  # other splits or configurations are cached than the one that is asked for
            continue
        of = max(int(match[1]) if (match := _COUNT.search(file)) else 0 for file in files)
        if not of or len(files) == of:
            return Data(tuple(directory / file for file in files), str(wanted), directory.name)
    return None


def _cached_commits(dataset: str) -> list[str]:
    # Newest first. Other programs, such as `datasets`, cache commits without saying which branch they were.
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=dataset, repo_type="dataset")
    try:
        commits = [path for path in (folder / "snapshots").iterdir() if _COMMIT.fullmatch(path.name)]
        return [path.name for path in sorted(commits, key=lambda path: path.stat().st_mtime, reverse=True)]
    except OSError:
        return []


def _downloaded(wanted: _Wanted) -> Data:
    """The split's files, from the hub.

    Raises:
        TrainingInvalid: there is no such dataset or split, or the hub can't be reached.
    """
    import httpx2
    import huggingface_hub
    from huggingface_hub.errors import (
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    absent = f"'{wanted}' is no file here (looked in {Path.cwd()}), and as a dataset it"
    elsewhere = "download its parquet files on another machine and give their paths"
    try:
        for source in ("main", CONVERTED):
            # Asked first, since it takes a timeout and doesn't retry.
            info = huggingface_hub.HfApi().dataset_info(
                wanted.dataset, revision=source, timeout=HUB_TIMEOUT_S
            )
            shards = _shards(file.rfilename for file in info.siblings or [])
            if shards:
                break
        else:
            raise TrainingInvalid(f"dataset '{wanted}' has no parquet files. Give the paths of review files.")
        files = wanted.choose(shards)
        # By the branch's name, not the commit's, so that the cache can tell later which commit it was.
        directory = huggingface_hub.snapshot_download(
            wanted.dataset, repo_type="dataset", revision=source, allow_patterns=files
        )
    except RevisionNotFoundError as error:
        raise TrainingInvalid(
            f"dataset '{wanted.dataset}' has no parquet files on the hub. Give the paths of review files."
        ) from error
    except RepositoryNotFoundError as error:  # a gated dataset's error is one of these
        raise TrainingInvalid(
            f"{absent} isn't on the Hugging Face hub, or you may not read it. Check the name; for a private or "
            f"gated dataset set HF_TOKEN."
        ) from error
    except OfflineModeIsEnabled as error:
        raise TrainingInvalid(
            f"{absent} isn't in the Hugging Face cache, and HF_HUB_OFFLINE is set. Unset it, or {elsewhere}."
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise TrainingInvalid(
            f"{absent} isn't in the Hugging Face cache and can't be downloaded ({type(error).__name__}: "
            f"{reason}). Connect to the network, or {elsewhere}."
        ) from error
    return Data(tuple(Path(directory) / file for file in files), str(wanted), info.sha or source)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "default" for name in names[:10]) + (", …" if len(names) > 10 else "")
