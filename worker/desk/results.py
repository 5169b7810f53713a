"""A job's rows: filters checked, kept columns beside ours, followed while they are labelled; jobs for programs."""

from __future__ import annotations

import dataclasses
import datetime
import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from worker.bootstrap import Store, adapter_of
from worker.desk.options import Command, Say, with_options
from worker.errors import Invalid, JobStateInvalid
from worker.reviews import OVER, Job
from worker.store.results import SORTS, SOURCES


class Moment(click.DateTime):
    """A date of these formats. One that isn't is answered with an example: the formats are for programmers."""

    def __init__(self, formats: Sequence[str], example: str) -> None:
        super().__init__(formats)
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The date."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"'{value}' is no date. Write it as {self._example}.", param, ctx)


DAY = Moment(["%Y-%m-%d"], "2026-11-01")
DATE = Moment(
    [
        "%Y-%m-%d",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M%z",
        "%Y-%m-%dT%H:%M:%S%z",
        "%Y-%m-%dT%H:%M:%S.%f%z",
    ],
    "2026-11-01 or 2026-11-01T14:30",
)
"""A date, or date and time (ISO 8601), such as `labelled_at` of an export; local where it names no zone."""

_OPTIONS = [
    click.option("--label", help="Only reviews with this label."),
    click.option("--gold", metavar="LABEL", help="Only reviews with this gold label (a correction's first)."),
    click.option("--min-score", type=click.FloatRange(0, 1), help="Only labels at least this probable."),
    click.option("--max-score", type=click.FloatRange(0, 1), help="Only labels at most this probable."),
    click.option("--labelled", is_flag=True, help="Only reviews that have a label."),
    click.option("--failed", is_flag=True, help="Only reviews that got no label, with the reason."),
    click.option(
        "--source",
        type=click.Choice(SOURCES),
        help="Only labels from this source.",
    ),
    click.option("--scorer", metavar="NAME", help="Only labels of the scorer with this in its name."),
    click.option("--wrong", is_flag=True, help="Only reviews whose label differs from their gold label."),
    click.option("--disagree", is_flag=True, help="Only reviews that adapter and oracle label differently."),
    click.option("--corrected", is_flag=True, help="Only reviews that a person has corrected."),
    click.option(
        "--since",
        type=DATE,
        metavar="DATE",
        callback=lambda _, __, date: date and date.timestamp(),
        help="Labelled since; date or date and time, local.",
    ),
    click.option("--search", metavar="WORD", help="Only reviews with this in their text, in any case."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N."),
    click.option(
        "--sort",
        type=click.Choice(SORTS),
        default="row",
        show_default=True,
        help="By this, the highest first with a minus; without a score last.",
    ),
]


def filter_options(command: Command) -> Command:
    """Adds the options that choose and order rows."""
    return with_options(_OPTIONS, command)


@filter_options
def _nothing(**_: Any) -> None:
    """Carries the filters."""


FILTERS = click.command("filters")(_nothing)
"""The filters of `loracle results`, without a command around them."""


def check_filters(store: Store, job: Job, filters: Mapping[str, Any], *, follow: bool, say: Say) -> None:
    """Refuses what can never find a row, or can't be followed.

    Raises:
        Invalid: names the option, the cause and the way out.
    """
    known = adapter_of(store, job.adapter_id).labels
    for option in ("label", "gold"):
        if filters[option] is not None and filters[option] not in known:
            raise Invalid(
                f"job {job.id} has no label '{filters[option]}'; its labels are {', '.join(known)}."
            )
    if filters["disagree"] and job.oracle_id is None:
        raise Invalid(
            f"--disagree compares adapter and oracle, but job {job.id} asked no oracle: enqueue its file again with "
            "--audit SHARE or --policy cascade."
        )
    if filters["scorer"] is not None:
        _check_scorer(filters["scorer"], store.queries.results.scorer_names())
    if filters["search"] == "":
        raise Invalid("--search needs a word: the empty one is in every text.")
    if follow:
        _check_follow(filters)
    if filters["wrong"] and not store.queries.agreements.has_gold(job.id):
        say(f"No review of job {job.id} has a gold label (--label-column): none is known to be wrong.")


def _check_scorer(wanted: str, names: Sequence[str]) -> None:
    if not any(wanted.lower() in name.lower() for name in names):
        raise Invalid(f"no scorer has '{wanted}' in its name; there are: {', '.join(names) or 'none yet'}.")


def _check_follow(filters: Mapping[str, Any]) -> None:
    why = {
        "--sort": "rows come as they are labelled, in the file's order" if filters["sort"] != "row" else None,
        "--disagree": "an audited review is shown before the oracle has answered"
        if filters["disagree"]
        else None,
        "--corrected": "people correct what has been shown" if filters["corrected"] else None,
    }
    for option, reason in why.items():
        if reason is not None:
            raise Invalid(f"--follow can't be combined with {option}: {reason}. Leave one of them out.")


COLUMNS = (
    "row_no", "id", "label", "score", "source", "scorer", "gold_label", "corrected", "corrected_label",
    "labelled_at", "error", "asked", "cost",
)  # fmt: skip
"""Of a file, whatever the job and the filters: exports of several jobs fit together."""


def kept_columns(job: Job) -> dict[str, str]:
    """The column of each kept one; never one of ours."""
    taken = {*COLUMNS, "job_id", "text", "attributes"}
    kept = [str(name) for name in job.options.get("keep_columns", [])]
    return {name: f"file_{name}" if name in taken else name for name in kept}


def date_columns(job: Job) -> list[str]:
    """The kept columns whose cells were dates in the file, by the names of `kept_columns`."""
    kept = kept_columns(job)
    return [kept[name] for name in job.options.get("date_columns", [])]


def rows_of(store: Store, job: Job, with_text: bool, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows that match, with their kept columns; `filters` are those of `ResultQueries.iterate`, its
    `sort` and its `limit`."""
    kept = kept_columns(job)
    found = store.queries.results.iterate(job.id, with_text=with_text or bool(kept), **filters)
    for row in found:
        attributes = row.pop("attributes", None) or {}
        row["labelled_at"] = iso(row["labelled_at"])
        yield {**row, **{column: attributes.get(name) for name, column in kept.items()}}


REJECTS_AT_ONCE = 2000


def with_rejects(
    store: Store, job: Job, rows: Iterator[dict[str, Any]], filters: Mapping[str, Any], *, follow: bool
) -> Iterator[dict[str, Any]]:
    """The rows, and those of the file that are rejected between them: number, id, kept columns and reason.

    Raises:
        Invalid: the rows are chosen or sorted, or the job is a sample of its file.
    """
    if follow or is_chosen(filters):
        raise Invalid(
            "--all-rows writes every row of the file, in its order: leave --follow, --sort and what chooses rows out."
        )
    if job.options.get("sample") is not None:
        raise Invalid(
            f"job {job.id} is a sample of its file: the other rows aren't kept. Leave --all-rows out."
        )
    return heapq.merge(rows, _rejected_rows(store, job), key=lambda row: row["row_no"])


def _rejected_rows(store: Store, job: Job) -> Iterator[dict[str, Any]]:
    after, kept = 0, kept_columns(job)
    while found := store.queries.jobs.rejects(job.id, after_row=after, limit=REJECTS_AT_ONCE):
        for one in found:
            yield {
                **dict.fromkeys(COLUMNS),
                "row_no": one.row_no,
                "id": one.external_id,
                "error": one.reason,
                **{column: one.attributes.get(name) for name, column in kept.items()},
            }
        after = found[-1].row_no


def is_chosen(filters: Mapping[str, Any]) -> bool:
    """Whether they leave rows out, or sort them."""
    return any(value not in (None, False, "row") for value in filters.values())


FOLLOW_S = 0.5
"""So often who follows a job looks for new rows."""


def follow_rows(
    store: Store, job: Job, with_text: bool, filters: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows as far as every earlier row is decided, until the job is over."""
    for row in rows_or_waits(store, job, with_text, filters):
        if row is None:
            time.sleep(FOLLOW_S)
        else:
            yield row


def rows_or_waits(
    store: Store, job: Job, with_text: bool, filters: Mapping[str, Any]
) -> Iterator[dict[str, Any] | None]:
    """The same, and None whenever who follows should wait a while."""
    after, left = 0, filters["limit"]
    while True:
        over = store.queries.jobs.state(job.id) in OVER
        until = None if over else store.queries.jobs.decided_until(job.id)
        if until is None or until > after:
            window = {**filters, "after_row": after, "until_row": until, "limit": left}
            for row in rows_of(store, job, with_text, window):
                yield row
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
            after = max(after, until or 0)
        if over:
            return
        yield None


def iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def for_programs(record: Any) -> dict[str, Any]:
    """A row of the database (a dataclass) as JSON has it: a job's `id` is its `job_id`, times are in ISO 8601."""
    given = dataclasses.asdict(record)
    if isinstance(record, Job):
        # As `loracle status` calls them.
        given = {"job_id": given.pop("id"), **given}
        given["rows"], given["reviews"] = given.pop("records_read"), given.pop("reviews_read")
    return {name: iso(value) if name.endswith("_at") else value for name, value in given.items()}


def whole_job(store: Store, job_id: int, *, texts_for: str | None = None) -> Job:
    """The job, if it is there as a whole; with its texts, if these are needed for what `texts_for` names.

    Raises:
        JobUnknown: there is no such job.
        JobStateInvalid: it is being deleted, or its texts were.
    """
    job = store.queries.jobs.get(job_id)
    if job.state == "deleting":
        raise JobStateInvalid(f"job {job_id} is being deleted: `loracle delete {job_id}` goes on.")
    if texts_for is not None and job.texts != "kept":
        raise JobStateInvalid(f"the texts of job {job_id} were deleted, and {texts_for} needs them.")
    return job
