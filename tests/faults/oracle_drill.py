"""One seeded drill of the openai lane: threads ask a faulty server, die at random, and the ledger is audited.

`Killed` stands for a process that is gone: nothing after it runs, and its lease runs out.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from tests.contract.asking import ask, sums_agree
from tests.contract.enqueued import sql
from tests.fake_openai import FakeOpenAI, Fault, rule_label
from tests.fake_openai.faults import QUOTA_CODES, TRANSIENT
from tests.unit import oracles
from worker.jobs.asking import ask_prompt
from worker.oracle.asking import OracleScorer
from worker.oracle.throttle import RedisThrottle, connect
from worker.reviews import Answer, Prompt
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.packing import PackRule
from worker.store.queries import Queries

FAULTS = (
    *TRANSIENT,
    Fault("hang", seconds=5),
    Fault("rate_limit", retry_after_ms="20"),
    Fault("rate_limit", code="slow_down"),
    Fault("refusal"),
    Fault("refuse_one"),
    Fault("content_filter"),
    Fault("length"),
    Fault("extra_one"),
    Fault("wrong_label"),
    Fault("shuffled"),
    Fault("bad_request"),
    Fault("unsupported", param="store"),
    Fault("unsupported", param="reasoning_effort"),
    *(Fault("quota", code=code) for code in QUOTA_CODES),
)
POISONS = (
    Fault("refusal"),
    Fault("content_filter"),
    Fault("wrong_keys"),
    Fault("bad_request"),
    Fault("status"),
)
REVIEWS = 60
WORKERS = 3
MOST_ROUNDS = 30_000
"""Of sweeping, at 20 ms and more: only a drill that hangs has so many."""


class Killed(BaseException):
    """The process is gone."""


def expire(engine: Engine, batch_id: int) -> None:
    """The batch's lease is over."""
    sql(engine, "UPDATE batches SET lease_until = 0 WHERE id = :id AND state = 'running'", id=batch_id)


class Dying:
    """A part of the ledger that dies before or after the commit of some steps."""

    def __init__(self, part: Any, steps: Collection[str], chance: random.Random, share: float) -> None:
        self._part, self._steps, self._chance, self._share = part, steps, chance, share
        self._watch = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._part, name)
        if name not in self._steps:
            return step

        def work(*arguments: Any, **options: Any) -> Any:
            self._maybe_die()
            found = step(*arguments, **options)
            self._committed(*arguments)
            self._maybe_die()
            return found

        return work

    def _committed(self, *arguments: Any) -> None:
        """The step has come to its end."""

    def _maybe_die(self) -> None:
        with self._watch:
            dead = self._chance.random() < self._share
        if dead:
            raise Killed


class DyingPrompts(Dying):
    """Writes down what was saved when."""

    def __init__(self, part: Any, chance: random.Random, share: float, server: FakeOpenAI) -> None:
        super().__init__(part, ["save"], chance, share)
        self._server = server
        self.saved_at: dict[str, int] = {}

    def _committed(self, prompt: Prompt, answers: Mapping[int, Answer]) -> None:
        with self._watch, self._server.lock:
            for index in answers:
                self.saved_at[prompt.requests[index].text] = len(self._server.calls)


