"""The story of a deletion: the job marked, uploads taken back, rows deleted part by part, bytes overwritten; and the
same for all jobs that are old enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from worker.errors import JobStateInvalid, JobUnknown
from worker.store.deletion import UploadedFile
from worker.store.ledger import Ledger

REST_S = 0.005
"""Between two transactions: who waits for SQLite's write lock gets it."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What is left to be done by hand: files at OpenAI that couldn't be deleted, and whether the database's own files
    may still hold some of the bytes."""

    files_left: tuple[str, ...]
    bytes_left: bool


@dataclass(frozen=True, slots=True)
class Purged(Deleted):
    """Which jobs were deleted, and why others were not, by job."""

    job_ids: tuple[int, ...]
    refused: Mapping[int, str]


Forget = Callable[[Sequence[UploadedFile]], Sequence[UploadedFile]]
"""Deletes uploads and gives back those that it couldn't delete."""


def delete_job(
    job_id: int,
    *,
    texts_only: bool,
    ledger: Ledger,
    forget: Forget,
    after_part: Callable[[int], None] = lambda rows: None,
) -> Deleted:
    """Deletes a job, or its texts alone. Broken off at any moment, the same call goes on.

    `after_part` hears how many reviews and rejects are done so far.

    Raises:
        JobUnknown: there is no such job.
        JobStateInvalid: it isn't over, workers hold batches of it, or a Bulk of it is under way.
    """
    files_left = _delete(job_id, texts_only, ledger, forget, after_part)
    return Deleted(files_left, bytes_left=not ledger.deletion.wipe())


def purge(
    job_ids: Sequence[int],
    *,
    texts_only: bool,
    ledger: Ledger,
    forget: Forget,
    after_job: Callable[[int], None] = lambda jobs: None,
) -> Purged:
    """Deletes these jobs one after the other, or their texts; one that can't be deleted now is left out.

    Broken off at any moment, a later call goes on. `after_job` hears how many jobs are done.
    """
    done: list[int] = []
    refused: dict[int, str] = {}
    files_left: list[str] = []
    for job_id in job_ids:
        try:
            files_left += _delete(job_id, texts_only, ledger, forget, lambda rows: None)
            done.append(job_id)
        except (JobStateInvalid, JobUnknown) as error:
            # Since it was chosen, somebody has taken it up again or deleted it.
            refused[job_id] = str(error)
        after_job(len(done) + len(refused))
    # Once for all: a small SQLite file is rewritten as a whole.
    return Purged(tuple(files_left), not ledger.deletion.wipe(), tuple(done), refused)


def _delete(
    job_id: int, texts_only: bool, ledger: Ledger, forget: Forget, after_part: Callable[[int], None]
) -> tuple[str, ...]:
    """All but the wiping; the uploads that are left."""
    files_left = forget(ledger.deletion.begin(job_id, texts_only=texts_only))
    if texts_only:
        _empty_texts(job_id, ledger, after_part)
    else:
        _delete_rows(job_id, ledger, after_part)
    ledger.deletion.end(job_id, texts_only=texts_only)
    return tuple(one.file_id for one in files_left)


def _delete_rows(job_id: int, ledger: Ledger, after_part: Callable[[int], None]) -> None:
    done = 0
    while rows := ledger.deletion.delete_rows(job_id):
        done += rows
        after_part(done)
        time.sleep(REST_S)
    while ledger.deletion.delete_calls(job_id):
        after_part(done)
        time.sleep(REST_S)


def _empty_texts(job_id: int, ledger: Ledger, after_part: Callable[[int], None]) -> None:
    last: int | None = 0
    while last is not None:
        last = ledger.deletion.empty_texts(job_id, last)
        after_part(last or 0)
        time.sleep(REST_S)
