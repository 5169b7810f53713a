"""`python -m tests.contract.stored.make` writes a database of this version to `REVISION.sql` beside this file.

Run it once for every schema that is released, before the next migration is written, and never again: what it wrote
is what that version left behind. Only until the first release is the migration `initial` edited in place, and its
file made anew.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from tests.contract.asking import answer_all, answers, ask, claim_all, pack, pay
from tests.contract.enqueued import enqueue, finish, in_batches, spec, work_off
from tests.contract.test_deleting import nothing_left
from worker.jobs.deletion import delete_job
from worker.quality.measured import record_agreement
from worker.reviews import Correction, Reject, Review
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.schema import head_revision, upgrade

FOLDER = Path(__file__).parent


def fill(ledger: Ledger, queries: Queries) -> None:
    """A job in each state that lasts, and what hangs on them."""
    done, _ = ledger.jobs.open(spec(ledger, "done"))
    rows = [
        Review(n, f"text {n}, Zoë 👍", f"id{n}", "pos" if n % 3 else "neg", {"shop": "Rome", "stars": n})
        for n in range(1, 9)
    ]
    ledger.jobs.append(done.id, [*rows, Reject(9, 10, "it isn't UTF-8")], batches=in_batches(rows, 4))
    ledger.jobs.seal(done.id)
    for batch_id in ledger.publishing.choose("adapter", window=64):
        batch = ledger.batches.claim(batch_id, task_id=f"task {batch_id}")
        assert batch is not None
        finish(ledger, batch, frozenset({5}))
    record_agreement(done.id, ledger=ledger, queries=queries)
    ledger.corrections.save(done.id, [Correction(2, "neg", "ann", "a note")])
    ask(ledger, 6, policy="cascade --below 0.9 --audit 0.5 --audit-seed 3", max_cost=1.0)
    work_off(ledger)
    answer_all(ledger, frozenset({2}))
    for texts_only in (True, False):
        gone = enqueue(ledger, 3)
        work_off(ledger)
        delete_job(gone.id, texts_only=texts_only, ledger=ledger, forget=nothing_left)
    ledger.jobs.cancel(enqueue(ledger, 3).id)
    ledger.jobs.stop(enqueue(ledger, 3).id, "the adapter has lost its head")
    # A Prompt that is asked, and a Bulk that is out.
    asked = ask(ledger, 3)
    pack(ledger)
    (prompt,) = claim_all(ledger)
    assert prompt.job_ids == (asked.id,)
    pay(ledger, prompt, answers(prompt))
    ask(ledger, 3)
    pack(ledger, size=100, bulk=True)
    (bulk,) = claim_all(ledger)
    ledger.bulks.note_upload(bulk, "file-1")
    ledger.bulks.note_submission(bulk, "batch-1", poll_after_s=60)
    # One batch is done, one is held, one was given back, one is published, the others wait.
    running = enqueue(ledger, 22)
    held = [
        ledger.batches.claim(batch_id, task_id=f"t{batch_id}")
        for batch_id in ledger.publishing.choose("adapter", window=4)
    ]
    first, second, third = (batch for batch in held[:3] if batch is not None)
    assert second.job_id == running.id
    finish(ledger, first)
    ledger.batches.release(third, "the device was away", delay_s=0.0)
    enqueue(ledger, 4, sealed=False)
    ledger.faults.unfit(second, "host CPU (pid 1)", "there is no base model here")


def main() -> None:
    """Makes the database, fills it, writes it down."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loracle.db"
        engine = make_engine(f"sqlite:///{path}")
        upgrade(engine)
        fill(Ledger(engine, max_attempts=3, lease_s=60.0, unheard_after_s=600.0), Queries(engine))
        engine.dispose()
        with closing(sqlite3.connect(path)) as connection:
            # It is read years later, and must still be there.
            connection.execute("UPDATE worker_faults SET until = 4102444800.0")
            text = "\n".join(connection.iterdump())
    (FOLDER / f"{head_revision()}.sql").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
