"""`make simulate`: how often the guarantee of a cascade holds, and what it takes, against other rules.

Made-up scores of three kinds at three sizes, for an adapter with which the oracle agrees on 92 % of the reviews; and
the real scores of a job with gold labels and two labels (LORACLE_SIMULATE_JOB), with an oracle that is gold but
for 4 % of noise. Every cell is replayed, each time with another oracle and another audit.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import rivals
from worker.agreement.columns import NONE
from worker.agreement.guarantee import cut, terms
from worker.settings import read_settings
from worker.store.engine import make_engine
from worker.store.queries import Queries

DELTA = 0.05
KINDS = ("calibrated", "over-confident", "domain-shifted")
SIZES = (10_000, 100_000, 1_000_000)
NOISE = 0.04

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass
class Cell:
    """The replays of a rule: how often enough labels agreed, and the share that the oracle labelled."""

    kind: str
    n: int
    target: float
    rule: str
    runs: int = 0
    held: int = 0
    asked: float = 0.0

    def add(self, asked: Flags, differs: Flags) -> None:
        self.runs += 1
        left = int((differs & ~asked).sum())
        self.held += left <= math.floor((1 - self.target) * self.n + 1e-9)
        self.asked += float(asked.mean())


def made_up(kind: str, n: int, generator: np.random.Generator) -> tuple[Scores, Scores]:
    """Scores (N,), falling, and the chance (N,) that the oracle agrees: 0.92 on average.

    `calibrated`: the score is the chance. `over-confident`: the chance of error is four times what the score says.
    `domain-shifted`: for three in ten reviews the score says nothing.
    """
    easy = generator.random(n) < 0.8
    agree = np.where(easy, generator.beta(60, 0.7, n), generator.uniform(0.5, 0.9, n))
    agree = np.clip(agree + 0.92 - agree.mean(), 0.02, 1.0)
    scores = agree.copy()
    if kind == "over-confident":
        scores = 1 - (1 - agree) / 4
    elif kind == "domain-shifted":
        blind = np.flatnonzero(generator.random(n) < 0.3)
        scores[blind] = agree[generator.permutation(blind)]
    order = np.argsort(-scores, kind="stable")
    return scores[order], agree[order]


def ours(differs: Flags, target: float, generator: np.random.Generator) -> Flags:
    """What the oracle labels under the guarantee."""
    n = len(differs)
    fixed = terms(n, n, target=target, delta=DELTA)
    audited = np.zeros(n, dtype=bool)
    audited[generator.choice(n, fixed.sample, replace=False)] = True
    return audited | (np.arange(n) >= cut(fixed, audited, differs))


def replay(
    kind: str,
    target: float,
    scores: Scores,
    oracle: Callable[[np.random.Generator], Flags],
    runs: int,
    seed: int,
    *,
    alone: bool,
) -> list[Cell]:
    """Each rule on the same oracles, or the guarantee `alone`."""
    n = len(scores)
    generator = np.random.default_rng(seed)
    sample = terms(n, n, target=target, delta=DELTA).sample
    rules: dict[str, Callable[[Flags], Flags]] = {
        "guarantee": lambda differs: ours(differs, target, generator),
        "trust the score": lambda _: rivals.trust_the_score(scores, target),
        "normal bound (SUPG, LOTUS)": lambda differs: rivals.normal_bound(
            differs, target, DELTA, sample, generator
        ),
        "BARGAIN": lambda differs: rivals.bargain(differs, target, DELTA, generator),
    }
    cells = [Cell(kind, n, target, rule) for rule in (["guarantee"] if alone else rules)]
    for _ in range(runs):
        differs = oracle(generator)
        for cell in cells:
            cell.add(rules[cell.rule](differs), differs)
    return cells


def cells(runs: int, sizes: Sequence[int], *, alone: bool) -> Iterator[Cell]:
    """Those of these sizes, as they are done, and those of the job."""
    for place, size in enumerate(SIZES):
        for kind in KINDS if size in sizes else ():
            scores, agree = made_up(kind, size, np.random.default_rng(size))
            yield from replay(
                kind, 0.95, scores, lambda one, agree=agree: one.random(len(agree)) > agree, runs,
                seed=10 * place + KINDS.index(kind), alone=alone,
            )  # fmt: skip
    job = os.environ.get("LORACLE_SIMULATE_JOB")
    if job:
        raters = Queries(make_engine(read_settings().database)).raters(int(job))
        known = (raters.gold != NONE) & (raters.adapter != NONE)
        order = np.argsort(-raters.adapter_score[known], kind="stable")
        wrong = (raters.gold != raters.adapter)[known][order]
        for target in (0.95, 0.97):
            yield from replay(
                f"of job {job}", target, raters.adapter_score[known][order],
                # With two labels a noisy oracle says the other one.
                lambda one: wrong ^ (one.random(len(wrong)) < NOISE), runs, seed=100, alone=alone,
            )  # fmt: skip


def table(found: list[Cell]) -> str:
    """One row per kind, size and rule."""
    lines = [
        "| scores | reviews | target | rule | replays | held | labelled by the oracle |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for one in found:
        held, asked = one.held / one.runs, one.asked / one.runs
        lines.append(
            f"| {one.kind} | {one.n:,} | {one.target:g} | {one.rule} | {one.runs:,} | {held:.3f} | {asked:.1%} |"
        )
    return "\n".join(lines) + "\n"


def draw(found: list[Cell], path: Path) -> None:
    """How often each rule held against what it took."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for rule in dict.fromkeys(one.rule for one in found):
        of_rule = [one for one in found if one.rule == rule]
        axes.scatter(
            [100 * one.asked / one.runs for one in of_rule],
            [one.held / one.runs for one in of_rule],
            label=rule,
            alpha=0.8,
        )
    axes.axhline(1 - DELTA, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("labelled by the oracle, per cent of the reviews")
    axes.set_ylabel("share of replays in which the target was reached")
    axes.set_title("Every dot a kind of scores and a size; the dashed line is what was asked for")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.simulate", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="of made-up jobs")
    parser.add_argument("--alone", action="store_true", help="the guarantee without other rules")
    parser.add_argument("--out", type=Path, help="a folder for guarantee.md and guarantee.png")
    options = parser.parse_args()
    found: list[Cell] = []
    began = time.monotonic()
    for cell in cells(options.runs, options.sizes, alone=options.alone):
        found.append(cell)
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {table([cell]).splitlines()[-1]}\n")
        sys.stderr.flush()
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "guarantee.md").write_text(table(found))
    sys.stdout.write(table(found))
    if options.out:
        draw(found, options.out / "guarantee.png")


if __name__ == "__main__":
    main()
