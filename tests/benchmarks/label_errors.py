"""Planted label errors found again: our estimate beside cleanlab's (extra `bench`), on the scores of a stored job.

`LORACLE_BENCH_JOB=1 python -m tests.benchmarks labels`: a job with gold labels, in the database of LORACLE_HOME.
Wrong labels that the file has of its own count as right: they weren't planted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import NONE, Raters
from worker.agreement.label_errors import label_errors
from worker.settings import read_settings
from worker.store.engine import make_engine
from worker.store.queries import Queries

TOP = 0.01
REPLAYS = 20
ORACLE_ERRS = 0.04
SHARPER = 2.5
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """How often gold is wrong of the first and the second label; the adapter's logits are multiplied by `sharper`,
    and an oracle labels the share `asked`."""

    name: str
    noise: tuple[float, float]
    asked: float = 0.0
    sharper: float = 1.0


CASES = (
    Case("4 % wrong", (0.04, 0.04)),
    Case("1 % wrong", (0.01, 0.01)),
    Case("1 % and 7 % wrong, by label", (0.01, 0.07)),
    Case("4 % wrong, over-confident scores", (0.04, 0.04), sharper=SHARPER),
    Case("4 % wrong, an oracle that errs in 4 % labelled a tenth", (0.04, 0.04), asked=0.1),
)


def measure(*, job: int, replays: int = REPLAYS) -> Iterator[dict[str, Any]]:
    """A figure per case and rule: means over the replays."""
    whole = Queries(make_engine(read_settings().database)).raters(job)
    known = (whole.gold != NONE) & (whole.adapter != NONE) & ~np.isnan(whole.adapter_score)
    if len(whole.labels) != 2 or not known.any():
        raise SystemExit(f"job {job} needs two labels, gold labels and scores")
    raters = _only(whole, known)
    for case in CASES:
        runs: dict[str, list[dict[str, float]]] = {}
        for seed in range(replays):
            noisy, planted = _plant(raters, case, np.random.default_rng(seed))
            for rule, figures in _rules(noisy, planted):
                runs.setdefault(rule, []).append(figures)
        for rule, found in runs.items():
            means = {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}
            yield {"benchmark": "labels", "reviews": len(raters), "case": case.name, "rule": rule, **means}


def _only(raters: Raters, rows: Flags) -> Raters:
    columns = [field.name for field in dataclasses.fields(raters) if field.init and field.name != "labels"]
    return dataclasses.replace(raters, **{name: getattr(raters, name)[rows] for name in columns})


def _plant(raters: Raters, case: Case, draw: np.random.Generator) -> tuple[Raters, Flags]:
    n, gold = len(raters), raters.gold
    planted = draw.random(n) < np.array(case.noise)[gold]
    score = np.clip(raters.adapter_score, 1e-9, 1 - 1e-9)
    odds = (score / (1 - score)) ** case.sharper
    oracle = np.where(draw.random(n) < ORACLE_ERRS, 1 - gold, gold)
    oracle = np.where(draw.random(n) < case.asked, oracle, NONE)
    noisy = dataclasses.replace(
        raters,
        gold=np.where(planted, 1 - gold, gold).astype(np.int16),
        adapter_score=odds / (1 + odds),
        oracle=oracle.astype(np.int16),
    )
    return noisy, planted


def _rules(raters: Raters, planted: Flags) -> Iterator[tuple[str, dict[str, float]]]:
    found = label_errors(raters)
    yield "ours", {**_figures(found.chances, found.chances >= 0.5, planted), "expected": found.expected}
    against = np.where(raters.adapter != raters.gold, raters.adapter_score, 0.0)
    yield "the surest adapter that contradicts, 0.8 at least", _figures(against, against >= 0.8, planted)

    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    second = np.where(raters.adapter == 1, raters.adapter_score, 1 - raters.adapter_score)
    probabilities = np.column_stack((1 - second, second))
    labels = raters.gold.astype(np.int64)
    for by in ("prune_by_noise_rate", "confident_learning"):
        # One process: the planted labels are few, and a pool would cost more than it saves.
        issues = find_label_issues(labels, probabilities, filter_by=by, n_jobs=1)
        quality = get_label_quality_scores(labels, probabilities, method="normalized_margin")
        # Its list comes first, in the order of its ranking.
        yield f"cleanlab, {by}", _figures(issues + (1 - quality), issues, planted)


def _figures(ranking: NDArray[np.float64], issues: Flags, planted: Flags) -> dict[str, float]:
    order = np.argsort(-ranking, kind="stable")
    hits = planted[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    top = int(len(planted) * TOP)
    return {
        "planted": float(planted.sum()),
        "planted_in_top": float(hits[:top].mean()),
        "average_precision": float(precision[hits].mean()),
        "called_wrong": float(issues.sum()),
        "of_them_planted": float(planted[issues].mean()) if issues.any() else 0.0,
        "of_planted_called": float(issues[planted].mean()),
    }
