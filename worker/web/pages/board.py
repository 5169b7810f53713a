"""How far the jobs are, read once for everybody who looks: by one poller, however many pages are open."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync

from worker.desk.status import bulk_words, why_it_waits
from worker.errors import LoracleError
from worker.report.drawing import SERIES
from worker.report.words import count, plain, share, short
from worker.reviews import OVER, Job, dollars, duration
from worker.store.progress import Progress
from worker.web.site import Site

EACH_S = 1.0
"""Between two reads of the poller."""
WHY_S = 5.0
"""Why a job waits is asked so seldom: the answer needs the broker."""
MOST_AT_ONCE = 10
"""Running jobs that are read in one round. Of more, each has its turn every few rounds."""
ROWS_AT_ONCE = 50_000
"""Rows whose labels are counted in one round."""
KEPT = 2_000
"""Jobs that are over and stay in memory."""


@dataclass(frozen=True, slots=True)
class Card:
    """A job as the pages show it. `labels` counts its final labels as far as they were counted; `waits` says why
    nothing moves."""

    at: Progress
    labels: Mapping[str, int]
    waits: str | None

    @property
    def job(self) -> Job:
        """The job."""
        return self.at.job

    @property
    def over(self) -> bool:
        """Whether it goes on by itself no more."""
        return self.job.state in OVER

    @property
    def cancellable(self) -> bool:
        """Whether cancelling it means anything."""
        return self.job.state in ("reading", "running", "stopped")

    @property
    def retriable(self) -> bool:
        """Whether something of it can be scored again."""
        return self.job.texts == "kept" and (
            self.job.state in ("stopped", "cancelled") or bool(self.at.failed)
        )

    @property
    def permille(self) -> int:
        """Of the progress bar."""
        done = self.at.labelled + self.at.failed
        return 1000 * done // self.at.reviews if self.at.reviews else 0

    @property
    def bars(self) -> list[tuple[str, float, float, str, str]]:
        """(label, where its bar begins, its length, both in hundredths, its share in words, its colour) of the most
        frequent labels, by name: they keep their places while the shares change."""
        total, start, found = sum(self.labels.values()), 0.0, []
        often = sorted(self.labels, key=lambda label: (-self.labels[label], label))[: len(SERIES)]
        for label, colour in zip(sorted(often), SERIES, strict=False):
            part = self.labels[label] / total
            found.append((short(label), round(start, 2), round(100 * part, 2), share(part), colour))
            start += 100 * part
        return found

    def words(self) -> dict[str, str]:
        """What a page shows of it and keeps up to date, by the name of the place."""
        at, job = self.at, self.job
        left = "" if at.seconds_left is None or self.waits else f"about {duration(at.seconds_left)} left"
        return {
            "state": job.state,
            "done": f"{count(at.labelled)} of {count(at.reviews)}",
            "failed": f"{count(at.failed)} failed" if at.failed else "",
            "rejected": f"{count(at.rejected)} rejected" if at.rejected else "",
            "rate": "–"
            if at.speed is None
            else f"{at.speed:,.0f}/s"
            if at.speed >= 10
            else f"{at.speed:.1f}/s",
            "left": "" if self.over else left,
            "cost": "–" if job.oracle_id is None else dollars(job.spent),
            "why": "" if self.job.state == "done" else self._why(),
        }

    def _why(self) -> str:
        if self.over:
            return plain(self.job.error or "")
        if self.waits:
            return plain(f"waits: {self.waits}")
        return bulk_words(self.at.bulks[0]) if self.at.bulks else ""


class Board:
    """The cards of all jobs. Those of jobs that are over are kept; those of running ones are at most `EACH_S` old."""

    def __init__(self, site: Site) -> None:
        self._settings, self._store = site.settings, site.store
        self._lock = threading.RLock()
        self._kept: dict[int, Card] = {}
        self._fresh: dict[int, tuple[float, Card]] = {}
        self._counted: dict[int, tuple[int, dict[str, int]]] = {}
        self._why: dict[int, tuple[float, str | None]] = {}
        self._turn = 0
        self._watchers = 0
        self._live: dict[int, dict[str, Any]] = {}
        self._round = 0
        self._changed: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def cards(self, jobs: Sequence[Job]) -> list[Card]:
        """The card of each job, in order."""
        with self._lock:
            known = {job.id: self._known(job) for job in jobs}
            new = [job for job in jobs if known[job.id] is None]
            shares = self._store.queries.browsing.kept_shares([job.id for job in new]) if new else {}
            return [known[job.id] or self._read(job, shares.get(job.id)) for job in jobs]

    def card(self, job_id: int) -> Card:
        """The card of one job. Raises JobUnknown."""
        return self.cards([self._store.queries.jobs.get(job_id)])[0]

    def _known(self, job: Job) -> Card | None:
        kept = self._kept.get(job.id)
        if kept is not None and kept.job == job:
            return kept
        at, card = self._fresh.get(job.id, (0.0, None))
        same = card is not None and card.job.state == job.state
        return card if same and time.monotonic() - at < EACH_S else None

    def _read(self, job: Job, labels: Mapping[str, int] | None) -> Card:
        at = self._store.queries.jobs.progress(job.id)
        whole = labels is not None
        if labels is None:
            labels, whole = self._count(at)
        card = Card(at, labels, None if job.state in OVER else self._waits(at))
        if card.over and whole:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[job.id] = card
            for cache in (self._fresh, self._counted, self._why):
                cache.pop(job.id, None)
        else:
            self._fresh[job.id] = (time.monotonic(), card)
        return card

    def _count(self, at: Progress) -> tuple[dict[str, int], bool]:
        """The labels of the rows that are decided, each counted once, and whether these are all rows."""
        job = at.job
        until = self._store.queries.jobs.decided_until(job.id)
        after, labels = self._counted.get(job.id, (0, {}))
        if until < after:
            # It was tried again: what was decided is open.
            after, labels = 0, {}
        stop = min(until, after + ROWS_AT_ONCE)
        if stop > after:
            found = self._store.queries.browsing.shares_between(job.id, after_row=after, until_row=stop)
            labels = {label: labels.get(label, 0) + found.get(label, 0) for label in {*labels, *found}}
            self._counted[job.id] = (stop, labels)
        return labels, stop >= until

    def _waits(self, at: Progress) -> str | None:
        asked, why = self._why.get(at.job.id, (-WHY_S, None))
        if time.monotonic() - asked > WHY_S:
            try:
                why = why_it_waits(self._settings, self._store, at)
            except LoracleError as error:
                why = str(error)
            self._why[at.job.id] = (time.monotonic(), why)
        return why

    async def watch(self) -> AsyncIterator[dict[int, dict[str, Any]] | None]:
        """What has changed of the running jobs, first all of it, by job; None now and then, where nothing has."""
        seen: dict[int, dict[str, Any]] = {}
        self._watchers += 1
        try:
            if self._task is None or self._task.done():
                self._changed = asyncio.Event()
                self._task = asyncio.create_task(self._poll())
            while True:
                live = self._live
                news = {job_id: words for job_id, words in live.items() if seen.get(job_id) != words}
                seen = live
                if news:
                    yield news
                try:
                    assert self._changed is not None
                    await asyncio.wait_for(self._changed.wait(), 15)
                except TimeoutError:
                    yield None
        finally:
            self._watchers -= 1

    async def _poll(self) -> None:
        """Reads the running jobs as long as anybody watches."""
        while self._watchers:
            # What can't be read now is read in the next round: the pages keep what they show.
            with contextlib.suppress(LoracleError):
                self._live = await run_sync(self._look)
            before, self._changed = self._changed, asyncio.Event()
            if before is not None:
                before.set()
            await asyncio.sleep(EACH_S)
        self._task = None

    def _look(self) -> dict[int, dict[str, Any]]:
        """The running jobs, and those that were running the last time, as places and words."""
        self._round += 1
        active = self._store.queries.browsing.active(limit=50)
        start = self._turn % len(active) if active else 0
        chosen = [*active[start:], *active[:start]][:MOST_AT_ONCE]
        self._turn += len(chosen)
        running = {job.id for job in active}
        ended = [
            job_id for job_id, words in self._live.items() if job_id not in running and not words["over"]
        ]
        found = {job_id: words for job_id, words in self._live.items() if job_id in running}
        for job_id in ended[:MOST_AT_ONCE]:
            try:
                chosen.append(self._store.queries.jobs.get(job_id))
            except LoracleError:
                continue
        for card in self.cards(chosen):
            found[card.job.id] = {
                **card.words(),
                "permille": card.permille,
                "bars": card.bars,
                "over": card.over,
            }
        return found
