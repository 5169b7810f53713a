"""The faults of which a storm draws: each strikes a running mix of jobs once, and proves that it did."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from subprocess import Popen

from tests.contract.asking import ask
from tests.fake_openai import FakeOpenAI, Fault
from tests.faults.nemesis.brokers import cut_connections
from tests.faults.nemesis.databases import KILLED, enqueue, write_csv
from tests.faults.nemesis.servers import terminate_all
from tests.faults.nemesis.stage import Stage, freeze, mains, some_time
from tests.faults.scenario import DidNotStrikeError
from tests.integration.site import HANG_S, assert_gone, family, kill_all, reviews, scoring_children
from tests.unit import oracles
from worker.scorers.stub import KILL

LEASE_S = 4.0
LANES: tuple[tuple[str, ...], ...] = ((), (), ("--lane", "openai", "--concurrency", "4"))
"""Two workers that score and one that asks."""
CASCADE = "cascade --below 0.8 --audit 0.1 --audit-seed 0"
BAD_DAY: tuple[Fault | None, ...] = (
    None, None, None, Fault("status", status=500), Fault("status", status=503), Fault("rate_limit"), Fault("reset"),
    Fault("truncated"), Fault("hang", seconds=0.5), Fault("wrong_keys"), Fault("missing_one"), Fault("slow_headers"),
)  # fmt: skip
"""None tells when to come back: requests that are under way at once can't obey it."""


@dataclass
class Mix:
    """Jobs of every kind on a stage, with three workers. `poison`: the text that no child bears."""

    stage: Stage
    server: FakeOpenAI
    poison: str = KILL
    workers: list[Popen[bytes]] = field(default_factory=list)
    jobs: list[int] = field(default_factory=list)
    failing: set[tuple[int, int]] = field(default_factory=set)
    _texts: int = 0

    def begin(self, *, scored: int = 300, asked: int = 60) -> None:
        """An adapter job, a cascade with an audit, a Bulk, and the workers."""
        self.feed(scored)
        self.feed_oracle(asked, policy=CASCADE)
        self.feed_oracle(asked, bulk=True)
        self.workers = [self.stage.site.start(*lane) for lane in LANES]

    def texts(self, count: int) -> list[str]:
        """So many texts that no other job has."""
        first, self._texts = self._texts, self._texts + count
        return [f"{text}, good or bad" for text in reviews(count, first)]

    def feed(self, count: int, *, batch_size: int = 10) -> None:
        """One more adapter job."""
        self.jobs.append(self.stage.site.enqueue(self.texts(count), batch_size=batch_size))

    def feed_oracle(
        self, count: int, *, policy: str = "oracle", bulk: bool = False, batch_size: int = 10
    ) -> None:
        """One more job that asks about every review, or those that its policy names."""
        oracle = oracles.spec(self.server, "bulk" if bulk else "chat", reviews_per_prompt=5).identity
        ledger = self.stage.site.store.ledger
        texts = self.texts(count)
        ask(ledger, count, oracle=oracle, policy=policy, batch_size=batch_size, texts=texts)

    def keep_alive(self) -> None:
        """Starts every worker that has ended, as whoever watches over a host does."""
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[place] = self.stage.site.start(*LANES[place])

    def labelled(self) -> None:
        """Fails unless each adapter job has every label once."""
        for job_id in self.jobs:
            self.stage.site.assert_each_label_once(job_id)


Strike = Callable[[Mix, random.Random], None]


def kill_a_worker(mix: Mix, chance: random.Random) -> None:
    place = chance.randrange(len(mix.workers))
    worker = mix.workers[place]
    processes = family(worker.pid)
    kill_all(worker.pid)
    _struck(worker.wait() == KILLED)
    assert_gone(processes)
    some_time(chance, 1.0)
    mix.keep_alive()


def kill_a_child(mix: Mix, chance: random.Random) -> None:
    children = scoring_children(chance.choice(mix.workers[:2]).pid)
    _struck(children)
    children[0].kill()
    assert_gone(children[:1])


def freeze_past_the_lease(mix: Mix, chance: random.Random) -> None:
    # Of the lane that scores: one that asks may send its next request before it notices.
    frozen = family(chance.choice(mix.workers[:2]).pid)
    freeze(frozen)
    time.sleep(LEASE_S + chance.uniform(0.5, 2.0))
    stopped = [one for one in frozen if one.is_running() and one.status() == "stopped"]
    freeze(frozen, signal.SIGCONT)
    _struck(stopped)


