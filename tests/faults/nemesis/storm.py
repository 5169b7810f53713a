"""Random subsets of all faults in a random order over a mix of jobs; of a sequence that fails, the shortest part that
still does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fake_openai import FakeOpenAI
from tests.faults.nemesis.faults import FAULTS, LEASE_S, POSTGRES_ONLY, Mix
from tests.faults.nemesis.stage import stage
from tests.faults.scenario import DidNotStrikeError, Struck

MOST_FAULTS = 8
MOST_RERUNS = 12
"""Of a sequence that failed: each takes about as long as the run did."""
VARIABLES = {
    "LORACLE_LEASE_S": f"{LEASE_S:g}", "LORACLE_ORACLE_LEASE_S": f"{5 * LEASE_S:g}", "LORACLE_STUB_DELAY_S": "0.1",
    "LORACLE_STUB_POISON": "1", "LORACLE_MAX_ATTEMPTS": "5", "LORACLE_ORACLE_TIMEOUT_S": "10",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault, how long after the last one it comes, and the seed of what else is random in it."""

    fault: str
    after_s: float
    seed: int

    def __str__(self) -> str:
        return f"{self.fault} after {self.after_s:.1f} s ({self.seed})"


def plan(seed: int) -> list[Planned]:
    """The storm of a seed; an odd one is on PostgreSQL."""
    chance = random.Random(seed)
    names = [name for name in FAULTS if seed % 2 or name != POSTGRES_ONLY]
    chosen = [chance.choice(names) for _ in range(chance.randrange(3, MOST_FAULTS + 1))]
    return [Planned(name, chance.uniform(0, 3), chance.getrandbits(16)) for name in chosen]


def play(seed: int, folder: Path, planned: Sequence[Planned]) -> Struck:
    """The faults, one after the other, on a fresh stage; then everything must come right.

    Raises:
        DidNotStrikeError: none of them struck.
    """
    with (
        FakeOpenAI(seed=seed, latency_s=0.05) as server,
        stage(seed, folder, postgres=seed % 2 == 1, proxied=True, server=server, variables=VARIABLES) as one,
    ):
        mix = Mix(one, server)
        mix.begin()
        one.site.until(one.labels)
        struck = 0
        for fault in planned:
            time.sleep(fault.after_s)
            mix.keep_alive()
            if len(one.open_jobs()) < 2:
                mix.feed(200)
            try:
                FAULTS[fault.fault](mix, random.Random(fault.seed))
                struck += 1
            except DidNotStrikeError:
                continue
        if not struck:
            raise DidNotStrikeError
        mix.keep_alive()
        recovery_s = one.until_label()
        one.end(failing=frozenset(mix.failing))
        mix.labelled()
        # Where only a poison is left, nothing is labelled until it stands alone.
        return Struck(None if mix.failing else recovery_s)


def random_faults(seed: int, folder: Path) -> Struck:
    """A random storm. If it fails, its error names the shortest sequence found that fails too."""
    planned = plan(seed)
    try:
        return play(seed, folder / "storm", planned)
    except AssertionError as error:

        def fails(part: Sequence[Planned]) -> bool:
            again = folder / f"again{time.monotonic_ns()}"
            try:
                play(seed, again, part)
            except AssertionError:
                return True
            except DidNotStrikeError:
                return False
            return False

        shortest = shorten(planned, fails)
        told = "; ".join(map(str, shortest))
        raise AssertionError(f"seed {seed}, these faults: {told}: {error}") from error


def shorten(
    planned: Sequence[Planned], fails: Callable[[Sequence[Planned]], bool], *, most: int = MOST_RERUNS
) -> list[Planned]:
    """Drops one fault after the other as long as the rest fails; at most so many reruns."""
    left = list(planned)
    at = 0
    while at < len(left) and most:
        most -= 1
        part = left[:at] + left[at + 1 :]
        if part and fails(part):
            left = part
        else:
            at += 1
    return left
