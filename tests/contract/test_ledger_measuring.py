"""Which jobs are still to be measured, and who measures them: on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.contract.enqueued import STUB, enqueue, outcomes, sql, work_off
from tests.unit.agreement_tables import pair_of
from worker.agreement.measure import Measurement
from worker.errors import DatabaseUnreachable, JobUnknown
from worker.logs import LINES
from worker.quality.measured import agreement_as_it_is, kept_agreement, measure_due, refresh_agreement
from worker.reviews import Correction
from worker.store.agreements import MEASURE_ATTEMPTS, AgreementQueries
from worker.store.ledger import Ledger
from worker.store.queries import Queries

FOUND = Measurement(
    raters=("gold", "final"), selection="all", slice="all", statistics=pair_of({("pos", "pos"): 3})
)


def done(ledger: Ledger, count: int = 4) -> int:
    """A job that has just become done."""
    job = enqueue(ledger, count)
    work_off(ledger)
    return job.id


def measured_at(queries: Queries, job_id: int) -> float | None:
    return queries.jobs.get(job_id).measured_at


def time_passes(engine: Engine) -> None:
    """Whoever measures has had all the time there is."""
    sql(engine, "UPDATE measurings SET due_at = due_at - 10000")


def test_a_job_that_is_done_is_measured_by_one_who_writes_it_down(ledger: Ledger, queries: Queries) -> None:
    running = enqueue(ledger, 4)
    assert ledger.agreements.claim("nobody") is None
    work_off(ledger)
    assert measured_at(queries, running.id) is None
    assert kept_agreement(queries, queries.jobs.get(running.id)) is None
    assert ledger.agreements.claim("first") == running.id
    assert ledger.agreements.claim("second") is None
    assert not ledger.agreements.save(running.id, [FOUND], token="second")
    assert ledger.agreements.save(running.id, [FOUND], token="first")
    assert ledger.agreements.claim("third") is None
    kept = kept_agreement(queries, queries.jobs.get(running.id))
    assert kept is not None
    assert kept.at == measured_at(queries, running.id)
    assert [row.n for row in kept.rows] == [3]
    # Only what can still be written is.
    assert not ledger.agreements.save(running.id, [], token="first")
    assert len(queries.agreements.of(running.id)) == 1


def test_jobs_that_wait_are_taken_the_oldest_first(ledger: Ledger) -> None:
    jobs = [done(ledger) for _ in range(3)]
    assert [ledger.agreements.claim("one") for _ in range(4)] == [*jobs, None]


def test_one_who_dies_while_measuring_is_followed_by_another_when_the_time_is_over(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job_id = done(ledger)
    assert ledger.agreements.claim("dead") == job_id
    assert not ledger.agreements.is_expired("dead")
    time_passes(engine)
    assert ledger.agreements.is_expired("dead")
    assert ledger.agreements.claim("next") == job_id
    # It was only frozen, and comes too late.
    assert not ledger.agreements.save(job_id, [FOUND], token="dead")
    assert measured_at(queries, job_id) is None
    assert ledger.agreements.save(job_id, [FOUND], token="next")
    assert measured_at(queries, job_id) is not None


def test_what_nobody_comes_to_an_end_with_is_given_up_until_somebody_asks(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job_id = done(ledger)
    for attempt in range(1, MEASURE_ATTEMPTS + 1):
        # Its worker stopped, or the database was away: that counts nothing.
        assert ledger.agreements.claim("stopped") == job_id
        assert ledger.agreements.release("stopped", counts=False) == [(job_id, attempt - 1)]
        assert ledger.agreements.claim("one") == job_id
        assert ledger.agreements.release("one") == [(job_id, attempt)]
    assert ledger.agreements.release("one") == []
    time_passes(engine)
    assert ledger.agreements.claim("one") is None
    assert agreement_as_it_is(queries, job_id).at is None
    refresh_agreement(job_id, ledger=ledger, queries=queries)
    assert measured_at(queries, job_id) is not None


def test_a_delay_keeps_others_from_trying_at_once(ledger: Ledger, engine: Engine) -> None:
    job_id = done(ledger)
    assert ledger.agreements.claim("one") == job_id
    ledger.agreements.release("one", delay_s=60.0)
    assert ledger.agreements.claim("one") is None
    time_passes(engine)
    assert ledger.agreements.claim("one") == job_id


def test_who_asks_for_it_overtakes_who_measures_and_twice_is_the_same_as_once(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = done(ledger)
    assert ledger.agreements.claim("worker") == job_id
    asked = ledger.agreements.begin(job_id)
    assert ledger.agreements.claim("another") is None
    assert not ledger.agreements.save(job_id, [], token="worker")
    assert ledger.agreements.save(job_id, [FOUND], token=asked)
    assert ledger.agreements.save(job_id, [FOUND], token=ledger.agreements.begin(job_id))
    assert len(queries.agreements.of(job_id)) == 1
    with pytest.raises(JobUnknown, match="there is no job 99"):
        ledger.agreements.begin(99)


def test_a_retried_job_is_measured_at_its_next_end_and_not_before(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 4)
    [batch_id] = ledger.publishing.choose("adapter", window=1)
    batch = ledger.batches.claim(batch_id)
    assert batch is not None
    ledger.batches.finish(batch, STUB, outcomes(batch, frozenset({2})), timings={})
    assert ledger.jobs.complete(job.id)
    refresh_agreement(job.id, ledger=ledger, queries=queries)
    late = ledger.agreements.begin(job.id)
    assert ledger.jobs.retry(job.id) == 1
    assert measured_at(queries, job.id) is None
    assert not ledger.agreements.save(job.id, [FOUND], token=late)
    assert ledger.agreements.claim("one") is None
    work_off(ledger)
    assert ledger.agreements.claim("one") == job.id


def test_corrections_make_a_job_due_again_if_it_is_over(ledger: Ledger, queries: Queries) -> None:
    job_id, running = done(ledger), enqueue(ledger, 4).id
    refresh_agreement(job_id, ledger=ledger, queries=queries)
    late = ledger.agreements.begin(job_id)
    for one in (job_id, running):
        ledger.corrections.save(one, [Correction(1, "pos", "ann", None)])
    # Of what was measured before the correction nothing is kept.
    assert not ledger.agreements.save(job_id, [], token=late)
    assert measured_at(queries, job_id) is None
    assert ledger.agreements.claim("one") == job_id
    assert ledger.agreements.claim("one") is None
    # Whoever imports them measures a running job too, but that isn't its end.
    assert ledger.agreements.save(running, [FOUND], token=ledger.agreements.begin(running))
    assert len(queries.agreements.of(running)) == 1
    assert measured_at(queries, running) is None
    assert ledger.agreements.claim("one") is None


def test_a_job_that_was_cancelled_is_measured_only_when_somebody_asks(
    ledger: Ledger, queries: Queries
) -> None:
    job = enqueue(ledger, 4)
    ledger.jobs.cancel(job.id)
    assert ledger.agreements.claim("one") is None
    refresh_agreement(job.id, ledger=ledger, queries=queries)
    assert measured_at(queries, job.id) is not None


def test_all_that_is_due_is_measured_and_a_failure_is_told_by_its_type_alone(
    ledger: Ledger,
    queries: Queries,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound = done(ledger), done(ledger)
    plain = AgreementQueries.is_comparable

    def sometimes(self: AgreementQueries, job_id: int) -> bool:
        if job_id == broken:
            raise ValueError("a secret review")
        return plain(self, job_id)

    monkeypatch.setattr(AgreementQueries, "is_comparable", sometimes)
    for _ in range(MEASURE_ATTEMPTS + 1):
        measure_due("one", ledger=ledger, queries=queries)
        time_passes(engine)
    assert measured_at(queries, sound) is not None
    assert measured_at(queries, broken) is None
    told = [record.message for record in caplog.records if not record.name.startswith(LINES.name)]
    assert told == [
        f"The agreement of job {broken} couldn't be measured: ValueError. It is tried again.",
        f"The agreement of job {broken} couldn't be measured: ValueError. It is tried again.",
        f"The agreement of job {broken} couldn't be measured in 3 attempts: ValueError. It is given up; "
        f"`loracle agreement {broken} --now` tries once more.",
    ]


def test_a_database_that_is_away_is_no_failure_of_the_job(
    ledger: Ledger, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = done(ledger)

    def away(self: AgreementQueries, job_id: int) -> bool:
        raise DatabaseUnreachable

    monkeypatch.setattr(AgreementQueries, "is_comparable", away)
    with pytest.raises(DatabaseUnreachable):
        measure_due("one", ledger=ledger, queries=queries)
    assert ledger.agreements.release("one", counts=False) == [(job_id, 0)]
