"""The model's batches: published, claimed, given back, swept; and what an adapter worker finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from tests.contract.model_state import Batch, Bulk, Key, Lane, State, is_audited

T = TypeVar("T")

Got = tuple[int, str, list[Key]]
"""A claimed batch: its number, its token, and what is to be scored or asked."""


class Batches(State):
    """What both lanes have in common, and the adapter's."""

    def choose(self, lane: Lane, window: int, chosen: Sequence[int]) -> None:
        """The first ones in order, as many as the window has room for; among equals any."""
        out = sum(
            one.state == "queued"
            and one.lane == lane
            and one.published_at is not None
            and (lane == "openai" or self.jobs[one.job].active)
            for one in self.batches.values()
        )
        may = [number for number in self.waiting(lane) if self.batches[number].published_at is None]
        order = sorted(self._turn(number) for number in may)
        assert [self._turn(number) for number in chosen] == order[: max(0, window - out)]
        assert set(chosen) <= set(may)
        assert len(set(chosen)) == len(chosen)
        for number in chosen:
            self.batches[number].published_at = self.now

    def publish_again(self, batch_ids: Sequence[int]) -> None:
        for number in batch_ids:
            if self.batches[number].state == "queued":
                self.batches[number].published_at = None

    def claim(self, batch_id: int, task: str, got: Got | None) -> None:
        one = self.batches.get(batch_id)
        if one is None or batch_id not in self.waiting(one.lane):
            assert got is None
        else:
            self._claim(batch_id, task, got)

    def claim_next(self, lane: Lane, named: int, task: str, got: Got | None) -> None:
        """A batch of the highest priority: the named one if it is of it, else the first in order."""
        while waiting := self.waiting(lane):
            highest = min(self.batches[number].rank for number in waiting)
            if named in waiting and self.batches[named].rank == highest:
                allowed = [named]
            else:
                first = min(self._turn(number) for number in waiting)
                allowed = [number for number in waiting if self._turn(number) == first]
            number = got[0] if got is not None and got[0] in allowed else allowed[0]
            if self._claim(number, task, got):
                return
        assert got is None

    def claim_unpublished(self, lane: Lane, task: str, got: Got | None) -> None:
        """The first of the highest priority that has no message."""
        while waiting := self.waiting(lane):
            highest = min(self.batches[number].rank for number in waiting)
            free = [
                number
                for number in waiting
                if self.batches[number].rank == highest and self.batches[number].published_at is None
            ]
            if not free:
                break
            if self._claim(min(free), task, got, by_message=False):
                return
        assert got is None

    def renew(self, batch_id: int, token: str) -> None:
        self.hold(batch_id, token).lease_until = self.now + self.lease_s

    def release(self, batch_id: int, token: str, error: str | None, *, delay_s: float, counts: bool) -> None:
        self.hold(batch_id, token)
        if counts:
            self.give_back(batch_id, error or "", delay_s)
        else:
            self.put_back(batch_id, delay_s)

    def child_died(self, task: str) -> None:
        for one in self.batches.values():
            if one.state == "running" and one.task == task:
                one.lease_until = 0.0

    def finish(self, batch_id: int, token: str, found: Mapping[int, tuple[str, float] | None]) -> None:
        """A label and its score by row, or None where the adapter failed."""
        one = self.hold(batch_id, token)
        one.state = "done"
        one.leave_holder()
        job = self.jobs[one.job]
        for row_no, said in sorted(found.items()):
            if said is None:
                self._adapter_failed(one.job, row_no, "too odd")
                continue
            label, score = said
            row = job.rows[row_no]
            row.labels.setdefault("adapter", label)
            if job.kind == "oracle" or job.oracle is None:
                continue
            if row.foreign:
                self.ask(one.job, row_no, "language")
            elif job.kind == "cascade" and score < job.below:
                self.ask(one.job, row_no, "cascade")
            elif is_audited(one.job, row_no, job.audit):
                self.ask(one.job, row_no, "audit")

    def hand_over(self, batch_id: int, token: str, allowed: bool, done: bool | None) -> None:
        """`allowed`: the job's policy has an oracle to label its reviews."""
        if not allowed:
            assert done is False
            return
        self.hold(batch_id, token)
        self._hand_over(batch_id)

    def hand_over_waiting(self, after_s: float, room: int, handed: Mapping[int, int] | None) -> None:
        """Batches of fallback jobs, when no adapter worker has shown itself for so long."""
        lane = [one for one in self.batches.values() if one.lane == "adapter"]
        expected: dict[int, int] = {}
        if not any(
            (one.claimed_at is not None and one.claimed_at > self.now - after_s)
            or (one.state == "running" and (one.lease_until or 0.0) > self.now)
            for one in lane
        ):
            expected = {job_id: self._hand_over_of(job_id, after_s, room) for job_id in sorted(self.jobs)}
        assert handed == {job_id: count for job_id, count in expected.items() if count}

    def sweep(self, lane: Lane, *, queue_empty: bool) -> None:
        """Expired leases go back, what waited for money or a Bulk is queued, lost messages are sent again."""
        ready = [job_id for job_id in self.jobs if self.is_ready(job_id)]
        self.fail_stopped()
        for number, one in sorted(self.batches.items()):
            if one.lane != lane:
                continue
            if one.state == "running" and (one.lease_until or 0.0) < self.now:
                self.give_back(number, "died", 0.0)
        unheard_s = min(5.0, self.unheard_s) if queue_empty else self.unheard_s
        for one in self.batches.values():
            if one.lane != lane:
                continue
            if one.state in ("parked", "submitted") and (one.not_before or 0.0) <= self.now:
                one.state, one.not_before = "queued", None
            if (
                one.state == "queued"
                and one.published_at is not None
                and one.published_at < self.now - unheard_s
            ):
                one.published_at = None
        # Whether a job that this sweep itself has made ready is done by it or by the next one is left to the ledger.
        for job_id in self.jobs:
            if job_id in ready or (self.is_ready(job_id) and self.seen.jobs[job_id][0] != "running"):
                self.complete(job_id)

    def give_back(self, batch_id: int, error: str, delay_s: float) -> None:
        """Queued again while it has attempts left, then halved; what stands alone gets the error."""
        one = self.batches[batch_id]
        one.leave_holder()
        one.published_at = None
        if one.lane == "adapter" and self.jobs[one.job].state == "cancelled":
            one.state = "cancelled"
            return
        if one.attempts < self.max_attempts or (one.bulk is not None and one.bulk.is_out):
            one.state = "queued"
            one.not_before = self.now + delay_s if delay_s > 0 else None
            return
        if one.lane == "adapter":
            rows = self.in_adapter_batch(one)
            one.state = "split" if len(rows) > 1 else "failed"
            if len(rows) > 1:
                for half in _halves(rows):
                    self._queue(one.job, half, one.number, self._attempts(len(half)))
            else:
                self._adapter_failed(one.job, rows[0], error)
            return
        asked = self.leaders(batch_id)
        one.state = "split" if len(asked) > 1 else "failed" if asked else "done"
        self.close_unsent(batch_id)
        if len(asked) > 1:
            self.split_prompt(batch_id, asked, few_attempts=True)
        else:
            self.give_up(batch_id, asked, "failed", error)

    def put_back(self, batch_id: int, delay_s: float) -> None:
        """As if nobody had claimed it."""
        one = self.batches[batch_id]
        one.leave_holder()
        cancelled = one.lane == "adapter" and self.jobs[one.job].state == "cancelled"
        one.state = "cancelled" if cancelled else "queued"
        one.attempts -= 1
        one.published_at = one.claimed_at = None
        one.not_before = self.now + delay_s if delay_s > 0 else None

    def split_prompt(self, batch_id: int, asked: Sequence[Key], *, few_attempts: bool) -> None:
        """Two batches, each with half of the requests and those that follow them."""
        whole = self.batches[batch_id]
        packed = self.packed(batch_id)
        for half in filter(None, _halves(asked)):
            number = self.add_batch(
                self.new_prompt(half, whole.scorer, self._attempts(len(half)) if few_attempts else 0)
            )
            if whole.bulk is not None:
                self.batches[number].bulk = Bulk()
            texts = {self.row(key).text for key in half}
            for key in packed:
                if self.row(key).text in texts:
                    self.request(key).batch = number

    def new_prompt(self, asked: Sequence[Key], scorer: int | None, attempts: int) -> Batch:
        first = self.jobs[asked[0][0]]
        return Batch(
            asked[0][0], "openai", -first.priority, 0, 0, 0, len(asked), self.now, scorer, attempts=attempts
        )

    def close_unsent(self, batch_id: int) -> None:
        """The end of a Bulk that was never submitted."""
        bulk = self.batches[batch_id].bulk
        if bulk is not None and bulk.state == "packed":
            bulk.state = "failed"
            self.settle_unsent(batch_id)

    def settle_unsent(self, batch_id: int) -> None:
        self.settle({n: 0 for n, one in self.reservations.items() if one.batch == batch_id})

    def settle(self, charges: Mapping[int, int]) -> None:
        """What each call took; what is settled already stays as it is."""
        for number, cost in charges.items():
            one = self.reservations.get(number)
            if one is not None and one.cost is None:
                one.cost = cost
                self.jobs[one.job].spent += cost - one.reserved

    def give_up(self, batch_id: int, asked: Sequence[Key], state: str, detail: str) -> None:
        """These end without a label, and those for the same texts with them."""
        texts = [self.row(key).text for key in asked]
        same = self.of_same_text(self.batches[batch_id].scorer, batch_id, texts)
        self.resolve([*asked, *same], state, detail)

    def resolve(self, keys: Sequence[Key], state: str, detail: str) -> None:
        for key in keys:
            row, one = self.row(key), self.request(key)
            one.state = state
            if one.reason in ("policy", "fallback"):
                row.error = detail

    def fail_stopped(self) -> None:
        """Jobs that don't ask any more: what was still to be asked ends with the reason."""
        for key, row in self.reviews():
            why = self.jobs[key[0]].oracle_error
            if why is not None and row.request is not None and row.request.state == "open":
                self.resolve([key], "failed", f"not asked: {why}")

    def is_ready(self, job_id: int) -> bool:
        """Whether nothing of a job that runs is open."""
        job = self.jobs[job_id]
        batches = any(
            one.job == job_id and one.lane == "adapter" and one.state in ("queued", "running")
            for one in self.batches.values()
        )
        asked = any(row.request and row.request.state in ("open", "packed") for row in job.rows.values())
        return job.state == "running" and not batches and not asked

    def complete(self, job_id: int) -> None:
        if job_id in self.jobs and self.is_ready(job_id):
            job = self.jobs[job_id]
            job.state = "done" if job.oracle_error is None else "stopped"

    def queue_rows(self, job_id: int, parts: Sequence[Sequence[int]]) -> None:
        """New batches of a job, numbered on."""
        last = max((one.number for one in self.batches.values() if one.job == job_id), default=0)
        for number, part in enumerate(parts, last + 1):
            self._queue(job_id, part, number, 0)

    def close(self, batch_id: int, state: str) -> None:
        """A Prompt or Bulk is over; what it didn't answer is open again."""
        for key in self.packed(batch_id):
            one = self.request(key)
            one.state, one.batch, one.follows = "open", None, False
        self.batches[batch_id].state = state
        self.batches[batch_id].leave_holder()

    def leave(self, batch_id: int) -> None:
        """What belongs to jobs that are over leaves the batch; who followed it is asked instead."""
        for key in self.packed(batch_id):
            if not self.jobs[key[0]].asks:
                one = self.request(key)
                one.state, one.batch, one.follows = "open", None, False
        asked = {self.row(key).text for key in self.leaders(batch_id)}
        for key in self.packed(batch_id):
            if self.row(key).text not in asked:
                asked.add(self.row(key).text)
                self.request(key).follows = False

    def _claim(self, batch_id: int, task: str, got: Got | None, *, by_message: bool = True) -> bool:
        """Whether it was of use: a Prompt of which nothing is left is over."""
        one = self.batches[batch_id]
        token = got[1] if got is not None and got[0] == batch_id else "of nobody"
        one.state, one.token, one.task = "running", token, task
        one.attempts += 1
        one.lease_until, one.claimed_at, one.not_before = self.now + self.lease_s, self.now, None
        if one.published_at is None and by_message:
            self._give_message_back(one.lane)
        if one.lane == "adapter":
            job = self.jobs[one.job]
            content = [
                (one.job, no)
                for no in self.in_adapter_batch(one)
                if job.kind != "oracle" or is_audited(one.job, no, job.audit)
            ]
        else:
            if any(not self.jobs[key[0]].asks for key in self.leaders(batch_id)) and not (
                one.bulk is not None and one.bulk.is_out
            ):
                self.leave(batch_id)
                self.fail_stopped()
            content = self.leaders(batch_id)
            if not content:
                self.close_unsent(batch_id)
                self.close(batch_id, "done")
                return False
        assert got is not None, f"batch {batch_id} was to be had"
        assert got[0] == batch_id
        assert got[2] == content
        return True

    def _give_message_back(self, lane: Lane) -> None:
        """A message was used for a batch that had none: the youngest one that another counts on doesn't come."""
        counting = {
            number: one.published_at
            for number, one in self.batches.items()
            if one.lane == lane and one.state == "queued" and one.published_at is not None
        }
        if counting:
            youngest = [number for number, at in counting.items() if at == max(counting.values())]
            chosen = [number for number in youngest if self.seen.messages.get(number) is None] or youngest
            self.batches[chosen[0]].published_at = None

    def _hand_over_of(self, job_id: int, after_s: float, room: int) -> int:
        job = self.jobs[job_id]
        queued = sorted(
            (one.number, number)
            for number, one in self.batches.items()
            if one.job == job_id and one.lane == "adapter" and one.state == "queued"
        )
        old = any(self.batches[number].created_at < self.now - after_s for _, number in queued)
        if not (job.asks and job.kind == "fallback" and old):
            return 0
        left = room - sum(
            row.request is not None and row.request.state in ("open", "packed") for row in job.rows.values()
        )
        handed = 0
        for _, number in queued:
            if left <= 0:
                break
            self._hand_over(number)
            left -= self.batches[number].size
            handed += 1
        return handed

    def _hand_over(self, batch_id: int) -> None:
        one = self.batches[batch_id]
        for row_no in self.in_adapter_batch(one):
            self.ask(one.job, row_no, "fallback")
        one.state = "done"
        one.leave_holder()
        one.published_at = one.claimed_at = None

    def _adapter_failed(self, job_id: int, row_no: int, error: str) -> None:
        job = self.jobs[job_id]
        if job.kind == "oracle":
            return
        if job.oracle is not None and job.kind in ("fallback", "cascade"):
            self.ask(job_id, row_no, "fallback")
        else:
            job.rows[row_no].error = error

    def _queue(self, job_id: int, rows: Sequence[int], number: int, attempts: int) -> None:
        rank = -self.jobs[job_id].priority
        self.add_batch(
            Batch(job_id, "adapter", rank, number, rows[0], rows[-1], len(rows), self.now, attempts=attempts)
        )

    def _attempts(self, size: int) -> int:
        return max(0, self.max_attempts - (1 if size > 1 else 2))

    def _turn(self, batch_id: int) -> tuple[int, ...]:
        one = self.batches[batch_id]
        if one.lane == "openai":
            return one.rank, batch_id
        return one.rank, one.number, one.job


def _halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    return items[: len(items) // 2], items[len(items) // 2 :]
