"""`loracle delete` and `loracle purge`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from worker.bootstrap import Store
from worker.cli.common import JOB, echo_json, json_option, minute, note, open_all, print_table
from worker.desk.deletion import forgetting
from worker.errors import Invalid, JobStateInvalid
from worker.jobs import deletion
from worker.logs import Progress
from worker.reviews import counted, dollars
from worker.settings import Settings
from worker.store.deletion import Deletable


@click.command()
@click.argument("job", type=JOB)
@click.option("--texts-only", is_flag=True, help="Keep labels, statistics, agreement and costs.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def delete(job: int, texts_only: bool, yes: bool, as_json: bool) -> None:
    """Delete a JOB for good: reviews, labels, corrections, agreement, and what is known of its requests.

    The job must be over (`loracle cancel JOB`). Other jobs keep the labels that they copied from it. The money that
    it spent still counts for LORACLE_MAX_COST, but `loracle stats` no longer counts the job. You can enqueue its file
    again.

    --texts-only empties the texts and their hashes, the kept columns, notes of corrections and reasons of rejects.
    Your own ids (--id-column) stay, or nobody could match the labels.

    It works in small steps while workers run. After an interruption the same command goes on. In SQLite the bytes are
    overwritten. PostgreSQL keeps deleted rows until its VACUUM has run. The VACUUM and your backups are your
    task.

    \b
    Example:
      loracle delete 1 --texts-only
    """
    settings, store = open_all()
    found = store.ledger.deletion.check(job, texts_only=texts_only)
    if not yes and not _agreed(job, found, texts_only):
        note("Nothing was deleted.")
        return
    title = f"delete {'the texts of ' if texts_only else ''}job {job}"
    try:
        with Progress(title, found.reviews + found.rejects) as shown:
            done = deletion.delete_job(
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
    _say_what_is_left(done, settings)


def _say_what_is_left(done: deletion.Deleted, settings: Settings) -> None:
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
        f"{counted(found.reviews, 'review')}, {counted(found.labels, 'label')} and "
        f"{counted(found.corrections, 'correction')}; {dollars(found.spent)} was spent"
    )
    if texts_only:
        what = f"the texts of {counted(found.reviews, 'review')}; {counted(found.labels, 'label')} stay"
    goes_on = " It was begun before and goes on." if found.is_begun else ""
    return _confirmed(f"Job {job} '{found.name}': {what}.{goes_on}")


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Invalid(f"{question} Nobody is here to be asked: say --yes to delete for good.")
    return click.confirm(f"{question} Delete for good?", err=True)


UNITS_S = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
SHOWN = 50
"""Jobs that are listed before anything is deleted."""


class Age(click.ParamType[float]):
    """How long ago, in seconds, written as 12h, 90d or 26w."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,6})([hdw])", str(value), re.ASCII)
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is no age: write 12h, 90d or 26w, and at least 1h.", param, ctx)
        return int(found[1]) * UNITS_S[found[2]]


@click.command()
@click.option(
    "--older-than",
    type=Age(),
    metavar="AGE",
    required=True,
    help="Jobs that ended so long ago: 90d, 12h, 26w.",
)
@click.option("--texts-only", is_flag=True, help="Keep labels, statistics, agreement and costs.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def purge(older_than: float, texts_only: bool, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Delete all jobs that ended longer ago than AGE for good, or with --texts-only their texts.

    For each of them it does what `loracle delete` does (see its --help), the oldest first. A job that isn't over
    stays, however old it is. A job stays too if workers or OpenAI still have a part of it: the command names it, and
    the exit code is 1. An age counts from a job's end, by the database's clock. After an interruption the same
    command goes on.

    You can delete texts sooner than labels: run it once with --texts-only and a short age, and once without
    --texts-only and with a long age.

    \b
    Example:
      loracle purge --older-than 90d --texts-only --dry-run
    """
    settings, store = open_all()
    found, refused = _purgeable(store, older_than, texts_only)
    still_open = store.ledger.deletion.still_open(older_than)
    if not as_json:
        _list(found, texts_only, and_total=dry_run or yes)
        if still_open:
            note(f"As old, but not over, and so left alone: job {', '.join(map(str, still_open))}.")
    done = deletion.Purged((), False, (), refused)
    if found and not dry_run:
        if not yes and not _confirmed(f"{_total(found, texts_only)}."):
            note("Nothing was deleted.")
            return 0
        try:
            with Progress("purge", len(found)) as shown:
                done = deletion.purge(
                    list(found),
                    texts_only=texts_only,
                    ledger=store.ledger,
                    forget=forgetting(settings, store),
                    after_job=lambda jobs: shown.update(jobs, f"{jobs:,} of {len(found):,} jobs"),
                )
        except KeyboardInterrupt:
            note("A part is deleted: the same command goes on.")
            raise
    refused = {**refused, **done.refused}
    if as_json:
        listed = [
            {"job_id": job_id, "name": one.name, "reviews": one.reviews, "labels": one.labels}
            for job_id, one in found.items()
        ]
        echo_json(
            {
                "texts_only": texts_only,
                "dry_run": dry_run,
                "jobs": listed,
                "deleted": list(done.job_ids),
                "refused": {str(job_id): why for job_id, why in refused.items()},
                "still_open": still_open,
                "files_left": list(done.files_left),
                "bytes_left": done.bytes_left,
            }
        )
    elif done.job_ids:
        click.echo(f"Deleted: {'the texts of ' if texts_only else ''}{_jobs(len(done.job_ids))}.")
    for job_id, why in refused.items():
        note(f"Job {job_id} stays: {why}")
    if done.job_ids:
        _say_what_is_left(done, settings)
    return 1 if refused else 0


def _purgeable(store: Store, age_s: float, texts_only: bool) -> tuple[dict[int, Deletable], dict[int, str]]:
    """The jobs that go, and why others of this age can't go now."""
    found, refused = {}, {}
    for job_id in store.ledger.deletion.older_than(age_s, texts_only=texts_only):
        try:
            found[job_id] = store.ledger.deletion.check(job_id, texts_only=texts_only)
        except JobStateInvalid as error:
            refused[job_id] = str(error)
    return found, refused


def _list(found: Mapping[int, Deletable], texts_only: bool, *, and_total: bool) -> None:
    if not found:
        note("No job is that old and over: nothing is to be deleted.")
        return
    rows = [
        (
            str(job_id),
            minute(one.ended_at) if one.ended_at else "-",
            f"{one.reviews:,}",
            f"{one.labels:,}",
            one.name,
        )
        for job_id, one in list(found.items())[:SHOWN]
    ]
    print_table(("job", "ended", "reviews", "labels", "name"), rows)
    if len(found) > SHOWN:
        click.echo(f"… and {len(found) - SHOWN:,} more")
    # The question has it too.
    if and_total:
        click.echo(_total(found, texts_only) + ".")


def _total(found: Mapping[int, Deletable], texts_only: bool) -> str:
    reviews, labels = (sum(getattr(one, name) for one in found.values()) for name in ("reviews", "labels"))
    if texts_only:
        return (
            f"{_jobs(len(found))}: the texts of {counted(reviews, 'review')}; {counted(labels, 'label')} stay"
        )
    return f"{_jobs(len(found))} with {counted(reviews, 'review')} and {counted(labels, 'label')}"


def _jobs(count: int) -> str:
    return counted(count, "job")
