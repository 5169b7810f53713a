"""A job whose adapter is trained on the oracle's answers first: on both databases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from tests.contract.asking import ORACLE
from tests.contract.enqueued import STUB, spec, sql
from tests.contract.test_ledger_guarantee import answer_all, differs, step
from worker.agreement.columns import NONE
from worker.errors import Invalid, JobStateInvalid
from worker.jobs import distillation
from worker.policy import Policy
from worker.quality.guarantee import certify, refutations
from worker.reviews import Outcome, Review, Score, ScorerIdentity
from worker.store.distillations import Distilled
from worker.store.ledger import Ledger
from worker.store.queries import Queries

COUNT = 300


class LateRowsUnsure:
    """Scores the reviews of `opened`, the later a row the less sure."""

    identity = ScorerIdentity("adapter", "tests", {})

    def score(self, reviews: list[Review]) -> list[Outcome]:
        return [Score("pos", 1 - one.row_no / (2 * COUNT)) for one in reviews]


def opened(ledger: Ledger, *, answers: int = 60, held_out: int = 30, count: int = COUNT) -> Distilled:
    """A job whose file is read, and nothing more."""
    made = replace(
        spec(ledger, batch_size=64),
        policy="cascade --guarantee 0.9 --delta 0.05 --audit-seed 4",
        oracle_id=ledger.scorers.register(ORACLE),
        identity=f"distilled {answers} {held_out} {count}",
    )
    job, _ = ledger.jobs.open(made)
    at = ledger.distillations.open(job.id, rounds=2, answers=answers, held_out=held_out, seed=7)
    reviews = [Review(row_no, f"review {row_no} {'x' * row_no}") for row_no in range(1, count + 1)]
    ledger.jobs.append(job.id, reviews, batches=None)
    return at


def at_now(queries: Queries, job_id: int) -> Distilled:
    found = queries.distillations.of(job_id)
    assert found is not None
    return found


def test_reviews_wait_for_an_adapter_that_isnt_there_yet(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    at = opened(ledger)
    job_id = at.job_id
    assert queries.jobs.progress(job_id).labelled == 0
    ledger.distillations.ask(at, distillation.first_rows(queries.raters(job_id), at))
    assert answer_all(ledger) == 60
    # All that was asked is answered, and the job is neither done nor published.
    assert not queries.distillations.has_open_requests(job_id)
    assert not ledger.jobs.complete(job_id)
    assert ledger.publishing.choose("adapter", window=8) == []
    assert queries.jobs.progress(job_id).labelled == 60
    assert sql(engine, f"SELECT labelled FROM job_summary WHERE job_id = {job_id}") == [(60,)]


def test_from_a_file_without_labels_to_a_certificate(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    at = opened(ledger)
    job_id = at.job_id
    first = distillation.first_rows(queries.raters(job_id), at)
    assert [reason for _, reason in first].count("held_out") == 30
    ledger.distillations.ask(at, first)
    # Whoever comes second with what it knew before changes nothing.
    ledger.distillations.ask(at, [(1, "training"), (2, "training"), (3, "training")])
    answer_all(ledger)
    at = at_now(queries, job_id)
    assert (at.stage, at.round) == ("asking", 1)
    ledger.distillations.move(at, "training")
    at = at_now(queries, job_id)
    unsure = distillation.unsure_rows(queries.raters(job_id), at, LateRowsUnsure(), queries.distillations)
    # Half of the answers are left for them, and they are the least sure ones of a pool of four times as many.
    assert len(unsure) == 30
    assert np.mean([row for row, _ in unsure]) > COUNT * 0.7
    ledger.distillations.ask(at, unsure)
    assert answer_all(ledger) == 30
    ledger.distillations.move(at_now(queries, job_id), "training")
    ledger.distillations.move(at_now(queries, job_id), "measuring")
    learnt = queries.distillations.answered(job_id, "training")
    assert len(learnt) == 60
    assert all((one.label == "neg") == differs(one.row_no) for one in learnt)
    at = at_now(queries, job_id)
    job = queries.jobs.get(job_id)
    ledger.distillations.label(at, adapter_id=job.adapter_id, figures={"chosen": "trained"})
    ledger.distillations.label(at, adapter_id=job.adapter_id, figures={"chosen": "again"})
    # The progress went back to 0 %.
    assert queries.jobs.progress(job_id).labelled == 90
    assert at_now(queries, job_id).figures == {"chosen": "trained"}
    for batch_id in ledger.publishing.choose("adapter", window=8):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        ledger.batches.finish(batch, STUB, LateRowsUnsure().score(list(batch.reviews)), timings={})
    ledger.jobs.complete(job_id)
    for _ in range(2):
        step(ledger, queries)
        answer_all(ledger)
    assert queries.jobs.state(job_id) == "done"
    step(ledger, queries)
    raters, policy = queries.raters(job_id), Policy.parse(job.policy)
    drawn = queries.guarantees.of(job_id)
    assert drawn is not None
    # What the oracle knew beforehand isn't ranked, and its label stays; the promise is for all reviews.
    assert (drawn.terms.reviews, drawn.terms.ranked) == (COUNT, COUNT - 90)
    known = raters.asked_for("training") | raters.asked_for("held_out")
    assert np.array_equal(raters.final[known], raters.oracle[known])
    # Agreement on what it has learnt by heart would flatter the adapter.
    assert (raters.adapter[raters.asked_for("training")] == NONE).all()
    assert (raters.adapter[raters.asked_for("held_out")] != NONE).all()
    found = certify(raters, policy, job_id, drawn)
    assert found is not None
    assert found.holds
    assert refutations(raters, policy, job_id, drawn) == []
    wrong = sum(
        differs(int(row)) for row, oracle in zip(raters.row_no, raters.oracle, strict=True) if oracle == NONE
    )
    assert wrong <= found.left == 30
    paid = sql(engine, f"SELECT count(*) FROM labels WHERE job_id = {job_id} AND rater = 'oracle'")
    assert paid == [(found.asked,)]


def test_training_reviews_are_of_all_lengths_and_never_held_out(ledger: Ledger, queries: Queries) -> None:
    at = opened(ledger)
    raters = queries.raters(at.job_id)
    rows = distillation.first_rows(raters, at)
    assert len({row for row, _ in rows}) == len(rows)
    learnt = sorted(row for row, reason in rows if reason == "training")
    # One of each of thirty equal parts by length, which here is the row number.
    others = sorted({*range(1, COUNT + 1)} - {row for row, reason in rows if reason == "held_out"})
    parts = [set(part.tolist()) for part in np.array_split(np.array(others), 30)]
    assert [len(part & {*learnt}) for part in parts] == [1] * 30
    same = distillation.first_rows(raters, at)
    assert same == rows


def test_a_text_that_is_held_out_is_never_trained_on(ledger: Ledger, queries: Queries) -> None:
    at = opened(ledger)
    ledger.distillations.ask(at, [(1, "training"), (2, "training"), (3, "held_out")])
    answer_all(ledger)
    answered = queries.distillations.answered
    learnt, held_out = answered(at.job_id, "training"), answered(at.job_id, "held_out")
    twin = replace(learnt[1], text_sha256=held_out[0].text_sha256)
    assert distillation.without([learnt[0], twin], held_out) == [learnt[0]]


def test_a_job_that_is_over_goes_on_only_after_retry(ledger: Ledger, queries: Queries) -> None:
    at = opened(ledger)
    ledger.jobs.cancel(at.job_id)
    rows = distillation.first_rows(queries.raters(at.job_id), at)
    with pytest.raises(JobStateInvalid, match="is cancelled: `loracle retry"):
        ledger.distillations.ask(at, rows)
    ledger.jobs.retry(at.job_id)
    ledger.distillations.ask(at, rows)
    assert answer_all(ledger) == 60


def test_a_file_that_leaves_nothing_for_the_adapter_is_refused(ledger: Ledger, queries: Queries) -> None:
    at = opened(ledger, answers=270)
    with pytest.raises(Invalid, match="none is left for the adapter"):
        distillation.first_rows(queries.raters(at.job_id), at)
    # The same command with fewer goes on.
    fewer = ledger.distillations.open(at.job_id, rounds=1, answers=40, held_out=20, seed=7)
    rows = distillation.first_rows(queries.raters(at.job_id), fewer)
    assert len(rows) == 60
    ledger.distillations.ask(fewer, rows)
    assert ledger.distillations.open(at.job_id, rounds=2, answers=9, held_out=9, seed=9).answers == 40


def test_a_label_that_the_oracle_hardly_gave_cant_be_learnt(ledger: Ledger, queries: Queries) -> None:
    at = opened(ledger)
    ledger.distillations.ask(at, [(row, "training") for row in (1, 2, 3)])
    answer_all(ledger)
    answers = queries.distillations.answered(at.job_id, "training")
    with pytest.raises(Invalid, match=r"too few are neg \(3 pos, 0 neg\).*more --answers"):
        distillation.check_labels(answers, ["pos", "neg"], at)
