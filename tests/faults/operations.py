"""What people who run it do to it: an older backup is restored in the middle of a job, a password is changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.faults.nemesis.stage import stage
from tests.faults.scenario import DidNotStrikeError, Scenario, Struck
from tests.integration.site import reviews

SLOW = {"LORACLE_STUB_DELAY_S": "0.1"}
AWAY, BACK = "Redis can't be reached", "Redis is back."


def backup_restored(seed: int, folder: Path) -> Struck:
    """The database is what it was some seconds ago; the queue isn't."""
    with stage(seed, folder, variables=SLOW) as one:
        site = one.site
        database, backup = site.home / "loracle.db", folder / "backup.db"
        job_id = site.enqueue(reviews(300))
        worker = site.start()
        site.wait_for_labels(job_id, one.chance.randrange(10, 60))
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        site.wait_for_labels(job_id, one.chance.randrange(80, 200))
        one.kill(worker)
        lost = one.labels()
        site.store.ledger.jobs.engine.dispose()
        for name in ("loracle.db", "loracle.db-wal", "loracle.db-shm"):
            (site.home / name).unlink(missing_ok=True)
        backup.rename(database)
        # What was written since the backup is gone, and so is the history of it.
        (site.home / "history.jsonl").unlink()
        lost -= one.labels()
        if lost <= 0:
            raise DidNotStrikeError
        site.expire_leases()
        site.start()
        recovery_s = one.until_label()
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        one.end()
        return Struck(recovery_s)


def password_changed(seed: int, folder: Path) -> Struck:
    """Redis asks for a password that nobody was told, until it is set back."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(300))
        site.start()
        site.wait_for_labels(job_id, one.chance.randrange(10, 60))
        with one.broker.client() as client:
            client.config_set("requirepass", "nobody-knows-it")
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
            site.until(lambda: AWAY in site.said)
            back = site.said.count(BACK)
            client.config_set("requirepass", "")
        site.until(lambda: site.said.count(BACK) > back)
        recovery_s = one.until_label()
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        assert "nobody-knows-it" not in site.said
        one.end()
        return Struck(recovery_s)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("an older backup is restored in the middle of a job", backup_restored, full=5),
    Scenario("Redis asks for another password for a while", password_changed, full=6),
)
