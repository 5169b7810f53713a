import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

from trainer.datasets import CONVERTED, Data, resolve_data
from worker.errors import FileUnreadable, TrainingInvalid
from worker.model.bases import HUB_TIMEOUT_S

COMMIT = "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"
OTHER = "0123456789abcdef0123456789abcdef01234567"
IMDB = [f"plain_text/{split}-00000-of-00001.parquet" for split in ("train", "test", "unsupervised")]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache, no network, and no file of this checkout in the way.
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


Cache = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Lays files into the hub's cache as huggingface_hub does."""

    def lay(
        files: Iterable[str], *, name: str = "stanfordnlp/imdb", commit: str = COMMIT, ref: str = "main"
    ) -> Path:
        folder = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        for file in files:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file).write_bytes(b"PAR1")
        if ref:
            (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (folder / "refs" / ref).write_text(commit)
        return snapshot

    return lay


class Hub:
    """A hub that knows datasets by name and revision; `asked` are the revisions that somebody wanted to know of."""

    def __init__(self, cache: Cache) -> None:
        self.revisions: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.downloaded: list[str] = []
        self.error: Exception | None = None
        self._cache = cache

    def dataset_info(self, _: object, name: str, *, revision: str, timeout: float) -> SimpleNamespace:
        assert timeout == HUB_TIMEOUT_S
        self.asked.append((name, revision))
        response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.test"))
        if self.error is not None:
            raise self.error
        if name not in {known for known, _ in self.revisions}:
            raise RepositoryNotFoundError("404", response=response)
        if (name, revision) not in self.revisions:
            raise RevisionNotFoundError("404", response=response)
        files = self.revisions[name, revision]
        return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=file) for file in files])

    def snapshot_download(self, name: str, *, revision: str, allow_patterns: list[str]) -> str:
        self.downloaded += allow_patterns
        return str(self._cache(allow_patterns, name=name, ref=revision))


