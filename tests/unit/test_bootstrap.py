"""Which adapter is meant, and which scorers a process keeps."""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from worker import bootstrap
from worker.bootstrap import (
    BUNDLED,
    Scorers,
    adapter_files,
    default_adapter,
    find_registered,
    open_store,
)
from worker.errors import (
    AdapterInvalid,
    AdapterUnknown,
    BaseNotFound,
    DeviceBroken,
    HeadMissing,
    HostUnfit,
    ManifestMissing,
)
from worker.settings import Settings
from worker.store.adapters import AdapterRow


class FakeScorer:
    """Refers to itself, as the modules of a model do."""

    def __init__(self) -> None:
        self.itself = self


class FakeStore:
    """Every id is an adapter; none has files."""

    def __init__(self) -> None:
        self.queries = self.ledger = self.adapters = self.faults = self

    def get(self, adapter_id: int) -> AdapterRow:
        return AdapterRow(adapter_id, "tiny", "0" * 64, 0.0)

    def fit(self, worker: str, adapter_id: int) -> bool:
        return False

    def restore(self, adapter_id: int, cache: Path) -> Path:
        return cache / str(adapter_id)


class Loads:
    """What was loaded, in order, and how many scorers lived when the last load began."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.alive: weakref.WeakSet[FakeScorer] = weakref.WeakSet()
        self.alive_at_load = 0
        self.broken: dict[int, Exception] = {}
        self.tries = 0

    def __call__(self, directory: Path, settings: Settings) -> FakeScorer:
        self.alive_at_load = len(self.alive)
        self.tries += 1
        if error := self.broken.get(int(directory.name)):
            raise error
        self.ids.append(int(directory.name))
        scorer = FakeScorer()
        self.alive.add(scorer)
        return scorer


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    loads = Loads()
    monkeypatch.setattr(bootstrap, "load_directory", loads)
    return loads


def settings(home: Path, **values: Any) -> Settings:
    return Settings(_env_file=None, home=home, **values)


def scorers(home: Path, loaded_adapters: int) -> Scorers:
    fake: Any = FakeStore()
    return Scorers(settings(home, loaded_adapters=loaded_adapters), fake)


def test_a_scorer_is_loaded_once_and_the_least_recently_used_leaves(tmp_path: Path, loads: Loads) -> None:
    scorer_for = scorers(tmp_path, 2)
    first = scorer_for(1)
    scorer_for(2)
    assert scorer_for(1) is first
    scorer_for(3)
    assert loads.ids == [1, 2, 3]
    assert scorer_for(1) is first
    scorer_for(2)
    assert loads.ids == [1, 2, 3, 2]
    scorer_for(1)
    assert loads.ids == [1, 2, 3, 2]


def test_what_leaves_is_freed_before_the_next_one_is_loaded(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[int] = []
    cuda = SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: emptied.append(len(loads.alive)))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    scorer_for = scorers(tmp_path, 1)
    scorer_for(1)
    assert emptied == []
    scorer_for(2)
    assert loads.alive_at_load == 0
    assert emptied == [0]


def test_an_invalid_adapter_is_refused_for_some_minutes_without_a_look_at_it(
    tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "is_intact", lambda directory: True)
    scorer_for = scorers(tmp_path, 2)
    loads.broken[1] = HeadMissing("no head")
    for _ in range(20):
        with pytest.raises(HeadMissing, match="no head"):
            scorer_for(1)
    assert loads.tries == 1
    loads.broken.clear()
    monkeypatch.setattr(bootstrap, "time", SimpleNamespace(monotonic=lambda: float("inf")))
    scorer_for(1)
    assert loads.ids == [1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AdapterInvalid("model.safetensors was changed"), "changed in .* while it was loaded"),
        (ModuleNotFoundError("No module named 'sentencepiece'"), "ModuleNotFoundError: No module named"),
        (AttributeError("no such attribute"), "can't be loaded: AttributeError"),
        (BaseNotFound("no base"), "no base"),
    ],
)
def test_what_only_this_host_lacks_is_no_fault_of_the_adapter(
    error: Exception, said: str, tmp_path: Path, loads: Loads
) -> None:
    scorer_for = scorers(tmp_path, 2)
    loads.broken[1] = error
    with pytest.raises(HostUnfit, match=said):
        scorer_for(1)
    # The files in the cache aren't what was registered: they are restored at the next try.
    loads.broken.clear()
    scorer_for(1)


def test_a_broken_device_is_told_apart(tmp_path: Path, loads: Loads) -> None:
    loads.broken[1] = DeviceBroken("CUDA error")
    with pytest.raises(DeviceBroken):
        scorers(tmp_path, 2)(1)


def test_the_setting_outranks_the_active_adapter_and_that_the_bundled_one(tmp_path: Path) -> None:
    fresh = settings(tmp_path)
    assert adapter_files(fresh) == BUNDLED
    assert not fresh.default_database.exists()
    store = open_store(fresh)
    bundled, chosen_by = default_adapter(store, fresh)
    assert chosen_by == "bundled"
    assert adapter_files(fresh) == BUNDLED

    store.ledger.adapters.activate(bundled)
    assert default_adapter(store, fresh) == (bundled, "active")
    sha256 = store.queries.adapters.get(bundled).sha256
    assert adapter_files(fresh) == tmp_path / "adapters" / sha256
    stubbed = settings(tmp_path, adapter="stub")
    stub, chosen_by = default_adapter(store, stubbed)
    assert chosen_by == "LORACLE_ADAPTER"
    assert store.queries.adapters.get(stub).is_stub
    assert default_adapter(store, settings(tmp_path, adapter="bundled")) == (bundled, "LORACLE_ADAPTER")
    assert adapter_files(settings(tmp_path, adapter="bundled")) == BUNDLED

    store.ledger.adapters.activate(None)
    assert default_adapter(store, fresh) == (bundled, "bundled")


def test_a_folder_that_holds_no_adapter_hides_no_registered_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = settings(tmp_path / "home")
    store = open_store(here)
    with pytest.raises(AdapterUnknown, match=r"no adapter 'minilm-imdb'.*no directory either"):
        adapter_files(here, "minilm-imdb")
    Path("minilm-imdb").mkdir()
    with pytest.raises(ManifestMissing, match=r"minilm-imdb has no manifest\.json"):
        adapter_files(here, "minilm-imdb")
    store.ledger.adapters.register(BUNDLED)
    assert adapter_files(here, "minilm-imdb").parent == tmp_path / "home" / "adapters"


def test_bundled_is_a_name_in_the_database_too(tmp_path: Path) -> None:
    store = open_store(settings(tmp_path))
    with pytest.raises(AdapterUnknown, match="no job in this database has used the bundled adapter"):
        find_registered(store, "bundled")
    number = store.ledger.adapters.register(BUNDLED)
    assert find_registered(store, "bundled").id == number
