"""Rules about the oracle's lane: packed, paid for, answered by Prompt or by Bulk, parked, and what comes too late."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.contract.asking import PRICE
from tests.contract.machine import Worker
from tests.contract.machine_lanes import LaneRules
from tests.contract.model_oracle import Rule, Said
from tests.contract.model_state import Key
from worker.errors import BudgetSpent
from worker.oracle.prices import Charge
from worker.reviews import Answer, Failure, Money, Score
from worker.store.packing import PackRule

SHARE = 10
"""Nano-dollars that are set aside for a review; its answer takes half."""
POLL_S = 30.0
SAYS = st.sampled_from(["pos", "pos", "neg", "nothing"])
RARELY = st.sampled_from([False, False, False, True])
ENDS = ("release", "release uncounted", "renew", "die", "park")


class OracleRules(LaneRules):
    """What the packer and the oracle's workers do."""

    @rule(
        size=st.integers(1, 3),
        waiting=st.sampled_from([1, 2, 1000]),
        after_s=st.sampled_from([0.0, 0.0, 30.0]),
        bulk=st.booleans(),
    )
    def pack(self, size: int, waiting: int, after_s: float, bulk: bool) -> None:
        self.pack_due(Rule(size, waiting, after_s, bulk))

    @precondition(lambda self: self.model.waiting("openai") or self.has_open_requests())
    @rule(data=st.data(), end=st.sampled_from(["ask"] * 5 + ["release", "hold"]), bulk=st.booleans())
    def oracle_works(self, data: st.DataObject, end: str, bulk: bool) -> None:
        """A message comes to a worker, who works on what it is used for."""
        if not self.model.waiting("openai"):
            self.pack_due(Rule(2, 1000, 0.0, bulk))
        worker = self.take("openai")
        if worker is not None and end != "hold":
            self.oracle_goes_on(data, worker, end)
            for job_id in worker.prompt.job_ids:
                self.complete_job(job_id)

    @precondition(lambda self: any(one.lane == "openai" for one in self.workers))
    @rule(data=st.data(), what=st.sampled_from(["ask", "ask", "ask", *ENDS]))
    def oracle_worker_goes_on(self, data: st.DataObject, what: str) -> None:
        """Or wakes up too late: another one has its batch, or it is over, and only what it paid counts."""
        workers = [one for one in self.workers if one.lane == "openai"]
        self.oracle_goes_on(data, data.draw(st.sampled_from(workers), label="worker"), what)

    def oracle_goes_on(self, data: st.DataObject, worker: Worker, what: str) -> None:
        if what == "park":
            delay_s = data.draw(st.sampled_from([1.0, 60.0]), label="delay")
            self.step(
                lambda: self.ledger.prompts.park(worker.prompt, "no quota", delay_s=delay_s),
                lambda _: self.model.park(*worker.lease, delay_s),
            )
        elif what != "ask":
            self.hold_on_or_let_go(data, worker, what)
        elif worker.in_bulk:
            self.advance(data, worker)
        else:
            most = data.draw(st.sampled_from([None, None, 1]), label="most")
            left = [at for at in range(len(worker.prompt.requests)) if at not in worker.answered][:most]
            paid = self.reserve(worker, left, self.limit)
            if paid and not data.draw(RARELY, label="dies"):
                self.save(worker, left, data.draw(SAYS, label="says"))

    def advance(self, data: st.DataObject, worker: Worker) -> None:
        """A Bulk goes a step further, as a worker may take it from where he believes it to be."""
        bulk = self.model.batches[worker.held.id].bulk if worker.held.id in self.model.batches else None
        if bulk is None or bulk.remote is not None:
            steps = ["collect", "collect", "collect", "wait", "submit again", "abandon"]
        elif bulk.creating_at is not None:
            steps = ["submit", "submit", "upload", "split"]
        else:
            steps = ["upload", "upload", "upload", "upload and die", "split", "abandon"]
        step = data.draw(st.sampled_from(steps), label="step")
        if step in ("upload", "upload and die"):
            # Of one that died nobody knows whether the submission was made.
            if self.upload(worker) and step == "upload":
                self.submit(worker)
        elif step == "submit":
            self.submit(worker)
        elif step == "collect":
            most = data.draw(st.sampled_from([None, None, 1, 0]), label="most")
            says, error = data.draw(SAYS), data.draw(st.sampled_from([None, None, "failed"]), label="error")
            self.collect(worker, range(len(worker.prompt.requests))[:most], says, error)
        else:
            self.bulk_step(worker, step)

    def has_open_requests(self) -> bool:
        asked = (row.request for key, row in self.model.reviews() if self.model.jobs[key[0]].asks)
        return any(one is not None and one.state == "open" for one in asked)

    def pack_due(self, rule: Rule) -> int:
        made = self.step(
            lambda: self.ledger.packing.pack(
                lambda _: PackRule(rule.size, rule.waiting, rule.after_s, rule.bulk)
            ),
            lambda made: self.model.pack(rule, made or 0),
        )
        return made or 0

    def reserve(self, worker: Worker, positions: list[int], limit: int | None) -> bool:
        """Whether the call may be made."""
        shares: dict[int, int] = {}
        for at in positions:
            job_id = worker.prompt.requests[at].job_id
            shares[job_id] = shares.get(job_id, 0) + SHARE
        batch_id = worker.held.id
        final: list[bool] = []

        def act() -> dict[int, int]:
            try:
                return self.ledger.budgets.reserve(
                    batch_id,
                    {job_id: Money(share) for job_id, share in shares.items()},
                    price=PRICE,
                    max_total=None if limit is None else Money(limit),
                )
            except BudgetSpent as error:
                final.append(error.final)
                raise

        taken = self.step(act, lambda got: self.model.reserve(batch_id, shares, limit, got))
        if final:
            assert final == [self.model.is_final(batch_id, shares, limit)]
        for job_id, number in (taken or {}).items():
            worker.unsettled[number] = shares[job_id]
        return taken is not None

    def save(self, worker: Worker, positions: list[int], says: str) -> None:
        prompt, charges = worker.prompt, self.charges(worker)
        done = len(worker.answered | set(positions)) == len(prompt.requests)
        said = self.said(worker, positions, says)
        self.step(
            lambda: self.ledger.prompts.save(
                prompt, _answers(positions, says), charges=_charges(charges), done=done
            ),
            lambda _: self.model.save(*worker.lease, said, charges, done=done),
        )
        worker.answered.update(positions)

    def upload(self, worker: Worker) -> bool:
        """Begun anew, paid for, and uploaded; whether it could be paid for."""
        self.bulk_step(worker, "begin")
        if self.refused or not self.reserve(worker, list(range(len(worker.prompt.requests))), self.limit):
            return False
        file = f"file {worker.held.id}"
        self.step(
            lambda: self.ledger.bulks.note_upload(worker.prompt, file),
            lambda _: self.model.note_upload(*worker.lease, file),
        )
        return True

    def submit(self, worker: Worker) -> None:
        remote = f"remote {worker.held.id} {self.clock.now}"
        self.step(
            lambda: self.ledger.bulks.note_submission(worker.prompt, remote, poll_after_s=POLL_S),
            lambda _: self.model.note_submission(*worker.lease, remote, POLL_S),
        )

    def collect(self, worker: Worker, positions: list[int] | range, says: str, error: str | None) -> None:
        prompt, bulks = worker.prompt, self.ledger.bulks
        owed = {
            number: one.reserved // 2
            for number, one in self.model.reservations.items()
            if one.batch == prompt.id and one.cost is None
        }
        assert set(self.ledger.budgets.outstanding(prompt.id).values()) == owed.keys()
        said = self.said(worker, list(positions), says)
        self.step(
            lambda: bulks.collect(prompt, _answers(positions, says), charges=_charges(owed), error=error),
            lambda again: self.model.collect(*worker.lease, said, owed, error=error, again=again),
        )

    def bulk_step(self, worker: Worker, step: str) -> None:
        bulks, prompt, model, lease = self.ledger.bulks, worker.prompt, self.model, worker.lease
        if step == "begin":
            self.step(lambda: bulks.begin(prompt), lambda _: model.begin(*lease))
        elif step == "wait":
            self.step(lambda: bulks.wait(prompt, poll_after_s=POLL_S), lambda _: model.wait(*lease, POLL_S))
        elif step == "submit again":
            self.step(
                lambda: bulks.submit_again(prompt, "later", delay_s=POLL_S),
                lambda _: model.submit_again(*lease, POLL_S),
            )
        elif step == "abandon":
            self.step(lambda: bulks.abandon(prompt, "no key"), lambda _: model.abandon(*lease))
        else:
            assert step == "split"
            self.step(lambda: bulks.split(prompt, "too large"), lambda _: model.split(*lease))

    def charges(self, worker: Worker) -> dict[int, int]:
        """What the worker's calls took, told once."""
        charges = {number: reserved // 2 for number, reserved in worker.unsettled.items()}
        worker.unsettled = {}
        return charges

    def said(self, worker: Worker, positions: list[int], says: str) -> list[tuple[Key, Said]]:
        said = Said(None, "refused") if says == "nothing" else Said(says)
        requests = [worker.prompt.requests[at] for at in sorted(positions)]
        return [((one.job_id, one.row_no), said) for one in requests]


def _answers(positions: list[int] | range, says: str) -> dict[int, Answer]:
    outcome = Failure("it wouldn't say", "refused") if says == "nothing" else Score(says, 0.9)
    return {at: Answer(outcome, "gpt-1", "req-1", 12, Money(SHARE // 2)) for at in positions}


def _charges(charges: Mapping[int, int]) -> dict[int, Charge]:
    return {number: Charge(Money(cost), 12) for number, cost in charges.items()}
