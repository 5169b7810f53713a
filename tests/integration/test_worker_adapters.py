"""A running worker and the adapters that come to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from tests.integration.site import Site, reviews, stop
from tests.unit import models
from worker.bootstrap import default_adapter
from worker.model.manifest import BUNDLED
from worker.store.tables import Adapter


@pytest.fixture(scope="module")
def tiny_adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two adapters on one tiny base; their labels tell them apart."""
    folder = tmp_path_factory.mktemp("adapters")
    base = models.make_base(folder / "base")
    for name, labels in (("first", ("no", "yes")), ("second", ("bad", "good"))):
        classifier = models.make_classifier(base, labels=labels)
        classifier.save(folder / name, name=name, training={}, metrics={})
    return folder / "first", folder / "second"


def test_a_worker_scores_with_newly_activated_adapters_without_a_restart(
    site: Site, tiny_adapters: tuple[Path, Path]
) -> None:
    first, second = (site.store.ledger.adapters.register(directory) for directory in tiny_adapters)
    worker = site.start_ready(LORACLE_DEVICE="cpu")
    by_stub = site.enqueue(reviews(10), publish=True)
    site.wait(by_stub)

    def score_with(adapter_id: int) -> set[str]:
        """Activates the adapter and has a new job scored, by whatever adapter new jobs then get."""
        site.store.ledger.adapters.activate(adapter_id)
        pinned, _ = default_adapter(site.store, site.settings)
        job_id = site.enqueue(reviews(20), publish=True, adapter_id=pinned)
        # The next activation doesn't reach a job that is there.
        site.store.ledger.adapters.activate(None)
        site.wait(job_id)
        found = site.labels(job_id)
        assert len(found) == 20
        return set(found.values())

    assert score_with(first) <= {"no", "yes"}
    assert score_with(second) <= {"bad", "good"}
    assert score_with(first) <= {"no", "yes"}
    assert score_with(second) <= {"bad", "good"}
    # Both stayed in memory.
    assert site.said.count("loaded adapter 'first'") == site.said.count("loaded adapter 'second'") == 1
    assert stop(worker) == 0


def test_only_so_many_adapters_stay_and_a_broken_one_stops_its_own_job_alone(
    site: Site, tiny_adapters: tuple[Path, Path]
) -> None:
    first, second = (site.store.ledger.adapters.register(directory) for directory in tiny_adapters)
    broken = site.store.ledger.adapters.register(BUNDLED)
    with site.store.ledger.jobs.engine.begin() as connection:
        connection.execute(update(Adapter).where(Adapter.id == broken).values(archive=b"no tar" * 200))
    worker = site.start_ready(LORACLE_DEVICE="cpu", LORACLE_LOADED_ADAPTERS="1")
    stopped = site.enqueue(reviews(10), publish=True, adapter_id=broken)
    for adapter_id in (first, second, first):
        site.wait(site.enqueue(reviews(10), publish=True, adapter_id=adapter_id))
    assert site.said.count("loaded adapter 'first'") == 2
    assert f"Adapter {second} makes room" in site.said
    job = site.store.queries.jobs.get(stopped)
    assert job.state == "stopped"
    assert "the archive of adapter 'minilm-imdb' can't be read" in str(job.error)
    assert stop(worker) == 0