@pytest.fixture
def hub(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    fake, real = Hub(cache), huggingface_hub.snapshot_download

    def snapshot_download(
        name: str, *, local_files_only: bool = False, repo_type: str, **options: object
    ) -> str:
        assert repo_type == "dataset"
        if local_files_only:
            return real(name, repo_type=repo_type, local_files_only=True, **options)  # type: ignore[call-overload]
        return fake.snapshot_download(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "dataset_info",
        lambda self, *names, **options: fake.dataset_info(self, *names, **options),
    )
    return fake


def test_a_path_is_itself_even_where_a_dataset_has_that_name(tmp_path: Path, hub: Hub) -> None:
    path = tmp_path / "reviews.csv"
    path.touch()
    assert resolve_data(path) == resolve_data(str(path)) == Data((path,), str(path))
    Path("imdb").mkdir()
    assert resolve_data("imdb").paths == (Path("imdb"),)
    assert hub.asked == []


@pytest.mark.parametrize("name", ["imdb", Path("imdb"), "stanfordnlp/imdb", Path("stanfordnlp/imdb")])
def test_a_cached_dataset_needs_no_network(name: str | Path, cache: Cache) -> None:
    snapshot = cache(IMDB)
    assert resolve_data(name) == Data((snapshot / IMDB[0],), "stanfordnlp/imdb", COMMIT)
    assert resolve_data(name, "test").paths == (snapshot / IMDB[1],)


@pytest.mark.parametrize(
    "files",
    [
        ["data/train-00000-of-00002-b42a775f407cee45.parquet", "data/train-00001-of-00002-0a5b.parquet"],
        ["default/train/0000.parquet", "default/train/0001.parquet"],
        ["data/train/0000.parquet"],
        ["train.parquet"],
        ["data/train.parquet"],
    ],
)
def test_the_hubs_layouts_are_read(files: list[str], cache: Cache) -> None:
    snapshot = cache([*files, files[0].replace("train", "test"), "README.md"])
    assert resolve_data("imdb").paths == tuple(snapshot / file for file in files)


def test_a_dataset_that_another_program_cached_without_a_branch_is_found(cache: Cache) -> None:
    snapshot = cache(IMDB, ref="")
    assert resolve_data("imdb") == Data((snapshot / IMDB[0],), "stanfordnlp/imdb", COMMIT)


def test_a_converted_dataset_is_found_in_the_cache(cache: Cache) -> None:
    cache(["README.md"], name="o/d", commit=OTHER)
    snapshot = cache(["default/train/0000.parquet"], name="o/d", ref=CONVERTED)
    assert resolve_data("o/d") == Data((snapshot / "default/train/0000.parquet",), "o/d", COMMIT)


def test_a_split_that_is_cached_in_part_is_downloaded(cache: Cache, hub: Hub) -> None:
    files = [f"data/train-0000{number}-of-00002.parquet" for number in range(2)]
    hub.revisions["stanfordnlp/imdb", "main"] = files
    snapshot = cache(files[:1])
    assert resolve_data("imdb").paths == tuple(snapshot / file for file in files)
    assert hub.downloaded == files


def test_a_listing_in_the_cache_tells_what_is_missing(cache: Cache, hub: Hub) -> None:
    # The names of converted files don't say how many there are, but the hub's client keeps the listing.
    files = [f"default/train/000{number}.parquet" for number in range(2)]
    hub.revisions["stanfordnlp/imdb", "main"] = files
    snapshot = cache(files[:1])
    trees = snapshot.parents[1] / "trees"
    trees.mkdir()
    entry = {"size": 4, "blob_id": "0" * 40, "lfs_sha256": None, "lfs_size": None, "xet_hash": None}
    (trees / f"{COMMIT}.json").write_text(
        json.dumps({"format_version": 1, "files": dict.fromkeys(files, entry)})
    )
    assert resolve_data("imdb").paths == tuple(snapshot / file for file in files)


def test_only_the_split_is_downloaded_and_then_found_without_network(hub: Hub) -> None:
    hub.revisions["stanfordnlp/imdb", "main"] = ["README.md", *IMDB]
    data = resolve_data("imdb")
    assert data.revision == COMMIT
    assert hub.downloaded == IMDB[:1]
    hub.error = OSError("no network")
    assert resolve_data("imdb") == data


def test_a_dataset_in_another_format_is_read_as_the_hub_converts_it(hub: Hub) -> None:
    hub.revisions["o/d", "main"] = ["train.csv", "README.md"]
    hub.revisions["o/d", CONVERTED] = ["default/train/0000.parquet"]
    assert [path.name for path in resolve_data("o/d").paths] == ["0000.parquet"]
    assert hub.asked == [("o/d", "main"), ("o/d", CONVERTED)]


def test_configurations_are_never_mixed(cache: Cache, hub: Hub) -> None:
    files = ["emoji/train-00000-of-00001.parquet", "data/irony/train-00000-of-00001.parquet"]
    hub.revisions["o/d", "main"] = files
    with pytest.raises(TrainingInvalid, match=r"several configurations \(emoji, irony\).*o/d/emoji"):
        resolve_data("o/d")
    with pytest.raises(TrainingInvalid, match=r"no configuration 'joy' \(found: emoji, irony\)"):
        resolve_data("o/d/joy")
    data = resolve_data("o/d/irony")
    assert data.name == "o/d/irony"
    assert hub.downloaded == files[1:]
    assert resolve_data("o/d/irony") == data
    assert len(hub.downloaded) == 1


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("reviews.csv", FileUnreadable, r"no file reviews.csv \(looked in .*here\).*owner/name"),
        ("data/reviews.jsonl.gz", FileUnreadable, "no file"),
        ("/nowhere/at/all", FileUnreadable, "no file"),
        ("reviews", FileUnreadable, "imdb for short"),
        ("../o/d", FileUnreadable, "no file"),
        ("o/nothing", TrainingInvalid, r"'o/nothing' is no file here.*Check the name.*HF_TOKEN"),
        ("o/x--y", FileUnreadable, "no file"),
        ("o/text", TrainingInvalid, "no parquet files on the hub. Give the paths"),
        ("o/empty", TrainingInvalid, "has no parquet files. Give the paths"),
        ("o/tested", TrainingInvalid, r"no split 'train' \(found: dev, test\)"),
    ],
)
def test_errors_say_the_way_out(name: str, error: type[Exception], message: str, hub: Hub) -> None:
    hub.revisions["o/text", "main"] = ["train.csv"]
    hub.revisions["o/empty", "main"] = hub.revisions["o/empty", CONVERTED] = []
    hub.revisions["o/tested", "main"] = [f"data/{split}-00000-of-00001.parquet" for split in ("dev", "test")]
    with pytest.raises(error, match=message):
        resolve_data(name)
    assert hub.downloaded == []
    assert not (issubclass(error, FileUnreadable) and hub.asked)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ConnectError("no route to host"), "ConnectError: no route to host"),
        (httpx2.ReadTimeout(""), "ReadTimeout: no reason given"),
        (OSError("disk full"), "OSError: disk full"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
    ],
)
def test_without_the_hub_the_way_out_is_another_machine(error: Exception, message: str, hub: Hub) -> None:
    hub.error = error
    with pytest.raises(
        TrainingInvalid, match=f"{message}.*on another machine and give their paths"
    ) as caught:
        resolve_data("imdb")
    assert caught.value.exit_code == 2


def test_people_are_told_which_revision() -> None:
    files = (Path("a"), Path("b"))
    assert Data(files, "o/d", COMMIT).sentence() == "o/d at revision e6281661ce1c (2 files)"
    assert Data(files[:1], "o/d", COMMIT).sentence() == "o/d at revision e6281661ce1c (1 file)"
    assert Data(files[:1], "my/a").sentence() == "my/a"


def test_a_database_is_no_training_file_and_its_password_is_not_shown() -> None:
    with pytest.raises(FileUnreadable, match="loracle run") as caught:
        resolve_data("postgresql://user:s3cret@host/db")
    assert "s3cret" not in str(caught.value)
