"""Whatever happens to jobs, workers, queues, money and time, in any order: the ledger holds what its model holds.

When it is over, honest workers can work off what is left. LORACLE_MODEL_EXAMPLES sets the number of examples.
"""

from __future__ import annotations

import os
from contextlib import closing

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine

from tests.contract.clock import engine_with_clock
from tests.contract.machine import LANES, Worker, final_label
from tests.contract.machine_oracle import OracleRules
from tests.contract.model_oracle import Rule
from tests.contract.seen import Eye
from worker.reviews import Score

EXAMPLES = int(os.environ.get("LORACLE_MODEL_EXAMPLES", "30"))
ROUNDS = 40
"""So many sweeps, an age apart, end every job."""
AGE_S = 1000.0


class WholeLedger(OracleRules):
    """All rules, and the end."""

    def teardown(self) -> None:
        """However it went: nothing is lost, and what isn't cancelled or deleted comes to an end."""
        self.limit = None
        for job_id, job in sorted(self.model.jobs.items()):
            if job.state == "deleting" or job.texts == "deleting":
                self.delete_job(job_id, texts_only=job.state != "deleting")
            elif job.state == "stopped" and job.texts == "kept":
                self.retry_job(job_id)
        for job_id in self.reading():
            self.seal_job(job_id)
        rounds = 0
        while any(job.active for job in self.model.jobs.values()):
            rounds += 1
            assert rounds < ROUNDS, "the jobs don't come to an end"
            self.work_off()
        for job_id, job in self.model.jobs.items():
            if job.state in ("done", "stopped") and job.texts == "kept":
                for row_no, row in job.rows.items():
                    label = final_label(self.model.seen, (job_id, row_no))
                    assert (label is None) == (row.error is not None), f"{job_id}, {row_no}: {row}"

    def work_off(self) -> None:
        """Time passes, what went missing is found again, and honest workers take what there is."""
        self.clock.move(AGE_S)
        for lane in LANES:
            self.queues[lane].clear()
            self.sweep_lane(lane, queue_empty=True)
        self.pack_due(Rule(size=3, waiting=1000, after_s=0.0, bulk=False))
        for lane in LANES:
            while batch_ids := self.publish_waiting(lane):
                for batch_id in batch_ids:
                    worker = self.claim(lane, batch_id, whatever_waits=False)
                    if worker is not None:
                        self.work(worker)

    def work(self, worker: Worker) -> None:
        if worker.lane == "adapter":
            self.finish_batch(worker, [Score("pos", 0.9)] * len(worker.batch.reviews))
            return
        everything = list(range(len(worker.prompt.requests)))
        bulk = self.model.batches[worker.held.id].bulk
        if bulk is not None and bulk.remote is not None:
            self.collect(worker, everything, "pos", None)
        elif bulk is not None and (bulk.creating_at is not None or self.upload(worker)):
            self.submit(worker)
        elif bulk is not None and len(everything) > 1:
            self.bulk_step(worker, "split")
        elif bulk is None and self.reserve(worker, everything, None):
            self.save(worker, everything, "pos")
        else:
            if bulk is not None:
                self.bulk_step(worker, "abandon")
            self.stop_asking(list(worker.prompt.job_ids), "no money")
            if bulk is None:
                self.give_back(worker, counts=False, delay_s=0.0)


def test_any_order_of_events_leaves_the_ledger_as_its_model(database_url: str) -> None:
    with engine_with_clock(database_url) as (engine, clock), closing(Eye(engine)) as eye:
        machine = type("OnThisDatabase", (WholeLedger,), {"engine": engine, "clock": clock, "eye": eye})
        run_machine(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
