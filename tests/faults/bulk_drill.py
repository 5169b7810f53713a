"""One seeded drill of the Batch API: a faulty server, deaths around every step, and an audit of what was sent."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from tests.contract.asking import ask, sums_agree
from tests.fake_openai import BatchPlan, FakeOpenAI, Fault, rule_label
from tests.faults.oracle_drill import MOST_ROUNDS, Dying, Killed, expire
from tests.unit import oracles
from tests.unit.oracles import FreePass
from worker.jobs.asking import ask_prompt
from worker.oracle.bulk import BulkScorer
from worker.store.budgets import spent_by_all
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.packing import PackRule
from worker.store.queries import Queries

REVIEWS = 60
WORKERS = 2
ROUTES = (
    "POST /v1/files",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/{}",
    "GET /v1/files/{}/content",
)
STEPS = ("begin", "note_upload", "note_submission", "wait", "collect", "submit_again", "split")
PLANS = (
    BatchPlan(),
    BatchPlan(polls=3),
    BatchPlan(drop=2),
    BatchPlan(fail_lines=2),
    BatchPlan(odd_lines=2),
    BatchPlan(usage=False),
    BatchPlan(output_file=False),
    BatchPlan(status="expired", answered=0.5),
    BatchPlan(status="cancelled", answered=0.3),
    BatchPlan(status="failed", errors=("token_limit_exceeded",)),
)


class BulkDrill:
    """A database, a server and some threads, all from one seed."""

    def __init__(self, seed: int, database: Path) -> None:
        self.chance = random.Random(seed)
        self.max_cost = self.chance.choice((None, None, 0.5, 0.02))
        faults = {route: [self._fault() for _ in range(40)] for route in ROUTES}
        self.server = FakeOpenAI(
            batches=[self.chance.choice(PLANS) for _ in range(12)], shelf_faults=faults, seed=seed
        )
        self.engine = make_engine(f"sqlite:///{database}")
        self.ledger: Any = Ledger(self.engine, max_attempts=3, lease_s=60.0)
        share = self.chance.choice((0.0, 0.05, 0.1))
        self.ledger.budgets = Dying(self.ledger.budgets, ["reserve"], self.chance, share)
        self.ledger.bulks = Dying(self.ledger.bulks, STEPS, self.chance, share)
        self.queries = Queries(self.engine)
        self.failures: list[BaseException] = []

    def _fault(self) -> Fault | None:
        return self.chance.choice(
            (None, None, None, Fault("reset"), Fault("status", status=503), Fault("status", status=500))
        )

    def run(self) -> None:
        """Until the jobs are over; then everything is looked at."""
        with self.server:
            scorer = oracles.bulk(self.server, reviews_per_prompt=self.chance.choice((1, 4)))
            texts = [f"review {self.chance.randrange(40)} of good and bad" for _ in range(REVIEWS)]
            first = ask(self.ledger, REVIEWS, oracle=scorer.identity, max_cost=self.max_cost, texts=texts)
            second = ask(self.ledger, REVIEWS, oracle=scorer.identity, texts=texts)
            stop = threading.Event()
            threads = [threading.Thread(target=self._work, args=(scorer, stop)) for _ in range(WORKERS)]
            for thread in threads:
                thread.start()
            try:
                self._sweep((first.id, second.id))
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            if self.failures:
                raise self.failures[0]
            for job_id in (first.id, second.id):
                self._audit(job_id)
        self.engine.dispose()

    def _sweep(self, job_ids: tuple[int, ...]) -> None:
        for _ in range(MOST_ROUNDS):
            if self.failures or all(self.queries.jobs.state(one) in ("done", "stopped") for one in job_ids):
                return
            self.ledger.packing.pack(lambda scorer_id: PackRule(30, 1000, 0.0, bulk=True))
            self.ledger.publishing.sweep("openai", queue_empty=True, publish_again_after_s=0.3)
            threading.Event().wait(0.02)
        raise AssertionError(f"the jobs never ended: {[self.queries.jobs.progress(one) for one in job_ids]}")

    def _work(self, scorer: BulkScorer, stop: threading.Event) -> None:
        while not stop.is_set():
            for batch_id in self.ledger.publishing.choose("openai", window=1):
                try:
                    ask_prompt(
                        batch_id,
                        ledger=self.ledger,
                        oracle_for=lambda scorer_id: scorer,
                        gate_for=lambda scorer: FreePass(),
                        publish=lambda lane, batch_ids: None,
                        window=1,
                        retry_delay_s=0.05,
                        poll_s=0.02,
                    )
                except Killed:
                    # Its lease is over, as it would be after a minute.
                    expire(self.engine, batch_id)
                    continue
                except Exception as error:
                    self.failures.append(error)
                    return
            stop.wait(0.02)

    def _audit(self, job_id: int) -> None:
        job = self.queries.jobs.get(job_id)
        for row in self.queries.results.iterate(job_id, with_text=True):
            if row["label"] is None:
                assert row["error"], f"row {row['row_no']} has neither a label nor a reason"
            else:
                assert row["label"] == rule_label(row["text"], oracles.LABELS)[0], "a guess"
                assert row["error"] is None
        if job.max_cost is not None:
            assert job.spent <= job.max_cost
        assert sums_agree(self.engine)
        with self.engine.connect() as connection:
            known = spent_by_all(connection)
        assert known >= oracles.PRICE.halved().cost(*self.server.billed), "more was billed than is known"
        keys = Counter(batch["metadata"]["client_key"] for batch in self.server.shelf.batches.values())
        assert max(keys.values(), default=1) == 1, "a Bulk was submitted twice"
