"""Rules about jobs: opened, filled, sealed, stopped, cancelled, tried again, corrected, deleted."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.contract.enqueued import in_batches
from tests.contract.machine import Machine
from tests.contract.model import Job, Row
from worker.policy import Policy, PolicyKind
from worker.reviews import Correction, JobSpec, Money, Review, ScorerIdentity

MOST_JOBS = 4
BELOW = 0.7
ORACLES = [ScorerIdentity("openai", f"gpt-{n}", str(n) * 64, {"route": "chat"}) for n in (1, 2)]
TEXTS = st.lists(st.integers(0, 5), min_size=1, max_size=6)
"""Few different ones: jobs share them."""
FOREIGN = 5
KINDS_DRAWN: tuple[PolicyKind, ...] = ("oracle", "cascade", "cascade", "fallback", "fallback", "adapter")
INTERFERENCES = (
    "seal", "seal", "retry", "retry", "retry with more money", "cancel", "stop", "stop the oracle", "correct",
    "delete", "delete",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A job to be enqueued: `texts` are those of its first chunk."""

    kind: PolicyKind
    audit: float
    texts: list[int]
    priority: int
    batch_size: int
    cap: int | None
    oracle: int
    sealed: bool


PLANS = st.builds(
    Plan,
    kind=st.sampled_from(KINDS_DRAWN),
    audit=st.sampled_from([0.0, 0.5]),
    texts=TEXTS,
    priority=st.sampled_from([0, 0, 5]),
    batch_size=st.integers(1, 4),
    cap=st.sampled_from([None, None, 30, 60]),
    oracle=st.sampled_from([0, 0, 0, 1]),
    sealed=st.booleans(),
)


