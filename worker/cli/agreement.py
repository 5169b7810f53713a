"""`loracle agreement`, and how figures of agreement are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from worker.agreement.calibration import CalibrationError
from worker.agreement.intervals import Estimate
from worker.agreement.measure import WHOLE, Measurement
from worker.agreement.terms import explained
from worker.bootstrap import find_registered
from worker.cli.common import (
    JOB,
    echo_json,
    json_option,
    minute,
    note,
    open_all,
    print_table,
    print_terms,
)
from worker.desk.agreement import agreement_report, measured_job, why_unmeasured
from worker.desk.results import DATE, whole_job
from worker.errors import Invalid
from worker.quality.measured import Measured
from worker.reviews import Job

if TYPE_CHECKING:
    from worker.quality.drift import Change


WIDTH = 120
Columns = tuple[str, ...]
UNDEFINED = "undefined"


def figure(estimate: Estimate, *, signed: bool = False) -> str:
    """A figure with its interval: "0.912 0.893-0.929"."""
    if estimate.value is None:
        return UNDEFINED
    shape = "+.3f" if signed else ".3f"
    if estimate.interval is None:
        return f"{estimate.value:{shape}} ?"
    low, high = estimate.interval
    between = " to " if signed or low < 0 else "-"
    return f"{estimate.value:{shape}} {low:{shape}}{between}{high:{shape}}"


def print_measured(job: Job, measured: Measured, by: str | None) -> None:
    """A job's comparisons: as a whole, in slices, or by label."""
    when = "measured just now, from the labels as they are"
    if measured.at is not None:
        when = f"measured {minute(measured.at)}"
    click.echo(f"Job {job.id} '{job.name}' ({job.state}, policy {job.policy}), {when}. Intervals are 95 %.")
    whole = [row for row in measured.rows if row.slice == WHOLE]
    if by == "class":
        shown = tuple(column for row in whole for column in _print_labels(row))
    elif by is not None:
        shown = _print_slices([row for row in measured.rows if row.slice.startswith(f"{by} ")], by)
    else:
        shown = (*_print_pairs(whole), *_print_gold(whole))
    print_terms(explained([*shown, *(row.selection for row in whole)]))
    _print_notes(whole)


def _print_pairs(rows: list[Measurement]) -> Columns:
    columns = ("raters", "on", "n", "agree", "kappa", "AC1", "bias p")
    cells = [
        (
            ",".join(row.raters),
            row.selection,
            f"{row.n:,}",
            figure(row.statistics.observed),
            figure(row.statistics.kappa),
            "" if row.statistics.kind == "many" else figure(row.statistics.ac1),
            f"{row.statistics.marginal.p_value:.3f}" if row.statistics.kind == "pair" else "",
        )
        for row in rows
    ]
    print_table(columns, cells, width=WIDTH)
    return columns


def _print_gold(rows: list[Measurement]) -> Columns:
    against_gold = [(row, row.gold) for row in rows if row.gold is not None]
    if not against_gold:
        return ()
    columns = (
        "against gold", "on", "n", "labelled", "accuracy", "macro F1", "AUROC", "RMS error", "ECE (by chance)"
    )  # fmt: skip
    cells = [
        (
            row.raters[1],
            row.selection,
            f"{gold.n:,}",
            f"{gold.labelled:,}",
            figure(gold.accuracy if row.selection == "all" else row.share),
            _number(gold.macro_f1),
            _number(gold.auroc),
            *_calibration(gold.calibration),
        )
        for row, gold in against_gold
    ]
    print_table(columns, cells, width=WIDTH)
    return columns


def _print_slices(rows: list[Measurement], by: str) -> Columns:
    if not rows:
        note(f"There are too few reviews to part them by {by}.")
        return ()
    columns = ("raters", "on", "characters" if by == "length" else by, "n", "agree", "kappa", "accuracy")
    cells, last = [], None
    for row in rows:
        key = (",".join(row.raters), row.selection)
        figures = figure(row.statistics.observed), figure(row.statistics.kappa)
        ends = row.slice.removeprefix(f"{by} ").removesuffix(" characters")
        accuracy = "" if row.gold is None else figure(row.gold.accuracy)
        cells.append((*(key if key != last else ("", "")), ends, f"{row.n:,}", *figures, accuracy))
        last = key
    print_table(columns, cells, width=WIDTH)
    return columns


def _print_labels(row: Measurement) -> Columns:
    found = row.statistics
    if found.kind != "pair":
        return ()
    first, second = row.raters
    click.echo(f"{first},{second} on {row.selection}, {row.n:,} reviews:")
    given = f"{second} if {first}", f"{first} if {second}"
    columns = ("label", first, second, "both", "agree on it", *given, "bias")
    cells = [
        (
            one.label,
            *(f"{count:,}" for count in (one.first, one.second, one.both)),
            *map(figure, (one.specific, one.of_first, one.of_second)),
            figure(one.bias, signed=True),
        )
        for one in found.by_label
    ]
    print_table(columns, cells, width=WIDTH)
    return columns


