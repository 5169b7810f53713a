"""Everything mixed for a long time: `python -m tests.faults.nemesis.soak --reviews 200000 --out FOLDER`.

All faults of the storm go on all the while. Three workers are struck by each of them; two more are spared what would
end a process, and their memory and descriptors must stay flat.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import psutil

from tests.fake_openai import FakeOpenAI
from tests.faults.nemesis.faults import FAULTS, LEASE_S, POSTGRES_ONLY, Mix
from tests.faults.nemesis.sampling import SERVER, Roles, Sampler, Trend, draw, trends
from tests.faults.nemesis.stage import Stage, command, mains, stage
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import scoring_children
from worker.scorers.stub import RAISE

JOB = 2_000
BATCH = 50
MOST_OPEN = 4
REST_S = 4.0
"""The longest time between two faults."""
LONG_LIVED = 0.6
"""A process that lived for this share of the time has a trend; the spared ones did."""
VARIABLES = {
    "LORACLE_LEASE_S": f"{LEASE_S:g}", "LORACLE_ORACLE_LEASE_S": f"{5 * LEASE_S:g}", "LORACLE_STUB_DELAY_S": "0.2",
    # Nothing but a poison fails so often.
    "LORACLE_MAX_ATTEMPTS": "40", "LORACLE_RETRY_DELAY_S": "0.05", "LORACLE_ORACLE_TIMEOUT_S": "10",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it. `struck` counts the faults."""

    took_s: float
    reviews: int
    struck: Counter[str]
    trends: list[Trend]


def soak(reviews: int, out: Path, *, seed: int = 0, postgres: bool = True) -> Soaked:
    """Labels so many reviews under all faults; writes samples, faults and a picture into the folder `out`.

    Raises:
        AssertionError: a promise was broken, or a long-lived process grew.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="lsk"))
    chance = random.Random(seed)
    faults: list[tuple[float, str]] = []
    with ExitStack() as stack:
        server = stack.enter_context(FakeOpenAI(seed=seed, latency_s=0.02))
        one = stack.enter_context(
            stage(seed, folder, postgres=postgres, proxied=True, server=server, variables=VARIABLES)
        )
        mix = Mix(one, server, poison=RAISE)
        spared = [one.site.start(), one.site.start("--lane", "openai", "--concurrency", "4")]
        mix.begin(scored=JOB)
        left = reviews - JOB
        sampler = stack.enter_context(Sampler(lambda: _roles(one, spared, mix.workers), out / "samples.csv"))
        one.site.until(one.labels)
        while left > 0 or len(one.open_jobs()) > MOST_OPEN:
            if left > 0 and len(one.open_jobs()) <= MOST_OPEN:
                left -= _feed(mix, chance)
            time.sleep(chance.uniform(0, REST_S))
            mix.keep_alive()
            name = chance.choice([name for name in FAULTS if postgres or name != POSTGRES_ONLY])
            try:
                FAULTS[name](mix, chance)
            except DidNotStrikeError:
                continue
            faults.append((sampler.now_s, name))
            _say(f"{sampler.now_s:6.0f} s  {name}; {one.labels():,} labels, {max(left, 0):,} reviews to come")
        mix.keep_alive()
        took_s = sampler.now_s
        _write(out, sampler, faults)
        assert [worker.poll() for worker in spared] == [None, None], "a worker that was spared has ended"
        one.end(failing=frozenset(mix.failing))
        mix.labelled()
    under_way = [sample for sample in sampler.samples if sample.at_s < took_s]
    found = trends(under_way, lived_s=LONG_LIVED * took_s)
    shutil.rmtree(folder)
    grown = [str(trend) for trend in found if not trend.is_flat]
    for trend in found:
        _say(f"{'flat ' if trend.is_flat else 'GROWN'} {trend}")
    assert found, "no process lived long enough"
    assert not grown, f"memory or descriptors grew by more than 5 %: {grown}"
    return Soaked(took_s, reviews, Counter(name for _, name in faults), found)


def run(seed: int, folder: Path) -> Struck:
    """A short one, as a scenario."""
    soak(20_000, folder / "soak", seed=seed, postgres=seed % 2 == 0)
    return Struck()


def _feed(mix: Mix, chance: random.Random) -> int:
    kind = chance.random()
    if kind < 0.8:
        mix.feed(JOB, batch_size=BATCH)
    elif kind < 0.95:
        mix.feed_oracle(JOB, policy="cascade --below 0.55 --audit 0.01 --audit-seed 0", batch_size=BATCH)
    else:
        mix.feed_oracle(JOB // 20, bulk=True)
        return JOB // 20
    return JOB


def _roles(one: Stage, spared: list[Popen[bytes]], struck: list[Popen[bytes]]) -> Roles:
    """Every process that is watched, by what it does; the spared come first in their names."""
    found: dict[str, psutil.Process] = {}
    for title, workers in (("spared", spared), ("struck", struck)):
        for number, worker in enumerate(workers, 1):
            for role, process in _parts(worker):
                found[f"{title} {number} {role}"] = process
    for process in _gone_is_none(one.broker.pid):
        found[SERVER] = process
    return found


def _parts(worker: Popen[bytes]) -> Iterator[tuple[str, psutil.Process]]:
    for process in _gone_is_none(worker.pid):
        yield "supervisor", process
    for main in mains(worker):
        yield ("openai lane" if "openai" in command(main) else "celery main"), main
    for child in scoring_children(worker.pid):
        yield "child", child


def _gone_is_none(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def _write(out: Path, sampler: Sampler, faults: list[tuple[float, str]]) -> None:
    with (out / "faults.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["at_s", "fault"])
        writer.writerows([f"{at_s:.2f}", name] for at_s, name in faults)
    draw(sampler.samples, faults, out / "soak.png")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nemesis.soak", description=__doc__)
    parser.add_argument("--reviews", type=int, default=200_000)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for samples.csv, faults.csv and soak.png"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sqlite", action="store_true", help="on SQLite instead of PostgreSQL")
    options = parser.parse_args()
    found = soak(options.reviews, options.out, seed=options.seed, postgres=not options.sqlite)
    _say(
        f"{found.reviews:,} reviews in {found.took_s / 60:.1f} minutes under {sum(found.struck.values())} faults:"
    )
    for name, times in found.struck.most_common():
        _say(f"  {times:4} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
