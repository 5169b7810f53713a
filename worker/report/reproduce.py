"""How a report can be repeated: commands, methods, statements."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from worker.report.data import ReportData


@dataclass(frozen=True, slots=True)
class Method:
    """How a figure is computed, and whose it is."""

    figure: str
    how: str


def commands(data: ReportData) -> list[str]:
    """The commands that make the same job again, and show it."""
    job, options = data.job, data.job.options
    enqueue = ["loracle", "enqueue", job.source]
    columns = {"text_column": "--text-column", "label_column": "--label-column", "id_column": "--id-column"}
    for key, option in columns.items():
        if options.get(key):
            enqueue += [option, str(options[key])]
    if kept := options.get("keep_columns"):
        enqueue += ["--keep-columns", ",".join(map(str, kept))]
    for name, value in (options.get("reading") or {}).items():
        enqueue.append(f"--{name.replace('_', '-')}")
        if value is not True:
            enqueue.append(",".join(value) if isinstance(value, list) else str(value))
    if options.get("limit") is not None:
        enqueue += ["--limit", str(options["limit"])]
    if options.get("sample") is not None:
        enqueue += ["--sample", str(options["sample"]), "--seed", str(options.get("seed") or 0)]
    if options.get("other_languages", "keep") != "keep":
        enqueue += ["--other-languages", options["other_languages"]]
    enqueue += ["--adapter", "stub" if data.adapter.is_stub else data.adapter.sha256[:12]]
    enqueue += ["--policy", *str(data.policy).split(" ")]
    if data.oracle is not None:
        enqueue += _oracle_options(data.oracle.details)
        if job.max_cost is not None:
            enqueue += ["--max-cost", f"{job.max_cost:g}"]
    lanes = ["adapter"] if data.policy.names_adapter else []
    lanes += ["openai"] if data.policy.names_oracle else []
    worker = ["loracle", "worker", *(part for lane in lanes for part in ("--lane", lane))]
    return [
        shlex.join([*enqueue, "--again"]),
        shlex.join(worker),
        f"loracle agreement {job.id}",
        f"loracle results {job.id} -o labels.parquet",
        f"loracle report {job.id}",
    ]


def _oracle_options(details: object) -> list[str]:
    assert hasattr(details, "get")
    template = details.get("template") or {}
    pairs = (
        ("--model", details.get("model")),
        ("--route", details.get("route")),
        ("--prompt", template.get("name") if isinstance(template, dict) else None),
        ("--text-window", details.get("window")),
        ("--reviews-per-prompt", details.get("reviews_per_prompt")),
    )
    found = [part for option, value in pairs if value is not None for part in (option, str(value))]
    return [*found, *(["--redact"] if details.get("redacted") else [])]


def methods(data: ReportData) -> list[Method]:
    """The figures that this report shows, each with its estimator."""
    found = [
        Method(
            "share of equal labels, accuracy",
            "Equal labels of all compared; the interval is Wilson's (1927). A review with gold and without label "
            "counts as wrong in accuracy.",
        ),
        Method(
            "Cohen's kappa",
            "Agreement beyond what the two raters' label shares give by chance (Cohen 1960); interval by "
            "linearisation on Fisher's scale (Fleiss, Cohen, Everitt 1969).",
        ),
        Method("Gwet's AC1", "As kappa, with a chance term that holds where one label is rare (Gwet 2008)."),
        Method(
            "Krippendorff's alpha",
            "Nominal, two raters, with its correction for small n (Krippendorff 2004).",
        ),
    ]
    kinds = {one.statistics.kind for one in data.comparisons}
    selections = {one.selection for one in data.comparisons}
    if "audit" in selections:
        found.append(
            Method(
                "estimates from an audit",
                "The audited reviews are a simple random sample of the job, drawn by a seeded hash; intervals are "
                "for this job: exact hypergeometric for shares, finite population correction for the others "
                "(Cochran 1977).",
            )
        )
    if "cascade" in kinds:
        found.append(
            Method(
                "estimates from an audit and a cascade",
                "The oracle saw every escalated review and a sample of the others, so the others are weighted up by "
                "the adapter's label (post-stratification: Cochran 1977; Feder 2006). Pooled unweighted, kappa would "
                "come out far too low.",
            )
        )
    if data.certificate is not None:
        found.append(
            Method(
                "certificate",
                "Reviews are ranked by score, equals by a seeded hash, before the oracle is asked. A simple random "
                "sample is labelled by it; the cut lies at the audited disagreement from which on more than the "
                "allowed ones may be left, by the hypergeometric distribution. Nothing is assumed of the scores. "
                "`loracle certify` works it out again.",
            )
        )
    if "many" in kinds:
        found.append(
            Method(
                "Fleiss' kappa",
                "Agreement of three raters beyond chance (Fleiss 1971); interval by linearisation (Gwet 2008).",
            )
        )
    if any(one.gold is not None and one.gold.calibration for one in data.comparisons):
        found.append(
            Method(
                "calibration",
                "Bins of equal size; ECE is the mean gap between score and accuracy (Guo et al. 2017), its band a "
                "simulation with a fixed seed; the debiased root mean square gap takes off what chance adds (Kumar, "
                "Liang, Ma 2019). AUROC is the chance that a review of a label scores higher for it than one of "
                "another.",
            )
        )
    found.append(
        Method(
            "reviews per second",
            "Labelled reviews over the time from enqueueing to the last label: waiting, the loading of the model and "
            "pauses count.",
        )
    )
    return found


def statements(job_id: int) -> Sequence[tuple[str, str]]:
    """SQL that gets at the rows behind this page."""
    return (
        (
            "Every review with its final label",
            f"SELECT * FROM results WHERE job_id = {job_id} ORDER BY row_no;",
        ),
        (
            "Label shares by source",
            f"SELECT source, label, count(*) FROM results WHERE job_id = {job_id} GROUP BY source, label;",
        ),
        (
            "The stored agreement, as JSON",
            f"SELECT raters, selection, slice, n, statistics FROM agreements WHERE job_id = {job_id};",
        ),
        ("What each scorer took", f"SELECT * FROM costs WHERE job_id = {job_id};"),
        (
            "What was wrong by gold, with texts",
            "SELECT r.row_no, r.gold_label, r.label, r.score, v.text FROM results r JOIN reviews v "
            f"ON v.job_id = r.job_id AND v.row_no = r.row_no\nWHERE r.job_id = {job_id} "
            "AND r.label <> r.gold_label ORDER BY r.score DESC;",
        ),
        (
            "Records that couldn't be read",
            f"SELECT line_no, row_no, reason FROM rejects WHERE job_id = {job_id} ORDER BY row_no;",
        ),
    )
