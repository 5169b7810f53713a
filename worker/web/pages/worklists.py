"""What people judge one after the other: a list for everybody, of which each review is shown to one person at a time.

Held in this process: another `loracle web` on the same database keeps lists of its own. A correction in the database
counts whoever gave it, and of two on one review the later stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from worker.desk.review import to_review
from worker.reviews import Correction, TaskKind
from worker.store.corrections import ReviewTask
from worker.web.pages.later import Later
from worker.web.site import Site

A_LIST = 300
"""Reviews that are read at once: to find them all labels of a job are compared."""
REFILLED_AT = 30
HELD_S = 600.0
"""A review that somebody has before them is shown to nobody else for so long."""

Key = tuple[int, TaskKind]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person has before them: a review, or none where nothing is left. `left` counts the list's reviews that
    nobody has judged, `more` says that there are others behind it, `skipped` how many this person has passed over."""

    task: ReviewTask | None
    left: int
    more: bool
    skipped: int


@dataclass(frozen=True, slots=True)
class Done:
    """A correction that can be undone, and what was there before."""

    job_id: int
    row_no: int
    label: str
    before: Correction | None


class Worklists:
    """The lists of all jobs, and who is at which review."""

    def __init__(self, site: Site) -> None:
        self._store = site.store
        self._lock = threading.Lock()
        self._read: Later[Sequence[ReviewTask]] = Later()
        self._times: dict[Key, int] = {}
        self._judged: dict[Key, set[int]] = {}
        self._held: dict[tuple[int, int], tuple[str, float]] = {}
        self._skipped: dict[tuple[str, int], set[int]] = {}
        self._done: dict[str, list[Done]] = {}

    def turn(self, person: str, job_id: int, kind: TaskKind) -> Turn | None:
        """The next review for this person; the same one until it is judged or skipped. None while the list is read.

        Raises:
            LoracleError: it can't be read.
        """
        key = (job_id, kind)
        tasks = self._tasks(key)
        if tasks is None:
            return None
        with self._lock:
            judged, skipped = self._judged.setdefault(key, set()), self._skipped.get((person, job_id), set())
            open_tasks = [task for task in tasks if task.row_no not in judged]
            mine = [task for task in open_tasks if self._is_free(person, job_id, task.row_no)]
        more = len(tasks) == A_LIST
        if more and len(open_tasks) < REFILLED_AT:
            with self._lock:
                self._times[key] = self._times.get(key, 0) + 1
            self._tasks(key)
        # Those that this person holds come first: a reload shows the same review.
        held = [task for task in mine if self._held.get((job_id, task.row_no), ("", 0.0))[0] == person]
        for task in (*held, *mine):
            if task.row_no in skipped:
                continue
            if self._store.queries.browsing.correction(job_id, task.row_no) is not None:
                with self._lock:
                    judged.add(task.row_no)
                continue
            if self._hold(person, job_id, task.row_no):
                return Turn(task, len(open_tasks), more, len(skipped))
        return Turn(None, len(open_tasks), more, len(skipped))

    def judge(self, person: str, job_id: int, correction: Correction) -> None:
        """Writes the correction: the review's gold label from now on."""
        before = self._store.queries.browsing.correction(job_id, correction.row_no)
        self._store.ledger.corrections.save(job_id, [correction])
        with self._lock:
            self._held.pop((job_id, correction.row_no), None)
            self._mark(job_id, correction.row_no, judged=True)
            done = self._done.setdefault(person, [])
            done.append(Done(job_id, correction.row_no, correction.label, before))
            del done[:-100]

    def skip(self, person: str, job_id: int, row_no: int) -> None:
        """Passes over a review; others get it."""
        with self._lock:
            self._held.pop((job_id, row_no), None)
            self._skipped.setdefault((person, job_id), set()).add(row_no)

    def unskip(self, person: str, job_id: int) -> None:
        """Brings back what this person has skipped."""
        with self._lock:
            self._skipped.pop((person, job_id), None)

    def undo(self, person: str, job_id: int) -> Done | None:
        """Takes back this person's last correction of the job: it is before them again. None if there is none."""
        with self._lock:
            done = self._done.get(person, [])
            last = next((one for one in reversed(done) if one.job_id == job_id), None)
            if last is None:
                return None
            done.remove(last)
        if last.before is None:
            self._store.ledger.corrections.take_back(job_id, last.row_no)
        else:
            self._store.ledger.corrections.save(job_id, [last.before])
        with self._lock:
            self._mark(job_id, last.row_no, judged=False)
            self._held[job_id, last.row_no] = (person, time.monotonic() + HELD_S)
        return last

    def last_of(self, person: str, job_id: int) -> Done | None:
        """What `undo` would take back."""
        with self._lock:
            return next((one for one in reversed(self._done.get(person, [])) if one.job_id == job_id), None)

    def count_of(self, person: str, job_id: int) -> int:
        """How many reviews of the job this person has judged here."""
        with self._lock:
            return sum(one.job_id == job_id for one in self._done.get(person, []))

    def _tasks(self, key: Key) -> Sequence[ReviewTask] | None:
        job_id, kind = key
        # A running job has more to judge every minute.
        version = (
            self._times.get(key, 0),
            self._store.queries.jobs.state(job_id),
            int(time.monotonic() / 600),
        )
        return self._read.get(
            key, version, lambda: list(to_review(self._store, job_id, kind, limit=A_LIST)[0])
        )

    def _mark(self, job_id: int, row_no: int, *, judged: bool) -> None:
        for (of, _), rows in self._judged.items():
            if of == job_id:
                (rows.add if judged else rows.discard)(row_no)

    def _is_free(self, person: str, job_id: int, row_no: int) -> bool:
        holder, until = self._held.get((job_id, row_no), (person, 0.0))
        return holder == person or until < time.monotonic()

    def _hold(self, person: str, job_id: int, row_no: int) -> bool:
        """Whether nobody else was quicker."""
        with self._lock:
            if not self._is_free(person, job_id, row_no):
                return False
            now = time.monotonic()
            # A person has one review of a job before them.
            for place, (holder, until) in list(self._held.items()):
                if until < now or (holder == person and place[0] == job_id):
                    del self._held[place]
            self._held[job_id, row_no] = (person, now + HELD_S)
            return True