class JobRules(Machine):
    """What people do with jobs."""

    @initialize(window=st.integers(1, 3), limit=st.sampled_from([None, None, 150]), plan=PLANS)
    def begin(self, window: int, limit: int | None, plan: Plan) -> None:
        self.window, self.limit = window, limit
        self.enqueue(plan)

    @rule(data=st.data(), plan=PLANS, skewed=st.sampled_from([0, 0, 0, 1]))
    def enqueue_more(self, data: st.DataObject, plan: Plan, skewed: int) -> None:
        """A job is read on, or another one opened. `skewed`: another enqueue has read on meanwhile."""
        reading = self.reading()
        if len(self.model.jobs) < MOST_JOBS and (not reading or data.draw(st.booleans(), label="new")):
            self.enqueue(plan)
        elif reading:
            job_id = data.draw(st.sampled_from(reading), label="job")
            self.append(job_id, plan.texts, skewed)
            if plan.sealed:
                self.seal_job(job_id)

    @rule(data=st.data(), what=st.sampled_from(INTERFERENCES))
    def somebody_interferes(self, data: st.DataObject, what: str) -> None:
        job_id = data.draw(
            st.sampled_from([*sorted(self.model.jobs), *sorted(self.model.deleted)]), label="job"
        )
        job = self.model.jobs.get(job_id)
        if what == "seal":
            self.seal_job(job_id)
        elif what == "cancel":
            self.cancel_job(job_id)
        elif what == "stop the oracle":
            self.stop_asking([job_id], "no key")
        elif what == "stop":
            self.step(lambda: self.ledger.jobs.stop(job_id, "bad adapter"), lambda _: self.model.stop(job_id))
        elif what == "correct":
            row_no = data.draw(st.integers(1, 4), label="row")
            self.step(
                lambda: self.ledger.corrections.save(job_id, [Correction(row_no, "pos")]),
                lambda replaced: self.model.correct(job_id, {row_no: "pos"}, replaced),
            )
        elif what == "delete":
            self.delete(data, job_id)
        else:
            more = None if what == "retry" else 20
            self.retry_job(job_id, None if job is None or more is None else job.spent + more)

    def delete(self, data: st.DataObject, job_id: int) -> None:
        """Cancelled before, as a rule it must be; broken off after some of its transactions."""
        if data.draw(st.booleans(), label="cancelled before"):
            self.cancel_job(job_id)
        parts = data.draw(st.sampled_from([3, 3, 2, 1, 0]), label="parts")
        self.delete_job(job_id, texts_only=data.draw(st.booleans(), label="texts only"), parts=parts)

    def enqueue(self, plan: Plan) -> None:
        below = BELOW if plan.kind == "cascade" else None
        policy = Policy(plan.kind, below, plan.audit)
        oracle_id = self.ledger.scorers.register(ORACLES[plan.oracle]) if policy.names_oracle else None
        spec = JobSpec(
            identity=f"job {next(self.numbers)}",
            name="reviews.csv",
            source="/data/reviews.csv",
            adapter_id=self.adapter_id,
            policy=str(policy),
            priority=plan.priority,
            batch_size=plan.batch_size,
            oracle_id=oracle_id,
            max_cost=None if plan.cap is None else Money(plan.cap),
        )
        job = Job(plan.kind, BELOW, plan.audit, oracle_id, plan.priority, plan.batch_size, plan.cap)
        job_id = self.step(
            lambda: self.ledger.jobs.open(spec)[0].id, lambda number: self.model.open(number, job)
        )
        assert job_id is not None
        self.append(job_id, plan.texts)
        if plan.sealed:
            self.seal_job(job_id)

    def reading(self) -> list[int]:
        return [job_id for job_id, job in sorted(self.model.jobs.items()) if job.state == "reading"]

    def append(self, job_id: int, texts: list[int], skewed: int = 0) -> None:
        read = self.model.jobs[job_id].read
        rows = {
            row_no: Row(f"text {text}", foreign=text == FOREIGN)
            for row_no, text in enumerate(texts, read + 1)
        }
        chunk = [Review(no, row.text, language="de" if row.foreign else None) for no, row in rows.items()]
        batches = in_batches(chunk, self.model.jobs[job_id].batch_size)
        self.step(
            lambda: self.ledger.jobs.append(job_id, chunk, batches=batches, after=read - skewed),
            lambda _: self.model.append(job_id, rows, read - skewed),
        )

    def seal_job(self, job_id: int) -> None:
        self.step(lambda: self.ledger.jobs.seal(job_id), lambda _: self.model.seal(job_id))

    def cancel_job(self, job_id: int) -> None:
        self.step(lambda: self.ledger.jobs.cancel(job_id), lambda _: self.model.cancel(job_id))

    def complete_job(self, job_id: int) -> None:
        self.step(lambda: self.ledger.jobs.complete(job_id), lambda _: self.model.complete(job_id))

    def retry_job(self, job_id: int, cap: int | None = None) -> None:
        self.step(
            lambda: self.ledger.jobs.retry(job_id, max_cost=None if cap is None else Money(cap)),
            lambda count: self.model.retry(job_id, cap, count),
        )

    def stop_asking(self, job_ids: list[int], reason: str) -> None:
        self.step(
            lambda: self.ledger.jobs.stop_oracle(job_ids, reason),
            lambda _: self.model.stop_oracle(job_ids, reason),
        )

    def delete_job(self, job_id: int, *, texts_only: bool, parts: int = 3) -> None:
        deletion = self.ledger.deletion
        begun = self.step(
            lambda: deletion.begin(job_id, texts_only=texts_only),
            lambda _: self.model.begin_deletion(job_id, texts_only=texts_only),
        )
        if begun is None:
            return
        if texts_only:
            if parts > 0:
                self.step(lambda: deletion.empty_texts(job_id, 0), lambda _: self.model.empty_texts(job_id))
        else:
            if parts > 0:
                self.step(lambda: deletion.delete_rows(job_id), lambda _: self.model.delete_rows(job_id))
            if parts > 1:
                self.step(lambda: deletion.delete_calls(job_id), lambda _: self.model.delete_calls(job_id))
        if parts > 2:
            self.step(
                lambda: deletion.end(job_id, texts_only=texts_only),
                lambda _: self.model.end_deletion(job_id, texts_only=texts_only),
            )
