"""The model's requests: packed, paid for, answered, by Prompt or by Bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from tests.contract.model_batches import Batches
from tests.contract.model_state import Batch, Bulk, Job, Key, Refused, Reservation
from tests.contract.seen import OPEN

ROUNDS = 3
"""Bulks that may leave a request without an answer."""


@dataclass(frozen=True)
class Rule:
    """How requests are packed."""

    size: int
    waiting: int
    after_s: float
    bulk: bool


@dataclass(frozen=True)
class Said:
    """An answer: a label, or as what the request ends without one."""

    label: str | None
    state: str = "labelled"


class Oracle(Batches):
    """The oracle's lane."""

    def pack(self, rule: Rule, made: int) -> None:
        """Open requests in the order (priority, the jobs in turn, row); no text is asked twice."""
        self.fail_stopped()
        scorers = {job.oracle for job in self.jobs.values() if job.asks and self._open_of(job)} - {None}
        before = len(self.batches)
        for scorer in sorted(scorer for scorer in scorers if scorer is not None):
            self._pack(scorer, rule)
        assert made == len(self.batches) - before

    def reserve(
        self,
        batch_id: int,
        shares: Mapping[int, int],
        limit: int | None,
        got: Mapping[int, int] | None,
    ) -> None:
        """All shares or none; neither a job's cap nor the limit of all is ever passed."""
        spent = sum(job.spent for job in self.jobs.values()) + sum(self.deleted.values())
        if limit is not None and spent + sum(shares.values()) > limit:
            raise Refused("BudgetSpent")
        for job_id, share in sorted(shares.items()):
            job = self.job(job_id)
            if job.cap is not None and job.spent + share > job.cap:
                raise Refused("BudgetSpent")
        assert got is not None
        assert got.keys() == shares.keys()
        for job_id, number in got.items():
            assert number not in self.reservations
            self.jobs[job_id].spent += shares[job_id]
            self.reservations[number] = Reservation(job_id, batch_id, shares[job_id], self.now)

    def is_final(self, batch_id: int, shares: Mapping[int, int], limit: int | None) -> bool:
        """Whether a refusal stays one, however cheap the calls under way turn out."""
        spent = sum(job.spent for job in self.jobs.values()) + sum(self.deleted.values())
        if limit is not None and (wanted := spent + sum(shares.values())) > limit:
            return wanted > limit + self._under_way(batch_id, None)
        for job_id, share in sorted(shares.items()):
            job = self.job(job_id)
            if job.cap is not None and job.spent + share > job.cap:
                return job.spent + share > job.cap + self._under_way(batch_id, job_id)
        raise AssertionError("it is allowed")

    def save(
        self,
        batch_id: int,
        token: str,
        answers: Sequence[tuple[Key, Said]],
        charges: Mapping[int, int],
        *,
        done: bool,
    ) -> None:
        """What the calls took counts whoever has the Prompt by now."""
        self.settle(charges)
        one = self.hold(batch_id, token)
        self._take(batch_id, answers)
        if done:
            self.close(batch_id, "done")
        else:
            one.lease_until = self.now + self.lease_s

    def park(self, batch_id: int, token: str, delay_s: float) -> None:
        one = self.hold(batch_id, token)
        one.leave_holder()
        one.state, one.published_at, one.not_before = "parked", None, self.now + delay_s
        one.attempts -= 1

    def begin(self, batch_id: int, token: str) -> None:
        one = self.hold(batch_id, token)
        self.settle_unsent(batch_id)
        if one.bulk is not None:
            one.bulk.file = one.bulk.creating_at = None

    def note_upload(self, batch_id: int, token: str, file: str) -> None:
        one = self.hold(batch_id, token)
        one.lease_until = self.now + self.lease_s
        self.bulk(batch_id).file, self.bulk(batch_id).creating_at = file, self.now

    def note_submission(self, batch_id: int, token: str, remote: str, poll_after_s: float) -> None:
        self.wait(batch_id, token, poll_after_s)
        self.bulk(batch_id).state, self.bulk(batch_id).remote = "submitted", remote

    def wait(self, batch_id: int, token: str, poll_after_s: float) -> None:
        one = self.hold(batch_id, token)
        one.leave_holder()
        one.state, one.attempts, one.published_at = "submitted", 0, None
        one.not_before = self.now + poll_after_s

    def submit_again(self, batch_id: int, token: str, delay_s: float) -> None:
        self.wait(batch_id, token, delay_s)
        self.settle_unsent(batch_id)
        self.batches[batch_id].bulk = Bulk()

    def collect(
        self,
        batch_id: int,
        token: str,
        answers: Sequence[tuple[Key, Said]],
        charges: Mapping[int, int],
        *,
        error: str | None,
        again: int | None,
    ) -> None:
        """What has no answer is asked again, until it was in so many Bulks."""
        self.hold(batch_id, token)
        self.settle(charges)
        self._take(batch_id, answers)
        left = self.leaders(batch_id)
        for key in left:
            self.request(key).attempts += 1
        tired = [key for key in left if self.request(key).attempts >= ROUNDS]
        for key in tired:
            # It isn't counted on: the request is over.
            self.request(key).attempts -= 1
        self.give_up(batch_id, tired, "unanswered", error or "tired")
        assert again == len(self.packed(batch_id))
        self.bulk(batch_id).state = "failed" if error else "collected"
        self.close(batch_id, "failed" if error and not answers else "done")

    def abandon(self, batch_id: int, token: str) -> None:
        one = self.hold(batch_id, token)
        self.close_unsent(batch_id)
        if one.bulk is not None and one.bulk.state == "submitted":
            one.bulk.state = "failed"
        self.close(batch_id, "failed")

    def split(self, batch_id: int, token: str) -> None:
        self.hold(batch_id, token)
        asked = self.leaders(batch_id)
        self.close_unsent(batch_id)
        self.split_prompt(batch_id, asked, few_attempts=False)
        self.close(batch_id, "split")

    def bulk(self, batch_id: int) -> Bulk:
        found = self.batches[batch_id].bulk
        assert found is not None
        return found

    def stop_oracle(self, job_ids: Sequence[int], reason: str) -> None:
        for job_id in job_ids:
            job = self.jobs.get(job_id)
            if job is not None and job.asks:
                job.oracle_error = reason
        self.fail_stopped()

    def _take(self, batch_id: int, answers: Sequence[tuple[Key, Said]]) -> None:
        """What is said of each text, also for the other requests about it, which pay nothing."""
        for key, said in answers:
            same = self.of_same_text(self.batches[batch_id].scorer, batch_id, [self.row(key).text])
            if said.label is None:
                self.resolve([key, *same], said.state, "it wouldn't say")
                continue
            for one in [key, *same]:
                self.row(one).labels.setdefault("oracle", said.label)
                self.request(one).state, self.request(one).follows = "labelled", one != key

    def _pack(self, scorer: int, rule: Rule) -> None:
        jobs = {
            job_id: job
            for job_id, job in sorted(self.jobs.items())
            if job.oracle == scorer and job.asks and self._open_of(job)
        }
        waiting = sum(
            one.lane == "openai" and one.scorer == scorer and one.state in ("queued", "parked")
            for one in self.batches.values()
        )
        room = (rule.waiting - waiting) * rule.size
        if room <= 0:
            return
        order: list[Key] = []
        for priority in sorted({job.priority for job in jobs.values()}, reverse=True):
            lists = [
                [(job_id, row_no) for row_no in self._open_of(job)]
                for job_id, job in jobs.items()
                if job.priority == priority
            ]
            order += [key for key in chain.from_iterable(zip_longest(*lists)) if key is not None]
        complete = all(job.sealed and not self._adapter_has(job_id) for job_id, job in jobs.items())
        self._make(scorer, self._without_known(scorer, order[:room]), rule, complete=complete)

    def _without_known(self, scorer: int, chosen: Sequence[Key]) -> list[Key]:
        """What has a label already gets it, what is being asked is followed; the rest is new."""
        labels: dict[str, set[str]] = {}
        asked: dict[str, int] = {}
        for key, row in self.reviews():
            one = row.request
            if one is None or one.follows or self.jobs[key[0]].oracle != scorer:
                continue
            if one.state == "labelled":
                labels.setdefault(row.text, set()).add(row.labels["oracle"])
            elif one.state == "packed" and one.batch is not None and self.batches[one.batch].state in OPEN:
                assert asked.setdefault(row.text, one.batch) == one.batch, f"{row.text!r} is asked twice"
        left: list[Key] = []
        for key in chosen:
            row, one = self.row(key), self.request(key)
            if row.text in labels:
                if "oracle" not in row.labels:
                    # Of several that were given to it in turn any will do.
                    found = self.seen.labels.get((*key, "oracle"), ("none",))[0]
                    assert found in labels[row.text]
                    row.labels["oracle"] = found
                one.state, one.follows = "labelled", True
            elif row.text in asked:
                one.state, one.follows, one.batch = "packed", True, asked[row.text]
            else:
                left.append(key)
        return left

    def _make(self, scorer: int, fresh: Sequence[Key], rule: Rule, *, complete: bool) -> None:
        first: dict[str, Key] = {}
        for key in fresh:
            first.setdefault(self.row(key).text, key)
        leaders = list(first.values())
        parts = [leaders[start : start + rule.size] for start in range(0, len(leaders), rule.size)]
        if parts and not complete and len(parts[-1]) < rule.size:
            oldest = min(self.request(key).created_at for key in parts[-1])
            if self.now - oldest < rule.after_s:
                parts.pop()
        for part in parts:
            prompt = self.new_prompt(part, scorer, 0)
            prompt.bulk = Bulk() if rule.bulk else None
            number = self.add_batch(prompt)
            texts = {self.row(key).text for key in part}
            for key in fresh:
                if self.row(key).text in texts:
                    one = self.request(key)
                    one.state, one.batch, one.follows = "packed", number, key not in part

    def _open_of(self, job: Job) -> list[int]:
        return [no for no, row in sorted(job.rows.items()) if row.request and row.request.state == "open"]

    def _adapter_has(self, job_id: int) -> bool:
        return any(
            one.job == job_id and one.lane == "adapter" and one.state in OPEN for one in self.batches.values()
        )

    def _under_way(self, batch_id: int, job_id: int | None) -> int:
        """What is set aside for other calls that may still turn out to be less."""
        total = 0
        for one in self.reservations.values():
            if one.cost is not None or one.batch in (None, batch_id) or job_id not in (None, one.job):
                continue
            batch = self.batches[one.batch or 0]
            running = batch.state == "running" and one.created_at >= (batch.claimed_at or 0.0)
            if running or (batch.state in OPEN and batch.bulk is not None):
                total += one.reserved
        return total


__all__ = ["Batch", "Oracle", "Rule", "Said"]
