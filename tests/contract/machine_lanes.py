"""Rules about batches of both lanes: published, delivered, claimed, given back, swept, lost; and about time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.contract.enqueued import STUB
from tests.contract.machine import LANES, LEASE_S, UNHEARD_S, Worker
from tests.contract.machine_jobs import JobRules
from tests.contract.model_batches import Got
from tests.contract.model_state import Key, Lane
from worker.reviews import Batch, Failure, Outcome, Prompt, Score

AFTER_S = 45.0
"""Without an adapter worker for so long fallback jobs go to the oracle."""
TIMES = (1.0, 6.0, LEASE_S + 1, LEASE_S + 1, UNHEARD_S + 1)
ENDS = ("release", "release uncounted", "renew", "die", "hand over")
NO_MESSAGE = 0
"""Stands for the message of who took a Prompt without one."""
LANE = st.sampled_from(LANES)


class LaneRules(JobRules):
    """What the broker, the sweeper and the adapter's workers do."""

    @rule(
        seconds=st.sampled_from(TIMES),
        swept=st.sampled_from([LANES, LANES, ("adapter",), ("openai",), ()]),
        queue_empty=st.booleans(),
    )
    def time_passes(self, seconds: float, swept: tuple[Lane, ...], queue_empty: bool) -> None:
        self.clock.move(seconds)
        for lane in swept:
            self.sweep_lane(lane, queue_empty=queue_empty)

    @rule(
        data=st.data(),
        lane=LANE,
        what=st.sampled_from(["deliver", "deliver", "deliver", "publish", "away", "lose"]),
    )
    def the_broker_acts(self, data: st.DataObject, lane: Lane, what: str) -> None:
        """Messages are published, heard by nobody, delivered, delivered twice, lost."""
        if what == "lose":
            self.queues[lane].clear()
        elif what == "deliver" and (self.queues[lane] or self.publish_waiting(lane)):
            batch_id = data.draw(st.sampled_from(self.queues[lane]), label="message")
            if not data.draw(st.sampled_from([False, False, True]), label="again later"):
                self.queues[lane].remove(batch_id)
            self.claim(lane, batch_id, whatever_waits=data.draw(st.booleans(), label="whatever waits"))
        elif what != "deliver" and (chosen := self.publish_waiting(lane)) and what == "away":
            del self.queues[lane][-len(chosen) :]
            self.step(
                lambda: self.ledger.publishing.publish_again(chosen),
                lambda _: self.model.publish_again(chosen),
            )

    @precondition(lambda self: self.model.waiting("openai"))
    @rule()
    def a_worker_of_the_openai_lane_goes_on(self) -> None:
        """It takes what has no message."""

        def expect(held: Prompt | None) -> None:
            self.model.claim_unpublished("openai", f"task {NO_MESSAGE}", _got(held))

        self.hold(
            "openai",
            NO_MESSAGE,
            self.step(lambda: self.ledger.prompts.claim_unpublished(task_id=f"task {NO_MESSAGE}"), expect),
        )

    @precondition(lambda self: self.model.waiting("adapter"))
    @rule(data=st.data(), end=st.sampled_from(["finish"] * 4 + ["release", "hold"]))
    def adapter_works(self, data: st.DataObject, end: str) -> None:
        """A message comes to a worker, who works on what it is used for."""
        worker = self.take("adapter")
        if worker is not None and end != "hold":
            self.adapter_goes_on(data, worker, end)
            self.complete_job(worker.batch.job_id)

    @precondition(lambda self: any(one.lane == "adapter" for one in self.workers))
    @rule(data=st.data(), what=st.sampled_from(["finish", "finish", *ENDS]))
    def adapter_worker_goes_on(self, data: st.DataObject, what: str) -> None:
        """Or wakes up too late: another one has its batch, or it is over, and nothing may come of it."""
        workers = [one for one in self.workers if one.lane == "adapter"]
        self.adapter_goes_on(data, data.draw(st.sampled_from(workers), label="worker"), what)

    @precondition(lambda self: any(job.kind == "fallback" and job.active for job in self.model.jobs.values()))
    @rule(room=st.integers(1, 6))
    def no_adapter_worker_comes(self, room: int) -> None:
        self.step(
            lambda: self.ledger.batches.hand_over_waiting(after_s=AFTER_S, room=room),
            lambda handed: self.model.hand_over_waiting(AFTER_S, room, handed),
        )

    def adapter_goes_on(self, data: st.DataObject, worker: Worker, what: str) -> None:
        if what == "finish":
            failing = data.draw(st.sampled_from(["none", "none", "first", "all"]), label="failing")
            self.finish_batch(worker, _outcomes(worker.batch, failing))
        elif what == "hand over":
            allowed = worker.batch.oracle_id is not None and not worker.batch.policy.startswith("adapter")
            self.step(
                lambda: self.ledger.batches.hand_over(worker.batch, "no adapter"),
                lambda done: self.model.hand_over(*worker.lease, allowed, done),
            )
        else:
            self.hold_on_or_let_go(data, worker, what)

    def hold_on_or_let_go(self, data: st.DataObject, worker: Worker, what: str) -> None:
        if what == "renew":
            self.renew_lease(worker)
        elif what == "die":
            task = f"task {worker.message}"
            self.step(lambda: self.ledger.batches.expire_lease(task), lambda _: self.model.child_died(task))
            self.sweep_lane(worker.lane, queue_empty=False)
        else:
            delay_s = data.draw(st.sampled_from([0.0, 5.0]), label="delay")
            self.give_back(worker, counts=what == "release", delay_s=delay_s)

    def take(self, lane: Lane) -> Worker | None:
        """The next message's, whatever waits."""
        if not self.queues[lane]:
            self.publish_waiting(lane)
        if not self.queues[lane]:
            return None
        return self.claim(lane, self.queues[lane].pop(0), whatever_waits=True)

    def publish_waiting(self, lane: Lane) -> list[int]:
        chosen = self.step(
            lambda: self.ledger.publishing.choose(lane, window=self.window),
            lambda found: self.model.choose(lane, self.window, found or []),
        )
        self.queues[lane] += chosen or []
        return chosen or []

    def claim(self, lane: Lane, batch_id: int, *, whatever_waits: bool) -> Worker | None:
        leases = self.ledger.batches if lane == "adapter" else self.ledger.prompts
        task = f"task {batch_id}"
        act = leases.claim_next if whatever_waits else leases.claim

        def expect(held: Batch | Prompt | None) -> None:
            if whatever_waits:
                self.model.claim_next(lane, batch_id, task, _got(held))
            else:
                self.model.claim(batch_id, task, _got(held))

        return self.hold(lane, batch_id, self.step(lambda: act(batch_id, task_id=task), expect))

    def hold(self, lane: Lane, message: int, held: Batch | Prompt | None) -> Worker | None:
        if held is None:
            return None
        self.forget_some()
        in_bulk = self.model.batches[held.id].bulk is not None
        self.workers.append(Worker(lane, held, message, in_bulk))
        return self.workers[-1]

    def sweep_lane(self, lane: Lane, *, queue_empty: bool) -> None:
        self.step(
            lambda: self.ledger.publishing.sweep(lane, queue_empty=queue_empty),
            lambda _: self.model.sweep(lane, queue_empty=queue_empty),
        )

    def renew_lease(self, worker: Worker) -> None:
        def act() -> None:
            if worker.lane == "adapter":
                self.ledger.batches.renew(worker.batch)
            else:
                self.ledger.prompts.renew(worker.prompt)

        self.step(act, lambda _: self.model.renew(*worker.lease))

    def give_back(self, worker: Worker, *, counts: bool, delay_s: float) -> None:
        error = "server away"

        def act() -> None:
            if worker.lane == "adapter":
                self.ledger.batches.release(worker.batch, error, counts=counts, delay_s=delay_s)
            else:
                self.ledger.prompts.release(worker.prompt, error, counts=counts, delay_s=delay_s)

        self.step(act, lambda _: self.model.release(*worker.lease, error, counts=counts, delay_s=delay_s))

    def finish_batch(self, worker: Worker, outcomes: Sequence[Outcome]) -> None:
        found = {
            review.row_no: (one.label, one.score or 0.0) if isinstance(one, Score) else None
            for review, one in zip(worker.batch.reviews, outcomes, strict=True)
        }
        self.step(
            lambda: self.ledger.batches.finish(worker.batch, STUB, outcomes, timings={}),
            lambda _: self.model.finish(*worker.lease, found),
        )


def _outcomes(batch: Batch, failing: str) -> list[Outcome]:
    """Every second label is one that a cascade isn't sure of."""
    return [
        Failure("too odd")
        if failing == "all" or (failing == "first" and place == 0)
        else Score("pos" if review.row_no % 3 else "neg", 0.6 if review.row_no % 2 else 0.9)
        for place, review in enumerate(batch.reviews)
    ]


def _got(held: Batch | Prompt | None) -> Got | None:
    if held is None:
        return None
    if isinstance(held, Batch):
        content: list[Key] = [(held.job_id, review.row_no) for review in held.reviews]
    else:
        content = [(request.job_id, request.row_no) for request in held.requests]
    return held.id, held.lease_token, content