class Drill:
    """A database, a server, a throttle and some threads, all from one seed."""

    def __init__(self, seed: int, database: Path, valkey_url: str) -> None:
        self.chance = random.Random(seed)
        self.route = self.chance.choice(("decisions", "chat"))
        self.max_cost = self.chance.choice((None, None, 0.2, 0.02))
        tape = [
            self.chance.choice(FAULTS) if self.chance.random() < 0.5 else None
            for _ in range(self.chance.randrange(10, 60))
        ]
        poison = {f"review {self.chance.randrange(1, REVIEWS + 1)} ": self.chance.choice(POISONS)}
        self.server = FakeOpenAI(
            tape=tape, fail=self.chance.choice((0.0, 0.2)), seed=seed, poison=poison,
        )  # fmt: skip
        self.poison = next(iter(poison))
        self.engine = make_engine(f"sqlite:///{database}")
        self.ledger: Any = Ledger(self.engine, max_attempts=3, lease_s=60.0)
        share = self.chance.choice((0.0, 0.05))
        self.ledger.budgets = Dying(self.ledger.budgets, ["reserve"], self.chance, share)
        self.ledger.prompts = DyingPrompts(self.ledger.prompts, self.chance, share, self.server)
        self.queries = Queries(self.engine)
        self.client = connect(valkey_url)
        self.failures: list[BaseException] = []

    def run(self) -> None:
        """Until the job is over; then everything is looked at."""
        with self.server:
            scorer = oracles.oracle(
                self.server, self.route, timeout_s=1.0, reviews_per_prompt=10
            )  # fmt: skip
            gate = RedisThrottle(
                self.client, base_url=self.server.url, model="gpt-6-luna", concurrency=WORKERS
            )
            job = ask(self.ledger, REVIEWS, oracle=scorer.identity, max_cost=self.max_cost)
            stop = threading.Event()
            threads = [threading.Thread(target=self._work, args=(scorer, gate, stop)) for _ in range(WORKERS)]
            for thread in threads:
                thread.start()
            try:
                self._sweep_until(lambda: self._is_over(job.id))
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            if self.failures:
                raise self.failures[0]
            self._audit(job.id)
        self.client.close()
        self.engine.dispose()

    def _is_over(self, job_id: int) -> bool:
        found = self.queries.jobs.get(job_id)
        unusable = ("refuses every request", "no answer of the server can be used")
        if found.state == "stopped" and any(words in str(found.error) for words in unusable):
            # The tape had so many refusals in a row that the server seemed to answer nothing.
            self.ledger.jobs.retry(job_id)
            return False
        return found.state in ("done", "stopped")

    def _sweep_until(self, over: Callable[[], bool]) -> None:
        for _ in range(MOST_ROUNDS):
            if over() or self.failures:
                return
            self.ledger.packing.pack(lambda scorer_id: PackRule(10, 1000, 0.0))
            self.ledger.publishing.sweep("openai", queue_empty=True, publish_again_after_s=0.3)
            threading.Event().wait(0.02)
        raise AssertionError(f"the job never ended: {self.queries.jobs.progress(1)}")

    def _work(self, scorer: OracleScorer, gate: RedisThrottle, stop: threading.Event) -> None:
        task = f"task of {threading.get_ident()}"
        while not stop.is_set():
            batch_ids = self.ledger.publishing.choose("openai", window=1)
            for batch_id in batch_ids:
                try:
                    ask_prompt(
                        batch_id,
                        ledger=self.ledger,
                        oracle_for=lambda scorer_id: scorer,
                        gate_for=lambda scorer: gate,
                        publish=lambda lane, batch_ids: None,
                        window=1,
                        retry_delay_s=0.05,
                        task_id=task,
                        goes_on=lambda: not stop.is_set(),
                    )
                except Killed:
                    # Its lease is over, as it would be after a minute.
                    self.ledger.prompts.expire_lease(task)
                    continue
                except Exception as error:
                    self.failures.append(error)
                    return
            stop.wait(0.02)

    def _audit(self, job_id: int) -> None:
        rows = list(self.queries.results.iterate(job_id, with_text=True))
        assert len(rows) == REVIEWS
        job = self.queries.jobs.get(job_id)
        for row in rows:
            if row["label"] is None:
                assert row["error"], f"row {row['row_no']} has neither a label nor a reason"
            else:
                assert row["label"] == rule_label(row["text"], oracles.LABELS)[0], "a guess"
                assert row["error"] is None
        unlabelled = [row for row in rows if row["label"] is None]
        if job.state == "done":
            # Only the poisonous one, and what a fault hit again when it stood alone.
            assert len(unlabelled) <= 8
            assert any(self.poison in row["text"] for row in unlabelled)
        else:
            assert self.max_cost is not None
            assert "budget" in str(job.error)
        billed = oracles.PRICE.cost(*self.server.billed).dollars
        assert job.spent >= billed, "more was billed than the ledger knows"
        if self.max_cost is not None:
            assert job.spent <= self.max_cost
        assert sums_agree(self.engine)
        later: Counter[str] = Counter()
        for number, call in enumerate(self.server.calls):
            later.update(
                text
                for text in call.texts
                if number >= self.ledger.prompts.saved_at.get(text, len(self.server.calls))
            )
        assert not later, f"asked again after it was saved: {later}"
