"""The story of a batch that goes wrong: whose fault it is decides what becomes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine

from tests.contract.enqueued import batch_states, enqueue, sql
from worker.errors import AdapterInvalid, BaseNotFound, DeviceBroken, HostUnfit, LoracleError
from worker.jobs import scoring as pipeline
from worker.reviews import Lane, Outcome, Review, ScorerIdentity
from worker.scorers.stub import StubScorer
from worker.store.engine import make_engine
from worker.store.faults import OPENS_AT
from worker.store.ledger import Ledger

HERE = "here CPU (pid 1)"


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    made = make_engine(sqlite_url)
    yield made
    made.dispose()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(monotonic=time.monotonic, sleep=found.append))
    return found


class Breaking:
    """A scorer whose device breaks at every review."""

    identity: ScorerIdentity = StubScorer().identity

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        raise DeviceBroken("CUDA error: misaligned address")


class Host:
    """A worker with the messages that it could take."""

    def __init__(
        self, engine: Engine, load: Callable[[int], object], *, max_attempts: int = 3, window: int = 100
    ) -> None:
        self.ledger = Ledger(engine, max_attempts=max_attempts)
        self.load = load
        self.loads = 0
        self.window = window
        self.messages: list[int] = []
        self.published: list[int] = []
        pipeline.publish_waiting(self.ledger, self.publish, "adapter", window=window)

    def publish(self, lane: Lane, batch_ids: Sequence[int]) -> None:
        self.messages += batch_ids
        self.published.append(len(batch_ids))

    def has(self, adapter_id: int) -> bool:
        return False

    def __call__(self, adapter_id: int) -> object:
        self.loads += 1
        return self.load(adapter_id)

    def take(self, name: str = HERE) -> int:
        """Takes the oldest message."""
        return pipeline.score_batch(
            self.messages.pop(0),
            ledger=self.ledger,
            scorers=self,  # type: ignore[arg-type]
            publish=self.publish,
            window=self.window,
            retry_delay_s=0.0,
            worker=name,
        )


def raising(error: LoracleError) -> Callable[[int], object]:
    def load(adapter_id: int) -> object:
        raise error

    return load


def sound(adapter_id: int) -> object:
    return StubScorer()


def test_an_unfit_host_loads_once_and_hands_every_message_on(
    engine: Engine, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    job = enqueue(Ledger(engine), 80)
    host = Host(engine, raising(BaseNotFound("no base model: set LORACLE_BASE_MODEL")))
    for _ in range(50):
        host.take()
        assert len(host.messages) == 20
    assert host.loads == 1
    # It holds each message that it can't use for a while: it neither spins nor takes them from others.
    assert pauses == [pipeline.HAND_ON_PAUSE_S] * 49
    assert batch_states(engine, job.id) == ["queued"] * 20
    assert sql(engine, "SELECT DISTINCT attempts, claimed_at FROM batches") == [(0, None)]
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "set LORACLE_BASE_MODEL" in warnings[0]

    host.load = sound
    for _ in range(20):
        assert host.take("elsewhere") == 4
    assert batch_states(engine, job.id) == ["done"] * 20


def test_the_window_is_filled_when_half_of_it_is_empty_and_the_last_batch_ends_the_job(
    engine: Engine,
) -> None:
    job = enqueue(Ledger(engine), 40)
    host = Host(engine, sound, window=4)
    states = []
    while host.messages:
        assert host.take() == 4
        states += [state for (state,) in sql(engine, "SELECT state FROM jobs WHERE id = :id", id=job.id)]
    assert host.published == [4, 2, 2, 2]
    assert states == ["running"] * 9 + ["done"]


def test_a_window_of_one_never_dries_up(engine: Engine) -> None:
    enqueue(Ledger(engine), 12)
    host = Host(engine, sound, window=1)
    while host.messages:
        host.take()
    assert host.published == [1, 1, 1]


def test_a_worker_that_cant_load_one_adapter_works_for_the_others(
    engine: Engine, pauses: list[float]
) -> None:
    ledger = Ledger(engine)
    first = enqueue(ledger, 8)
    other = ledger.adapters._insert("other", "1" * 64, {}, None)
    second = enqueue(ledger, 8)
    sql(engine, "UPDATE jobs SET adapter_id = :adapter WHERE id = :job", adapter=other, job=second.id)

    def load(adapter_id: int) -> object:
        if adapter_id == other:
            return StubScorer()
        raise HostUnfit("no")

    host = Host(engine, load)
    scored = [host.take() for _ in range(5)]
    assert sum(scored) == 8
    assert batch_states(engine, second.id) == ["done", "done"]
    assert batch_states(engine, first.id) == ["queued", "queued"]


def test_a_device_that_stays_broken_is_left_alone_after_three_breaks(
    engine: Engine, pauses: list[float]
) -> None:
    job = enqueue(Ledger(engine), 40)
    host = Host(engine, lambda adapter_id: Breaking())
    for _ in range(OPENS_AT):
        with pytest.raises(DeviceBroken):
            host.take()
        pipeline.publish_waiting(host.ledger, host.publish, "adapter", window=100)
    for _ in range(20):
        assert host.take() == 0
    assert host.loads == OPENS_AT
    assert len(host.messages) == 10
    assert sql(engine, "SELECT DISTINCT state, attempts FROM batches") == [("queued", 0)]
    host.load = sound
    while host.messages:
        host.take("elsewhere")
    assert batch_states(engine, job.id) == ["done"] * 10


def test_a_device_that_breaks_while_an_adapter_is_loaded_is_no_reviews_fault(engine: Engine) -> None:
    enqueue(Ledger(engine), 4)
    with pytest.raises(DeviceBroken):
        Host(engine, raising(DeviceBroken("CUDA error"))).take()
    assert sql(engine, "SELECT batch_ids, times FROM worker_faults") == [("[]", 1)]
    host = Host(engine, lambda adapter_id: Breaking())
    with pytest.raises(DeviceBroken):
        host.take()
    assert sql(engine, "SELECT batch_ids, times FROM worker_faults") == [("[1]", 2)]


def test_an_invalid_adapter_stops_its_job_and_halves_nothing(engine: Engine) -> None:
    job = enqueue(Ledger(engine), 4)
    host = Host(engine, raising(AdapterInvalid("a file was changed")), max_attempts=1)
    host.take()
    assert batch_states(engine, job.id) == ["queued"]
    assert sql(engine, "SELECT state, error FROM jobs") == [("stopped", "a file was changed")]
    # Whoever mends it finds the batch as it was.
    host.ledger.jobs.retry(job.id)
    host.load = sound
    pipeline.publish_waiting(host.ledger, host.publish, "adapter", window=100)
    assert host.take() == 4
