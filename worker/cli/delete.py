"""`loracle delete`: a job, or the texts of a job, for good."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from worker.bootstrap import Store
from worker.cli.common import echo_json, json_option, note, open_all, progress
from worker.deletion import delete_job
from worker.errors import Invalid, LoracleError
from worker.oracles import Oracles
from worker.settings import Settings
from worker.store.deletion import Deletable, UploadedFile

UPLOADS_LIVE_S = 4 * 24 * 3600
"""OpenAI forgets uploads after three days by itself."""


@click.command()
@click.argument("job", type=int)
@click.option("--texts-only", is_flag=True, help="Keep labels, statistics, agreement and costs.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def delete(job: int, texts_only: bool, yes: bool, as_json: bool) -> None:
    """Delete a JOB for good: reviews, labels, corrections, agreement, and what is known of its requests.

    The job must be over (`loracle cancel JOB`). Labels that other jobs copied from it are theirs and stay. What it
    spent still counts for LORACLE_MAX_COST; `loracle stats` forgets the job. Its file can be enqueued anew.

    --texts-only empties the texts and their hashes, the kept columns, notes of corrections and reasons of rejects.
    Your own ids (--id-column) stay, or nobody could match the labels.

    It works in small steps beside running workers. If it is broken off, the same command goes on. In SQLite the bytes
    are overwritten. PostgreSQL keeps deleted rows until its VACUUM has run; that and backups are up to you.
    """
    settings, store = open_all()
    found = store.ledger.deletable(job, texts_only=texts_only)
    if not yes and not _agreed(job, found, texts_only):
        note("Nothing was deleted.")
        return
    title = f"delete {'the texts of ' if texts_only else ''}job {job}"
    try:
        with progress(title, found.reviews + found.rejects) as shown:
            done = delete_job(
                job,
                texts_only=texts_only,
                ledger=store.ledger,
                forget=forgetting(settings, store),
                after_part=lambda rows: shown.update(rows, f"{rows:,} rows"),
            )
    except KeyboardInterrupt:
        note(f"Job {job} is deleted in part: `loracle delete {job}{' --texts-only' * texts_only}` goes on.")
        raise
    if as_json:
        echo_json(
            {
                "job_id": job,
                "texts_only": texts_only,
                "reviews": found.reviews,
                "files_left": list(done.files_left),
                "bytes_left": done.bytes_left,
            }
        )
    else:
        click.echo(f"The texts of job {job} are deleted." if texts_only else f"Job {job} is deleted.")
    if done.files_left:
        note(
            f"Uploads at OpenAI that couldn't be deleted: {', '.join(done.files_left)}. OpenAI deletes them itself "
            "three days after the upload; sooner, delete them in your account there (Storage, Files)."
        )
    if done.bytes_left and settings.database.startswith("sqlite"):
        note("Remains of the texts may be in the free space of the file: run `loracle db vacuum`.")
    elif done.bytes_left:
        note(
            "PostgreSQL keeps deleted rows until its VACUUM has run, and backups keep them for as long as you do."
        )


def _agreed(job: int, found: Deletable, texts_only: bool) -> bool:
    what = (
        f"{found.reviews:,} reviews, {found.labels:,} labels and {found.corrections:,} corrections; "
        f"${found.spent:.6f} was spent"
    )
    if texts_only:
        what = f"the texts of {found.reviews:,} reviews; {found.labels:,} labels stay"
    goes_on = " It was begun before and goes on." if found.is_begun else ""
    question = f"Job {job} '{found.name}': {what}.{goes_on}"
    if not sys.stdin.isatty():
        raise Invalid(f"{question} Nobody is here to be asked: say --yes to delete for good.")
    return click.confirm(f"{question} Delete for good?", err=True)


def forgetting(settings: Settings, store: Store) -> Callable[[Sequence[UploadedFile]], list[UploadedFile]]:
    """Deletes uploads at OpenAI as well as it can; what is left."""

    def forget(files: Sequence[UploadedFile]) -> list[UploadedFile]:
        live = [one for one in files if one.age_s < UPLOADS_LIVE_S]
        if not live:
            return []
        from worker.scorers.bulk import BulkScorer

        oracles, left = Oracles(settings, store), []
        for one in live:
            try:
                scorer = oracles(one.scorer_id)
            except LoracleError:
                # No key, or for another address.
                left.append(one)
                continue
            if not isinstance(scorer, BulkScorer) or not scorer.forget(one.file_id):
                left.append(one)
        return left

    return forget
