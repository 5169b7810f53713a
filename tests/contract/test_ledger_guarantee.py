"""The guarantee of a job, from its last score to its certificate: on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from tests.contract.asking import ORACLE, claim_all, pack, pay, usd
from tests.contract.enqueued import STUB, spec, sql
from worker.agreement import guarantee
from worker.agreement.columns import NONE
from worker.policy import Policy
from worker.quality.guarantee import certify, refutations, sentences
from worker.quality.measured import measure_due, summarise
from worker.report.data import read_report
from worker.report.text import headlines
from worker.reviews import Answer, Failure, Money, Review, Score
from worker.store.agreements import MEASURE_ATTEMPTS
from worker.store.ledger import Ledger
from worker.store.queries import Queries

COUNT = 300


def differs(row_no: int) -> bool:
    """Whether the oracle has another label than the adapter: more often where the adapter is less sure."""
    return row_no % 2 == 0 if row_no > 200 else row_no % 29 == 0


def score_all(
    ledger: Ledger, policy: str, *, count: int = COUNT, max_cost: Money | None = None, foreign: int = 0
) -> int:
    """A sealed job that the adapter is through with: the later a row, the less sure."""
    made = replace(
        spec(ledger, batch_size=count),
        policy=policy,
        oracle_id=ledger.scorers.register(ORACLE),
        max_cost=max_cost,
        identity=f"{policy} {count} {max_cost} {foreign}",
    )
    job, _ = ledger.jobs.open(made)
    reviews = [
        Review(row_no, f"review {row_no}", language="de" if row_no <= foreign else None)
        for row_no in range(1, count + 1)
    ]
    ledger.jobs.append(job.id, reviews, batches=[reviews])
    ledger.jobs.seal(job.id)
    for batch_id in ledger.publishing.choose("adapter", window=8):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        found = [Score("pos", 1 - one.row_no / (2 * count)) for one in batch.reviews]
        ledger.batches.finish(batch, STUB, found, timings={})
    ledger.jobs.complete(job.id)
    return job.id


def answer_all(ledger: Ledger, *, silent: Callable[[int], bool] = lambda row_no: False) -> int:
    """The oracle answers all that it is asked; how much that is."""
    pack(ledger)
    asked = 0
    for prompt in claim_all(ledger):
        found = {
            at: Answer(
                Failure("too odd", "refused")
                if silent(request.row_no)
                else Score("neg" if differs(request.row_no) else "pos", 0.9),
                "gpt-1", "req-1", 12, usd(0.001),
            )
            for at, request in enumerate(prompt.requests)
        }  # fmt: skip
        ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
        asked += len(found)
        for job_id in prompt.job_ids:
            ledger.jobs.complete(job_id)
    return asked


def step(ledger: Ledger, queries: Queries) -> None:
    measure_due("token", ledger=ledger, queries=queries)


def state(queries: Queries, job_id: int) -> str:
    return queries.jobs.state(job_id)


def test_a_job_ends_with_a_certificate_that_its_labels_bear_out(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    def far() -> tuple[int, int]:
        at = queries.jobs.progress(job_id)
        assert sum(at.sources.values()) == at.labelled - at.undecided
        return at.labelled, at.undecided

    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4")
    assert state(queries, job_id) == "running"
    assert far() == (COUNT, 0)
    assert queries.guarantees.of(job_id) is None
    # No label is final before the cut is chosen.
    assert queries.jobs.decided_until(job_id) == 0
    assert not ledger.jobs.complete(job_id)
    step(ledger, queries)
    drawn = queries.guarantees.of(job_id)
    assert drawn is not None
    assert (drawn.terms.reviews, drawn.terms.sample, drawn.cut) == (COUNT, 68, None)
    # The progress went back to 77 %.
    assert far() == (COUNT, 68)
    assert answer_all(ledger) == 68
    assert far() == (COUNT, 0)
    assert state(queries, job_id) == "running"
    step(ledger, queries)
    drawn = queries.guarantees.of(job_id)
    assert drawn is not None
    assert drawn.cut is not None
    behind = answer_all(ledger)
    assert 0 < behind < COUNT - 68
    assert state(queries, job_id) == "done"
    step(ledger, queries)
    raters = queries.raters(job_id)
    policy = Policy.parse(queries.jobs.get(job_id).policy)
    kept = queries.guarantees.of(job_id)
    assert kept is not None
    found = certify(raters, policy, job_id, kept)
    assert found is not None
    assert found.to_json() == kept.certificate
    assert found.holds
    assert found.certified == pytest.approx(1 - 30 / COUNT)
    assert found.asked == 68 + behind
    assert found.trusted == COUNT - found.asked
    # The promise itself, which only this test can look at: the true disagreements that are left.
    wrong = sum(
        differs(int(row)) for row, oracle in zip(raters.row_no, raters.oracle, strict=True) if oracle == NONE
    )
    assert wrong <= found.left == 30
    # Audited reviews keep the oracle's label.
    audited = raters.asked_for("guarantee")
    assert np.array_equal(raters.final[audited], raters.oracle[audited])
    assert refutations(raters, policy, job_id, kept) == []
    assert sql(engine, "SELECT target, sample, found, trusted, asked, holds FROM certificates") == [
        (0.9, 68, found.found, found.trusted, found.asked, 1)
    ]
    sources = sql(engine, f"SELECT source, count(*) FROM results WHERE job_id = {job_id} GROUP BY source")
    assert (
        dict(sources)
        == {"adapter": found.trusted, "oracle": found.asked}
        == queries.jobs.progress(job_id).sources
    )
    agreements = {
        (one.raters, one.selection): one.n for one in queries.agreements.of(job_id) if one.slice == "all"
    }
    assert agreements == {(("adapter", "oracle"), "audit"): 68}


def test_what_was_tampered_with_is_refuted(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4")
    step(ledger, queries)
    answer_all(ledger)
    step(ledger, queries)
    answer_all(ledger)
    policy = Policy.parse(queries.jobs.get(job_id).policy)
    changes = {
        "in the order in which they were ranked": "UPDATE labels SET score = 0.99 "
        "WHERE rater = 'adapter' AND row_no = 290",
        "aren't those that the seed draws": "UPDATE requests SET reason = 'cascade' WHERE row_no = "
        "(SELECT min(row_no) FROM requests WHERE reason = 'guarantee')",
        "more disagreements are allowed": "UPDATE guarantees SET allowed = allowed + 1",
        "more audited disagreements are tolerated": "UPDATE guarantees SET tolerated = tolerated + 1",
        "the cut lies behind": "UPDATE guarantees SET cut = cut + 60",
        "wasn't asked about some": "UPDATE guarantees SET cut = 0",
    }  # fmt: skip
    before = sql(engine, "SELECT allowed, tolerated, cut FROM guarantees")[0]
    labels = sql(engine, "SELECT score FROM labels WHERE rater = 'adapter' AND row_no = 290")[0][0]
    first = sql(engine, "SELECT min(row_no) FROM requests WHERE reason = 'guarantee'")[0][0]
    for said, change in changes.items():
        sql(engine, change)
        kept = queries.guarantees.of(job_id)
        assert kept is not None
        against = refutations(queries.raters(job_id), policy, job_id, kept)
        assert any(said in one for one in against), (said, against)
        sql(
            engine, f"UPDATE guarantees SET allowed = {before[0]}, tolerated = {before[1]}, cut = {before[2]}"
        )
        sql(engine, f"UPDATE labels SET score = {labels} WHERE rater = 'adapter' AND row_no = 290")
        sql(engine, f"UPDATE requests SET reason = 'guarantee' WHERE row_no = {first}")


def test_each_step_is_made_once_by_whoever_holds_the_token(ledger: Ledger, queries: Queries) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4")
    assert ledger.agreements.claim("dead") == job_id
    # Somebody else began meanwhile: what the first one works out comes to nothing.
    ledger.agreements.release("dead")
    assert ledger.agreements.claim("alive") == job_id
    terms = guarantee.terms(COUNT, COUNT, target=0.9, delta=0.05)
    assert not ledger.guarantees.draw(job_id, terms, "", [1], token="dead")
    assert ledger.guarantees.draw(job_id, terms, "", [1], token="alive")
    assert not ledger.guarantees.draw(job_id, terms, "", [2], token="alive")
    assert answer_all(ledger) == 1
    assert ledger.agreements.claim("third") == job_id
    assert ledger.guarantees.cut(job_id, 299, "target", [300], token="third")
    assert not ledger.guarantees.cut(job_id, 0, "target", [5], token="third")
    assert answer_all(ledger) == 1
    assert state(queries, job_id) == "done"


def test_unanswered_reviews_count_as_disagreements_until_the_oracle_answers(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4")
    step(ledger, queries)
    answer_all(ledger, silent=lambda row_no: row_no % 20 == 0)
    step(ledger, queries)
    answer_all(ledger, silent=lambda row_no: row_no % 20 == 0)
    assert state(queries, job_id) == "done"
    step(ledger, queries)
    first = queries.guarantees.of(job_id)
    assert first is not None
    assert first.certificate is not None
    assert first.certificate["unconfirmed"] > 0
    assert first.certificate["left"] == 30 + first.certificate["unconfirmed"]
    assert not first.certificate["holds"]
    ledger.jobs.retry(job_id)
    assert answer_all(ledger) == first.certificate["unconfirmed"]
    step(ledger, queries)
    second = queries.guarantees.of(job_id)
    assert second is not None
    assert second.certificate is not None
    assert (second.cut, second.certificate["unconfirmed"], second.certificate["holds"]) == (
        first.cut,
        0,
        True,
    )


def test_reviews_in_other_languages_are_the_oracles_and_never_ranked(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4", foreign=40)
    assert state(queries, job_id) == "running"
    assert answer_all(ledger, silent=lambda row_no: row_no <= 3) == 40
    step(ledger, queries)
    drawn = queries.guarantees.of(job_id)
    assert drawn is not None
    assert (drawn.terms.reviews, drawn.terms.ranked, drawn.terms.allowed) == (COUNT, COUNT - 40, 30 - 3)
    raters = queries.raters(job_id)
    assert not (raters.asked_for("guarantee") & (raters.row_no <= 40)).any()


def test_a_budget_of_labels_is_kept_and_what_it_reaches_is_certified(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.99 --delta 0.05 --label-budget 100 --audit-seed 4")
    step(ledger, queries)
    answer_all(ledger)
    step(ledger, queries)
    answer_all(ledger)
    assert state(queries, job_id) == "done"
    step(ledger, queries)
    kept = queries.guarantees.of(job_id)
    assert kept is not None
    assert kept.certificate is not None
    assert (kept.claim, kept.certificate["holds"]) == ("budget", False)
    assert 90 <= kept.certificate["asked"] <= 100
    assert 0 < kept.certificate["certified"] < 0.99
    raters = queries.raters(job_id)
    wrong = sum(
        differs(int(row)) for row, oracle in zip(raters.row_no, raters.oracle, strict=True) if oracle == NONE
    )
    assert wrong <= kept.certificate["left"]


def test_a_job_whose_audit_alone_exceeds_the_label_budget_is_stopped_before_anything_is_asked(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --label-budget 50 --audit-seed 4")
    step(ledger, queries)
    job = queries.jobs.get(job_id)
    assert job.state == "stopped"
    assert job.error is not None
    assert "takes 68 labels" in job.error
    assert answer_all(ledger) == 0
    # It is over, and so it was measured at once.
    assert job.measured_at is not None
    # Whoever reads what it came to learns that nothing is promised.
    said = "nothing is certified: the job ended before its guarantee of 90.00% was worked out"
    assert summarise(queries, job_id).guarantee == said
    first = headlines(read_report(queries, job_id))[0]
    assert (first.title, first.sentence) == ("Certified", f"N{said[1:]}.")


def test_a_budget_that_cant_bear_what_is_behind_the_cut_stops_the_job_first_and_more_goes_on(
    ledger: Ledger, queries: Queries
) -> None:
    # The audit costs 68 times $0.001.
    job_id = score_all(ledger, "cascade --guarantee 0.95 --delta 0.05 --audit-seed 4", max_cost=usd(0.075))
    step(ledger, queries)
    answer_all(ledger)
    step(ledger, queries)
    job = queries.jobs.get(job_id)
    assert job.state == "stopped"
    assert job.error is not None
    assert "more labels of the oracle" in job.error
    assert "--max-cost" in job.error
    assert answer_all(ledger) == 0
    ledger.jobs.retry(job_id, max_cost=usd(1))
    ledger.jobs.complete(job_id)
    step(ledger, queries)
    assert answer_all(ledger) > 0
    assert state(queries, job_id) == "done"


def test_who_measures_a_job_that_is_still_scored_takes_no_step_and_gives_up_nothing(
    ledger: Ledger, queries: Queries
) -> None:
    made = replace(
        spec(ledger, batch_size=4),
        policy="cascade --guarantee 0.9 --delta 0.05 --audit-seed 4",
        oracle_id=ledger.scorers.register(ORACLE),
    )
    job, _ = ledger.jobs.open(made)
    reviews = [Review(row_no, f"review {row_no}") for row_no in range(1, 9)]
    ledger.jobs.append(job.id, reviews, batches=[reviews[:4], reviews[4:]])
    ledger.jobs.seal(job.id)
    # `loracle agreement JOB --now`, which was killed.
    ledger.agreements.release(ledger.agreements.begin(job.id))
    step(ledger, queries)
    assert queries.guarantees.of(job.id) is None
    assert not ledger.guarantees.draw(
        job.id, guarantee.terms(8, 8, target=0.9, delta=0.05), "", [1], token=ledger.agreements.begin(job.id)
    )
    ledger.guarantees.give_up(job.id, "no")
    assert state(queries, job.id) == "running"


def test_a_job_of_which_the_oracle_decides_everything_anyway_is_certified_as_a_whole(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4", foreign=COUNT)
    assert answer_all(ledger) == COUNT
    for _ in range(2):
        step(ledger, queries)
        ledger.publishing.sweep("openai", queue_empty=True)
    assert state(queries, job_id) == "done"
    step(ledger, queries)
    kept = queries.guarantees.of(job_id)
    assert kept is not None
    assert kept.certificate is not None
    assert (kept.terms.ranked, kept.certificate["left"], kept.certificate["certified"]) == (0, 0, 1.0)


def test_what_people_read_is_rounded_to_no_more_than_is_promised() -> None:
    found = {
        "target": 0.95, "delta": 0.001, "reviews": 20_001, "sample": 900, "tolerated": 3, "found": 4,
        "trusted": 9, "asked": 7, "unconfirmed": 2, "unlabelled": 0, "left": 1, "claim": "target",
        "certified": 0.949998, "holds": False,
    }  # fmt: skip
    first, *others = sentences(found)
    assert first == (
        "With a chance of 99.9%, at least 94.99% of 20,001 labels are the oracle's: the target of 95.00% is not "
        "reached."
    )
    assert any("2 have no answer" in one for one in others)
    assert not any("without a label" in one for one in others)


def test_a_step_that_nobody_comes_to_an_end_with_stops_the_job(
    ledger: Ledger, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = score_all(ledger, "cascade --guarantee 0.9 --delta 0.05 --audit-seed 4")

    def broken(job_id: int) -> None:
        raise ValueError("broken")

    monkeypatch.setattr("worker.quality.measured.RETRY_S", 0.0)
    monkeypatch.setattr(queries, "raters", broken)
    for _ in range(MEASURE_ATTEMPTS):
        step(ledger, queries)
    job = queries.jobs.get(job_id)
    assert job.state == "stopped"
    assert job.error is not None
    assert "couldn't be worked out in 3 attempts: ValueError" in job.error
    # It is over now, and measured as such.
    assert job.measured_at is not None
    monkeypatch.undo()
    ledger.jobs.retry(job_id)
    ledger.jobs.complete(job_id)
    step(ledger, queries)
    assert queries.guarantees.of(job_id) is not None
