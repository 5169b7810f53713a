"""What was scored with what, when and at which cost: names and values, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping

from worker.money import dollars
from worker.report.chart import Table
from worker.report.data import ReportData
from worker.report.wording import count, duration, moment, plain, share

SOURCES = {
    "adapter": "the adapter",
    "oracle": "the oracle",
    "adapter_unconfirmed": "the adapter, where the oracle was to decide and didn't",
}
Facts = list[tuple[str, str]]


def scored(data: ReportData) -> Facts:
    """The file and the job."""
    job = data.job
    options = job.options
    part = ""
    if options.get("sample") is not None:
        part = f", a random sample of {count(options['sample'])} (seed {options.get('seed') or 0})"
    elif options.get("limit") is not None:
        part = f", the first {count(options['limit'])}"
    found = [
        ("file", f"{job.source}{part}"),
        (
            "records",
            f"{count(job.records_read)} read: {count(data.reviews, 'review')}, {count(job.rejected)} rejected",
        ),
        ("labelled", f"{count(data.labelled, 'review')}; {count(data.failed)} failed"),
        ("with gold label", count(data.gold, "review")),
        ("state", job.state + (f": {job.error}" if job.error else "")),
        ("policy", str(data.policy)),
        ("enqueued", moment(job.created_at)),
        ("finished", moment(job.finished_at)),
    ]
    if job.finished_at is not None:
        found.append(("took", duration(max(0.0, job.finished_at - job.created_at))))
    return [*found, ("report written", f"{moment(data.made_at)} by Loracle {data.version}")]


def adapter(data: ReportData) -> Facts:
    """The adapter, and on what it ran."""
    row, manifest = data.adapter, data.adapter.manifest
    found = [("name", row.name), ("sha256", row.sha256)]
    if row.is_stub:
        found.append(
            ("what it is", "a stub without a model, for drills: its labels follow from the text's hash")
        )
    base = manifest.get("base")
    if isinstance(base, Mapping):
        revision = f" at {base['revision']}" if base.get("revision") else ""
        found += [
            ("base model", f"{base.get('id')}{revision}"),
            ("base weights, sha256", str(base.get("weights_sha256"))),
        ]
    if "labels" in manifest:
        found.append(("labels", ", ".join(map(str, manifest["labels"]))))
    if "temperature" in manifest:
        exponent = f", exponent {manifest['exponent']:g}" if manifest.get("exponent", 1) != 1 else ""
        found.append(("temperature", f"{manifest['temperature']:g}{exponent}"))
    encoding = manifest.get("encoding")
    if isinstance(encoding, Mapping):
        found.append(("encoding", ", ".join(f"{key} {value}" for key, value in encoding.items())))
    ran = [one for one in data.given_by if one.scorer.kind != "openai"]
    for one in ran:
        details = one.scorer.details
        where = (
            f"{details['device']}, {details.get('dtype')}" if "device" in details else "device not recorded"
        )
        found.append(
            ("labels given", f"{count(one.labels)} on {where}" if "device" in details else count(one.labels))
        )
    if not ran:
        found.append(("labels given", "none"))
    return found


def oracle(data: ReportData) -> Facts:
    """The oracle, what it was asked and what it answered; nothing without one."""
    if data.oracle is None:
        return []
    details = data.oracle.details
    template = details.get("template")
    found = [
        ("model", str(details.get("model", data.oracle.name))),
        ("asked at", str(details.get("base_url", "?"))),
        ("route", str(details.get("route", "?"))),
    ]
    if isinstance(template, Mapping):
        found += [
            ("prompt", str(template.get("name"))),
            ("prompt, sha256", str(details.get("template_sha256"))),
        ]
    found += [
        ("text window", str(details.get("window", "?"))),
        ("reviews per prompt", str(details.get("reviews_per_prompt", "?"))),
        ("personal data masked", "yes" if details.get("redacted") else "no"),
        ("identity, sha256", data.oracle.sha256),
    ]
    for one in data.given_by:
        if one.scorer.kind == "openai":
            models = ", ".join(f"{model} ({count(n)})" for model, n in one.models.items())
            found.append(("labels given", count(one.labels) + (f", by {models}" if models else "")))
    if data.job.oracle_error:
        found.append(("no longer asked", data.job.oracle_error))
    return found


def speed_and_cost(data: ReportData) -> Facts:
    """Throughput, and money where an oracle was asked."""
    found = []
    if data.speed is not None and data.labelled_s is not None:
        found += [
            ("reviews per second", f"{data.speed:,.1f}, from enqueueing to the last label"),
            ("from enqueueing to the last label", duration(data.labelled_s)),
        ]
    else:
        found.append(("reviews per second", "unknown: nothing is labelled"))
    if data.oracle is None:
        return [*found, ("oracle", "not asked: it cost nothing")]
    budget = "no budget" if data.job.max_cost is None else f"of a budget of {dollars(data.job.max_cost)}"
    lost = sum(row.lost for row in data.costs)
    asked = sum(row.labels for row in data.costs if row.scorer == data.oracle.name)
    found += [
        ("spent", f"{dollars(data.job.spent)}, {budget}"),
        ("of that lost", f"{dollars(lost)} set aside for calls nobody heard the end of"),
        ("tokens", count(sum(row.tokens for row in data.costs))),
    ]
    if data.reviews:
        found.append(("cost per 1,000 reviews of the job", dollars(1000 * data.job.spent / data.reviews)))
    if asked:
        found.append(("cost per 1,000 labels of the oracle", dollars(1000 * data.job.spent / asked)))
    return found


def tables(data: ReportData) -> list[Table]:
    """Who gave the final labels, what the oracle was asked, and what went wrong, counted."""
    found = []
    total = sum(data.sources.values())
    if total:
        rows = [[SOURCES.get(key, key), count(n), share(n / total)] for key, n in data.sources.items()]
        found.append(Table("Who gave the final labels", ["source", "reviews", "share"], rows))
    if data.requests:
        asked = [[f"{reason}: {state}", count(n)] for (reason, state), n in sorted(data.requests.items())]
        found.append(Table("What the oracle was asked", ["reason: what became of it", "reviews"], asked))
    for title, noun, reasons, number in (
        ("Rejected records", "records", data.reject_reasons, data.job.rejected),
        ("Failed reviews", "reviews", data.failure_reasons, data.failed),
    ):
        if number:
            rows = [[plain(reason), count(n)] for reason, n in reasons.items()]
            if others := number - sum(reasons.values()):
                rows.append(["other reasons", count(others)])
            found.append(Table(title, ["reason", noun], rows))
    return found