def stop_and_start(mix: Mix, chance: random.Random) -> None:
    worker = chance.choice(mix.workers)
    _struck(worker.poll() is None)
    processes = family(worker.pid)
    worker.send_signal(signal.SIGTERM)
    code = worker.wait(HANG_S)
    # One that was hit before it could listen is just dead.
    assert code in (0, -signal.SIGTERM), f"exit code {code} after SIGTERM"
    assert_gone(processes)
    mix.keep_alive()


def quit_at_once(mix: Mix, chance: random.Random) -> None:
    worker = chance.choice(mix.workers)
    mix.stage.until_main(worker)
    found = mains(worker)
    _struck(found)
    found[0].send_signal(signal.SIGQUIT)
    assert_gone(found[:1])
    mix.keep_alive()


def crash_the_queue(mix: Mix, chance: random.Random) -> None:
    pid = mix.stage.broker.pid
    mix.stage.broker.crash()
    some_time(chance, 3.0)
    mix.stage.broker.start()
    _struck(mix.stage.broker.pid != pid)


def wipe_the_queue(mix: Mix, chance: random.Random) -> None:
    with mix.stage.broker.client() as client:
        keys = int(client.dbsize())
        client.flushall()
    _struck(keys)


def cut_the_connections(mix: Mix, chance: random.Random) -> None:
    _struck(cut_connections(mix.stage))


def swallow_everything(mix: Mix, chance: random.Random) -> None:
    before = mix.stage.hole.held_back
    mix.stage.hole.close()
    time.sleep(chance.uniform(1.0, 6.0))
    mix.stage.hole.open()
    _struck(mix.stage.hole.held_back > before)


def end_all_sessions(mix: Mix, chance: random.Random) -> None:
    _struck(terminate_all(mix.stage.database_url))


def kill_enqueue(mix: Mix, chance: random.Random) -> None:
    name = f"file{chance.getrandbits(32)}.csv"
    # Texts of its own: the same ones would be the same job.
    path = write_csv(mix.stage.site.home / name, mix.texts(500))
    killed = enqueue(mix.stage, path)
    mix.stage.site.until(
        lambda: killed.poll() is not None or mix.stage.rows(f"SELECT 1 FROM jobs WHERE name = '{name}'")
    )
    killed.kill()
    struck = killed.wait() == KILLED
    assert enqueue(mix.stage, path).wait(HANG_S) == 0
    [(jobs, rows)] = mix.stage.rows(
        f"SELECT count(DISTINCT j.id), count(*) FROM jobs j JOIN reviews r ON r.job_id = j.id WHERE j.name = '{name}'"
    )
    assert (jobs, rows) == (1, 500)
    _struck(struck)


def have_a_bad_day(mix: Mix, chance: random.Random) -> None:
    tape = [chance.choice(BAD_DAY) for _ in range(10)]
    with mix.server.lock:
        mix.server.tape[:] = tape
    mix.feed_oracle(20)
    mix.stage.site.until(lambda: len(mix.server.tape) < len(tape))
    _struck(any(tape[: len(tape) - len(mix.server.tape)]))


def add_a_poison(mix: Mix, chance: random.Random) -> None:
    texts = mix.texts(4)
    row_no = chance.randrange(1, 5)
    texts[row_no - 1] = f"review {chance.getrandbits(32)} {mix.poison}"
    job_id = mix.stage.site.enqueue(texts, batch_size=2, priority=1)
    mix.failing.add((job_id, row_no))
    mix.stage.site.until(
        lambda: mix.stage.rows(f"SELECT 1 FROM batches WHERE job_id = {job_id} AND attempts > 0")
    )


def wake_three_sweepers(mix: Mix, chance: random.Random) -> None:
    found = [main for worker in mix.workers for main in mains(worker)]
    freeze(found)
    time.sleep(chance.uniform(0.5, 2.0))
    stopped = [one for one in found if one.is_running() and one.status() == "stopped"]
    freeze(found, signal.SIGCONT)
    _struck(len(stopped) == len(LANES))


FAULTS: Mapping[str, Strike] = {
    strike.__name__.replace("_", " "): strike
    for strike in (
        kill_a_worker, kill_a_child, freeze_past_the_lease, stop_and_start, quit_at_once, crash_the_queue,
        wipe_the_queue, cut_the_connections, swallow_everything, end_all_sessions, kill_enqueue,
        have_a_bad_day, add_a_poison,
        wake_three_sweepers,
    )
}  # fmt: skip
POSTGRES_ONLY = "end all sessions"


def _struck(found: object) -> None:
    if not found:
        raise DidNotStrikeError
