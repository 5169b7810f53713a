"""The story of a deletion: the job marked, uploads taken back, rows deleted part by part, bytes overwritten."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


def delete_job(
    job_id: int,
    *,
    texts_only: bool,
    ledger: Ledger,
    forget: Callable[[Sequence[UploadedFile]], Sequence[UploadedFile]],
    after_part: Callable[[int], None] = lambda rows: None,
) -> Deleted:
    """Deletes a job, or its texts alone. Broken off at any moment, the same call goes on.

    `forget` deletes uploads and gives back those that it couldn't delete. `after_part` hears how many reviews and
    rejects are done so far.

    Raises:
        JobUnknown: there is no such job.
        JobStateInvalid: it isn't over, workers hold batches of it, or a Bulk of it is under way.
    """
    files_left = forget(ledger.deletion.begin(job_id, texts_only=texts_only))
    if texts_only:
        _empty_texts(job_id, ledger, after_part)
    else:
        _delete_rows(job_id, ledger, after_part)
    ledger.deletion.end(job_id, texts_only=texts_only)
    return Deleted(tuple(one.file_id for one in files_left), bytes_left=not ledger.deletion.wipe())


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