def _print_notes(rows: list[Measurement]) -> None:
    for row in rows:
        found, where = row.statistics, f"{','.join(row.raters)} on {row.selection}"
        if found.unanswered and row.selection == "random":
            note(
                f"{where}: {found.unanswered:,} of the random sample aren't judged, so these figures don't hold for "
                "the job: whoever fills in mistakes alone, or leaves the hard ones out, gets others. Judge them too: "
                "`loracle review JOB --kind random`."
            )
        elif found.unanswered:
            note(
                f"{where}: the oracle gave no answer to {found.unanswered:,} more reviews, which are left out."
            )
        if found.kind == "cascade" and found.reason:
            note(f"{where} is undefined: {found.reason}.")
        elif row.kappa_undefined is not None:
            note(f"{where}: kappa is undefined: {row.kappa_undefined}.")
        if row.selection == "picked":
            note(
                f"{where}: only reviews that people picked to judge: these figures say nothing of the others. "
                "`loracle review JOB --kind random` lists some drawn by chance."
            )
        if row.selection == "escalated":
            note(
                f"{where}: only reviews that the adapter was unsure of: these figures say nothing of the others."
            )
        if found.kind == "cascade" and found.disagreements.value is not None:
            low, high = found.disagreements.interval or (0.0, 0.0)
            note(
                f"{where}: the oracle would label about {found.disagreements.value:,.0f} ({low:,.0f}-{high:,.0f}) of "
                f"{row.n:,} reviews otherwise; it saw {found.escalated:,} unsure ones and {found.audited:,} "
                f"of the {found.trusted:,} others."
            )


def print_change(change: Change) -> None:
    """Two jobs or periods beside each other, and what follows."""
    first, second = change.first, change.second
    cells = [
        (
            label,
            *(
                f"{side.labels.get(label, 0) / max(1, sum(side.labels.values())):.3f}"
                for side in (first, second)
            ),
            figure(difference, signed=True),
        )
        for label, difference in change.shares.items()
    ]
    if cells:
        print_table(("share of all labels", first.name, second.name, "difference"), cells, width=WIDTH)
    of_gold = [(side.name, side.with_gold, side.right) for side in (first, second)]
    of_audits = [(side.name, side.audited, side.agreeing) for side in (first, second)]
    said = ""
    for title, sort, counts, found, meaning in (
        ("labels that gold gives too", "with gold", of_gold, change.by_gold, change.gold_meaning),
        ("adapter's labels that the oracle gives too", "audited", of_audits, change.drift, change.meaning),
    ):
        known = any(n for _, n, _ in counts)
        if known:
            rows = [
                (name, f"{n:,}", f"{hits:,}", f"{hits / n:.3f}" if n else UNDEFINED)
                for name, n, hits in counts
            ]
            print_table((title, sort, "the same", "share"), rows, width=WIDTH)
        if found.raw.value is not None:
            click.echo(f"  difference as it is          {figure(found.raw, signed=True)}")
        if found.p_value is not None:
            click.echo(
                f"  on reviews of like score     {figure(found.difference, signed=True)}  "
                f"(Cochran-Mantel-Haenszel p = {found.p_value:.4f}, {found.compared or 0:.0%} of the reviews "
                "compared)"
            )
        # An audit that nobody asked for isn't missed where gold has answered.
        if meaning != said and (known or not change.gold_meaning):
            click.echo(meaning)
            said = meaning
    for caution in change.cautions:
        note(caution)


ON = {
    "audit": "the adapter's own labels of the whole job, by an audit of {n:,}",
    "audit+cascade": "the adapter's own labels of all {n:,}, by audit and cascade",
    "escalated": "the adapter's own labels of the {n:,} that it was unsure of alone",
}


GOLD_ON = {"all": "on {n:,} gold labels", "random": "of the whole job, by {n:,} reviews that people judged"}


def agreement_lines(summary: Mapping[str, Any]) -> list[str]:
    """The agreement of `summary.Summary`, a line for each figure with its interval and its n."""
    lines = []
    if summary["accuracy"] is not None:
        gold = GOLD_ON[summary["accuracy_on"]].format(n=summary["gold"])
        if summary["unjudged"]:
            gold = (
                f"on {summary['gold']:,} judged reviews; {summary['unjudged']:,} of the random sample aren't, so it "
                "doesn't hold for the job"
            )
        lines.append(f"accuracy     {_with_interval(summary, 'accuracy')}, {gold})")
        if summary["kappa"] is None:
            lines.append(f"Cohen's kappa undefined: {summary['kappa_undefined']}")
        else:
            lines.append(f"Cohen's kappa{_with_interval(summary, 'kappa')}, {gold})")
    if summary.get("worsened") is not None:
        lines.append(f"beware       {summary['worsened']}")
    if summary["oracle_agreement_on"] is not None:
        on = ON[summary["oracle_agreement_on"]].format(n=summary["oracle_agreement_n"])
        if summary["oracle_agreement"] is None:
            lines.append(f"with oracle  undefined  ({on}: the audit saw too little)")
        else:
            lines.append(f"with oracle  {_with_interval(summary, 'oracle_agreement')}, {on})")
    return lines


