"""The ledger as it should be, in plain Python: nothing of the store is in here, and no SQL.

Every operation of the ledger has a method of the same meaning. It comes after the operation, given what that returned
(None where the ledger refused), and changes the model or raises Refused, if the ledger had to refuse. Where the
ledger is free to choose, the choice is checked and taken over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.contract.model_oracle import Oracle
from tests.contract.model_state import Batch, Job, Refused, Row


class Model(Oracle):
    """Jobs, from the first row to their deletion."""

    def open(self, job_id: int | None, job: Job) -> None:
        assert job_id is not None
        assert job_id not in self.jobs
        assert job_id not in self.deleted
        self.jobs[job_id] = job

    def append(self, job_id: int, rows: Mapping[int, Row], after: int) -> None:
        job = self.job(job_id)
        if job.state != "reading" or job.read != after:
            raise Refused("JobStateInvalid")
        job.read += len(rows)
        job.rows.update(rows)
        numbers = sorted(rows)
        if job.kind == "oracle":
            for row_no in numbers:
                self.ask(job_id, row_no, "policy")
        if job.kind != "oracle" or job.audit > 0:
            size = job.batch_size
            self.queue_rows(job_id, [numbers[at : at + size] for at in range(0, len(numbers), size)])

    def seal(self, job_id: int) -> None:
        job = self.job(job_id)
        if job.state not in ("reading", "running", "done"):
            raise Refused("JobStateInvalid")
        if job.state == "reading":
            job.state, job.sealed = "running", True
        self.complete(job_id)

    def stop(self, job_id: int) -> None:
        job = self.job(job_id)
        if job.active:
            job.state = "stopped"

    def cancel(self, job_id: int) -> None:
        job = self.job(job_id)
        if job.state not in ("reading", "running", "stopped", "cancelled"):
            raise Refused("JobStateInvalid")
        job.state = "cancelled"
        for one in self.batches.values():
            if one.job == job_id and one.lane == "adapter" and one.state == "queued":
                one.state = "cancelled"

    def retry(self, job_id: int, cap: int | None, count: int | None) -> None:
        """What failed, and in a job that was stopped what waited, is tried again."""
        job = self.job(job_id)
        if job.state == "deleting" or job.texts != "kept":
            raise Refused("JobStateInvalid")
        if cap is not None:
            job.cap = cap
        again = self._ask_again(job)
        again += self._queue_again(job_id, ("failed",))
        again += self._queue_alone(job_id, job)
        if job.state in ("stopped", "cancelled"):
            again += self._queue_again(job_id, ("cancelled", "queued"))
        if again or job.state in ("stopped", "cancelled"):
            job.state = "running" if job.sealed else "reading"
            job.oracle_error = None
        assert count == again

    def correct(self, job_id: int, corrections: Mapping[int, str], replaced: int | None) -> None:
        job = self.job(job_id)
        if job.state == "deleting" or job.texts != "kept":
            raise Refused("JobStateInvalid")
        if not corrections.keys() <= job.rows.keys():
            raise Refused("CorrectionInvalid")
        assert replaced == sum(job.rows[row_no].correction is not None for row_no in corrections)
        for row_no, label in corrections.items():
            job.rows[row_no].correction = label

    def begin_deletion(self, job_id: int, *, texts_only: bool) -> None:
        self._check_deletable(job_id, texts_only=texts_only)
        job = self.jobs[job_id]
        for one in self.batches.values():
            if one.job == job_id and one.lane == "adapter" and one.state == "running":
                one.state = "cancelled"
                one.leave_holder()
        for number in self._packed_into(job_id):
            one = self.batches[number]
            if one.state == "running":
                one.state, one.published_at = "queued", None
                one.leave_holder()
            self.leave(number)
        if texts_only:
            job.texts = "deleting"
        else:
            job.state = "deleting"
            self.deleted.setdefault(job_id, 0)

    def delete_rows(self, job_id: int) -> None:
        self.jobs[job_id].rows.clear()

    def empty_texts(self, job_id: int) -> None:
        for row in self.jobs[job_id].rows.values():
            row.text = ""

    def delete_calls(self, job_id: int) -> None:
        """The job's batches go, unless others have a part in them; what it spent stays spent."""
        for number, one in list(self.batches.items()):
            if one.job != job_id:
                continue
            heirs = {
                key[0]
                for key, row in self.reviews()
                if row.request is not None and row.request.batch == number and key[0] != job_id
            }
            heirs |= {
                paid.job for paid in self.reservations.values() if paid.batch == number and paid.job != job_id
            }
            if one.lane == "openai" and heirs:
                assert self.seen.batches[number][0] in heirs
                one.job = int(self.seen.batches[number][0])
            else:
                del self.batches[number]
        for number, paid in list(self.reservations.items()):
            if paid.job == job_id:
                self._keep_money(job_id, paid.reserved if paid.cost is None else paid.cost)
                del self.reservations[number]

    def end_deletion(self, job_id: int, *, texts_only: bool) -> None:
        if texts_only:
            if self.jobs[job_id].texts == "deleting":
                self.jobs[job_id].texts = "deleted"
            return
        self._keep_money(job_id, self.jobs[job_id].spent)
        del self.jobs[job_id]

    def _ask_again(self, job: Job) -> int:
        again = 0
        for row in job.rows.values():
            one = row.request
            if one is None or one.state not in ("refused", "unanswered", "failed"):
                continue
            if one.reason in ("policy", "fallback"):
                row.error = None
            one.state, one.batch, one.follows, one.attempts = "open", None, False, 0
            again += 1
        return again

    def _queue_again(self, job_id: int, states: Sequence[str]) -> int:
        again = 0
        for one in self.batches.values():
            if one.job != job_id or one.lane != "adapter" or one.state not in states:
                continue
            rows = [self.jobs[job_id].rows[no] for no in self.in_adapter_batch(one)]
            if one.state == "failed":
                for row in rows:
                    row.error = None
                if any(row.request for row in rows):
                    # It is the oracle's now.
                    continue
            one.state, one.attempts, one.published_at, one.not_before = "queued", 0, None, None
            one.created_at = self.now
            again += one.size
        return again

    def _queue_alone(self, job_id: int, job: Job) -> int:
        """Reviews that failed alone in a batch that is done."""
        parts: list[list[int]] = []
        for row_no, row in sorted(job.rows.items()):
            if row.error is None:
                continue
            row.error = None
            if parts and parts[-1][-1] == row_no - 1 and len(parts[-1]) < job.batch_size:
                parts[-1].append(row_no)
            else:
                parts.append([row_no])
        self.queue_rows(job_id, parts)
        return sum(map(len, parts))

    def _packed_into(self, job_id: int) -> list[int]:
        found = {key[0:2]: row.request for key, row in self.reviews() if key[0] == job_id}
        return sorted({one.batch for one in found.values() if one and one.state == "packed" and one.batch})

    def _check_deletable(self, job_id: int, *, texts_only: bool) -> None:
        job = self.job(job_id)
        if job.state == "deleting":
            if texts_only:
                raise Refused("JobStateInvalid")
            return
        shared = self._packed_into(job_id)
        held = any(
            one.state == "running"
            and (one.lease_until or 0.0) >= self.now
            and ((one.job == job_id and one.lane == "adapter") or number in shared)
            for number, one in self.batches.items()
        )
        out = any(
            (bulk := self.batches[number].bulk) is not None
            and (bulk.state == "submitted" or (bulk.state == "packed" and bulk.creating_at is not None))
            for number in shared
        )
        if job.active or held or out:
            raise Refused("JobStateInvalid")

    def _keep_money(self, job_id: int, nanos: int) -> None:
        self.jobs[job_id].spent -= nanos
        self.deleted[job_id] += nanos


__all__ = ["Batch", "Job", "Model", "Refused", "Row"]
