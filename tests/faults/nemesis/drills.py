"""Everything that can go wrong with the oracle, at random: threads that die around a faulty server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import services
from tests.fake_openai import BatchPlan, FakeOpenAI
from tests.faults.bulk_drill import BulkDrill
from tests.faults.checker import Seen, check
from tests.faults.crash.life import looking
from tests.faults.nemesis.servers import new_sqlite
from tests.faults.oracle_drill import Drill
from tests.faults.scenario import DidNotStrikeError, Struck
from worker.jobs import asking as job_asking
from worker.oracle import asking, throttle
from worker.quality.measured import measure_due
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries

WAITS: tuple[tuple[Any, str, float], ...] = (
    (throttle, "FIRST_PAUSE_S", 0.1), (throttle, "LONGEST_PAUSE_S", 0.3), (throttle, "QUOTA_PAUSE_S", 0.2),
    (throttle, "PROBE_S", 1.0), (throttle, "REMEMBERED_S", 0.1), (asking, "LONGEST_WAIT_S", 0.05),
    (job_asking, "PARKED_S", 0.1), (job_asking, "MONEY_UNDER_WAY_S", 0.05), (job_asking, "TOKEN_LIMIT_S", 0.05),
    # What the fake took it lists at once.
    (job_asking, "GRACE_S", 0.1),
)  # fmt: skip
"""The same waits as in production, but shorter."""
NANOS_A_TOKEN = (1000, 4000)

# What the drills' threads log is no news.
logging.getLogger("worker").addHandler(logging.NullHandler())


def oracle_misbehaves(seed: int, folder: Path) -> Struck:
    """Every kind of wrong answer, and workers that die: a label or a reason for each review, within the budget."""
    database = _database(folder)
    with hurried(), services.valkey() as valkey_url:
        drill = Drill(seed, database, valkey_url)
        drill.run()
    if not any(call.fault for call in drill.server.calls):
        raise DidNotStrikeError
    _check(database, drill.server)
    return Struck()


def bulk_is_sent_once(seed: int, folder: Path) -> Struck:
    """Workers die around upload, creation, polling and collecting, files come back short, shuffled or not at all."""
    database = _database(folder)
    with hurried():
        drill = BulkDrill(seed, database)
        before = {route: list(tape) for route, tape in drill.server.shelf_faults.items()}
        drill.run()
    shelf = drill.server.shelf
    faults = [
        fault
        for route, tape in before.items()
        for fault in tape[: len(tape) - len(drill.server.shelf_faults[route])]
        if fault is not None
    ]
    if not faults and all(plan == BatchPlan() for plan in shelf.planned.values()):
        raise DidNotStrikeError
    _check(database, drill.server)
    return Struck()


_users = 0
_entering = threading.Lock()
_usual: list[float] = []


@contextmanager
def hurried() -> Iterator[None]:
    """Short waits in this process, until the last of those who want them is done."""
    global _users
    with _entering:
        if not _users:
            _usual[:] = [getattr(module, name) for module, name, _ in WAITS]
            for module, name, wait_s in WAITS:
                setattr(module, name, wait_s)
        _users += 1
    try:
        yield
    finally:
        with _entering:
            _users -= 1
            if not _users:
                for (module, name, _), wait_s in zip(WAITS, _usual, strict=True):
                    setattr(module, name, wait_s)


def _database(folder: Path) -> Path:
    path = folder / "drill.db"
    new_sqlite(path)
    return path


def _check(database: Path, server: FakeOpenAI) -> None:
    """What the checker says once the jobs are measured; a row without a label has a reason, as the drill has seen.

    One thing it can't ask here: requests that are under way at once can't obey a rest that one of them is told.
    """
    url = f"sqlite:///{database}"
    engine = make_engine(url)
    measure_due("drill", ledger=Ledger(engine, max_attempts=3, lease_s=60.0), queries=Queries(engine))
    engine.dispose()
    with looking(url) as read:
        failing = frozenset(read("SELECT job_id, row_no FROM reviews WHERE error IS NOT NULL"))
        broken = check(Seen(read, server=server, price=NANOS_A_TOKEN, failing=failing))
    broken = [one for one in broken if "of rest and was asked" not in one]
    assert not broken, broken[:10]