def _with_interval(summary: Mapping[str, Any], name: str) -> str:
    interval = summary[f"{name}_interval"]
    ends = (
        "?"
        if interval is None
        else f"{interval[0]:.4f}{'-' if interval[0] >= 0 else ' to '}{interval[1]:.4f}"
    )
    return f"{summary[name]:>9.4f}  (95 %: {ends}"


def _calibration(found: CalibrationError | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return _number(found.rms), f"{found.ece:.3f} ({found.band[0]:.3f}-{found.band[1]:.3f})"


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


@click.command()
@click.argument("job", type=JOB, required=False)
@click.option(
    "--by", type=click.Choice(["length", "score", "class"]), help="In parts of the reviews, or by label."
)
@click.option("--now", "measure_now", is_flag=True, help="Measure from the labels as they are.")
@click.option("--against", type=JOB, metavar="OTHER", help="Is JOB different from the job OTHER?")
@click.option(
    "--adapter", metavar="NAME", help="Is this adapter drifting away from the oracle? With --since."
)
@click.option(
    "--since", type=DATE, metavar="DATE", help="Its jobs finished since then, against those before."
)
@click.option("--until", type=DATE, metavar="DATE", help="Leave out jobs finished from then on.")
@json_option
def agreement(
    job: int | None,
    by: str | None,
    measure_now: bool,
    against: int | None,
    adapter: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Show how far gold, adapter and oracle agree in a JOB, each figure with its 95 % interval.

    It is measured when the job is done. A line under the tables explains each term. `on` says for which reviews the
    figures are: all; audit or random (a random sample that the oracle or people judged, so they hold for the whole
    job); audit+cascade (for the whole job too); escalated (only reviews that the adapter was unsure of); or picked
    (only reviews that people chose to judge).

    --against, or --adapter with --since, shows whether labels are as they were: how often each is given, how many are
    right by gold, and how often the oracle agrees in an audit. The last two compare reviews of similar score.

    \b
    Example:
      loracle agreement 1 --by class
    """
    if adapter is not None or since is not None:
        if adapter is None or since is None or job is not None or against is not None:
            raise Invalid("a comparison of periods needs --adapter NAME and --since DATE, and no JOB.")
        _compare_periods(adapter, since, until, as_json)
        return
    if job is None:
        raise Invalid(
            "name a JOB (`loracle jobs` lists them), or compare periods with --adapter and --since."
        )
    if until is not None:
        raise Invalid("--until belongs to --adapter and --since.")
    if against is not None:
        _compare_jobs(job, against, as_json)
        return
    _, store = open_all()
    found = whole_job(store, job)
    measured = measured_job(store, found, measure_now=measure_now)
    if as_json:
        echo_json(agreement_report(found, measured, by))
    elif not measured.rows:
        note(f"Job {job} has nothing to compare: {why_unmeasured(store, job)}.")
    else:
        print_measured(found, measured, by)


def _compare_jobs(job: int, against: int, as_json: bool) -> None:
    from worker.quality.drift import compare_jobs

    _, store = open_all()
    first, second = whole_job(store, against), whole_job(store, job)
    if first.id == second.id:
        raise Invalid(f"job {job} is the same as itself: name another one with --against.")
    change = compare_jobs(store.queries, [first], [second], names=(f"job {first.id}", f"job {second.id}"))
    if as_json:
        echo_json(dataclasses.asdict(change))
    else:
        print_change(change)


def _compare_periods(adapter: str, since: datetime, until: datetime | None, as_json: bool) -> None:
    from worker.quality.drift import compare_jobs

    _, store = open_all()
    row = find_registered(store, adapter)
    jobs = [
        job
        for job in store.queries.jobs.finished(row.id)
        if until is None or (job.finished_at or 0) < until.timestamp()
    ]
    before = [job for job in jobs if (job.finished_at or 0) < since.timestamp()]
    later = [job for job in jobs if (job.finished_at or 0) >= since.timestamp()]
    day = (
        f"{since:%Y-%m-%d}"
        if since == datetime(since.year, since.month, since.day)
        else f"{since:%Y-%m-%d %H:%M}"
    )
    names = (f"{_jobs(before)} before {day}", f"{_jobs(later)} since {day}")
    change = compare_jobs(store.queries, before, later, names=names)
    if as_json:
        echo_json({"adapter": row.name, **dataclasses.asdict(change)})
    else:
        click.echo(f"Adapter '{row.name}' {row.sha256[:12]}:")
        print_change(change)


def _jobs(jobs: list[Job]) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
