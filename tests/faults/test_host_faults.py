"""One host or device that is at fault: it must not cost the job a single review."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.enqueued import batch_states, sql
from tests.integration.site import Site, kill_all, reviews, site_at
from tests.integration.test_oracle_lane import status
from tests.unit import oracles
from worker.model.manifest import BUNDLED
from worker.pool.valkey import EmbeddedValkey, socket_url
from worker.scorers.stub import BREAK
from worker.store.faults import OPENS_AT

HANDFUL = 5
"""Three in a row open the breaker; two more children may be at work just then."""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Site]:
    """SQLite and a Valkey that several workers of this host share."""
    with (
        EmbeddedValkey(tmp_path / "broker"),
        site_at(tmp_path, REDIS_URL=socket_url(tmp_path / "broker")) as site,
    ):
        yield site


def rows(site: Site, statement: str, **values: object) -> list[tuple[Any, ...]]:
    return sql(site.store.ledger.jobs.engine, statement, **values)


def deaths(site: Site) -> int:
    return site.said.count("This child ends, a new one takes over")


def fallback_job(site: Site, texts: list[str], adapter_id: int) -> int:
    """A job whose batches would go to an oracle if the adapter couldn't do them."""
    oracle = oracles.spec().identity
    job_id = site.enqueue(texts, adapter_id=adapter_id)
    rows(
        site,
        "UPDATE jobs SET policy = 'fallback', oracle_id = :oracle WHERE id = :job",
        oracle=site.store.ledger.scorers.register(oracle),
        job=job_id,
    )
    site.publish()
    return job_id


def test_a_host_without_the_base_model_leaves_the_job_to_one_that_has_it(shared: Site) -> None:
    site = shared
    adapter_id = site.store.ledger.adapters.register(BUNDLED)
    site.start(LORACLE_BASE_MODEL="/nowhere", LORACLE_WORKER_NAME="bare", HF_HUB_OFFLINE="1")
    job_id = fallback_job(site, reviews(60), adapter_id)
    site.until(lambda: "can't load adapter" in site.said)
    site.until(lambda: "no worker can load it: bare CPU" in str(status(site, job_id)["waiting_for"]))
    assert "base model '/nowhere'" in status(site, job_id)["waiting_for"]

    whole = site.start(LORACLE_WORKER_NAME="whole")
    site.wait(job_id)
    assert len(site.labels(job_id)) == 60
    assert rows(site, "SELECT count(*) FROM requests") == [(0,)]
    assert rows(site, "SELECT DISTINCT state, attempts FROM batches") == [("done", 1)]
    # One load, however many messages came its way.
    assert rows(site, "SELECT times FROM worker_faults") == [(1,)]
    assert site.said.count("can't load adapter") == 1

    # Jobs of other adapters it still does.
    kill_all(whole.pid)
    other = site.enqueue(reviews(20, 100), publish=True)
    site.wait(other)
    site.assert_each_label_once(other)


def test_a_device_that_stays_broken_costs_a_handful_of_children_and_no_review(shared: Site) -> None:
    site = shared
    broken = site.home / "broken"
    broken.touch()
    site.start("--children", "2", LORACLE_STUB_DEVICE=str(broken), LORACLE_WORKER_NAME="ill")
    job_id = site.enqueue(reviews(100), publish=True)
    site.until(lambda: rows(site, "SELECT probes FROM worker_faults WHERE probes > 0"))
    site.until(lambda: "its device is broken" in str(status(site, job_id)["waiting_for"]))
    assert OPENS_AT <= deaths(site) <= HANDFUL
    assert rows(site, "SELECT DISTINCT state, attempts, claimed_at FROM batches") == [("queued", 0, None)]
    assert "takes no batch until a probe" in site.said

    site.start(LORACLE_WORKER_NAME="sound")
    site.wait(job_id)
    site.assert_each_label_once(job_id)
    assert deaths(site) <= HANDFUL
    assert set(batch_states(site.store.ledger.jobs.engine, job_id)) == {"done"}
    # The other one still stands by.
    assert [fault.worker[:7] for fault in site.store.queries.faults.all()] == ["ill CPU"]


def test_a_host_whose_children_die_while_they_load_costs_a_handful_of_them_and_no_review(
    site: Site,
) -> None:
    # As where the memory doesn't suffice.
    job_id = site.enqueue(reviews(30))
    site.start(LORACLE_STUB_UNFIT="SIGKILL")
    site.until(lambda: rows(site, "SELECT probes FROM worker_faults WHERE probes > 0"))
    waiting = str(status(site, job_id)["waiting_for"])
    assert "its device is broken (the probe of the device died (signal 9))" in waiting
    assert site.said.count("A child died") <= HANDFUL
    assert rows(site, "SELECT DISTINCT state, attempts FROM batches") == [("queued", 0)]


def test_a_mended_device_is_noticed_by_a_probe_and_finishes_its_job(site: Site) -> None:
    broken = site.home / "broken"
    broken.touch()
    job_id = site.enqueue(reviews(30), batch_size=30)
    site.start(LORACLE_STUB_DEVICE=str(broken))
    site.until(lambda: rows(site, "SELECT probes FROM worker_faults WHERE probes > 0"))
    broken.unlink()
    # It would probe again in half a minute.
    rows(site, "UPDATE worker_faults SET until = 0")
    site.wait(job_id)
    site.assert_each_label_once(job_id)
    # The device failed at a text of our own too: that is no review's fault, and nothing was halved.
    assert batch_states(site.store.ledger.jobs.engine, job_id) == ["done"]
    site.until(lambda: "The device works again" in site.said)
    assert deaths(site) == OPENS_AT


def test_a_review_that_breaks_the_device_is_isolated_and_all_others_labelled(site: Site) -> None:
    texts = reviews(12)
    texts[6] = f"review {BREAK}"
    job_id = site.enqueue(texts, batch_size=4)
    site.start(LORACLE_STUB_POISON="1", LORACLE_MAX_ATTEMPTS="1")
    site.wait(job_id)
    site.assert_each_label_once(job_id, without=frozenset({7}))
    failed = list(site.store.queries.results.iterate(job_id, failed=True))
    assert [(row["row_no"], row["error"]) for row in failed] == [(7, "the stub's device broke at a text")]
    assert rows(site, "SELECT * FROM worker_faults") == []
    assert BREAK not in site.said
