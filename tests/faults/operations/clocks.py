"""A host whose clock is an hour fast or slow."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.nemesis.kills import BUSY_MACHINE_S
from tests.faults.nemesis.stage import SWEEP_S, UNACKED, Stage, stage
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import held, reviews

LEASE_S = 10.0
"""Long enough that whoever renews it every third of it isn't late on a busy machine."""
OFF_S = 3600.0
WRONG_CLOCK = """
import time
OFF_S = float(os.environ.get("OFF_S", "0"))
if OFF_S:
    right = time.time
    time.time = lambda: right() + OFF_S
    time.time_ns = lambda: int(time.time() * 1e9)
"""
"""Of Python: SQLite asks the system itself, and its clock is that of the host all the same."""


def clock_is_wrong(seed: int, folder: Path) -> Struck:
    """One of two workers is an hour off: whoever of them holds a batch keeps it for longer than a lease, and once it
    is killed the other one has it after a lease, not after an hour."""
    off = {"OFF_S": f"{OFF_S if seed % 2 else -OFF_S:g}"}
    wrong_holds = seed // 2 % 2 == 0
    with stage(
        seed,
        folder,
        postgres=seed // 4 % 2 == 1,
        code=WRONG_CLOCK,
        variables={"LORACLE_LEASE_S": f"{LEASE_S:g}", "LORACLE_STUB_DELAY_S": "0.1"},
    ) as one:
        site = one.site
        count = 200
        job_id = site.enqueue(held(reviews(count), one.chance.randrange(1, 11)))
        holder = site.start(**(off if wrong_holds else {}))
        site.wait_for_batch(job_id)
        site.until(lambda: _held(one))
        [kept] = _held(one)
        site.start(**({} if wrong_holds else off))
        site.wait_for_labels(job_id, count - 10)
        time.sleep(1.5 * LEASE_S)
        assert _held(one) == [kept], "a lease that was renewed was stolen"
        killed = {event.pid for event in one.history() if event.found.get("token") == kept[1]}
        one.kill(holder)
        if not killed:
            raise DidNotStrikeError
        recovery_s = one.until_taken_back([kept[0]])
        assert recovery_s < LEASE_S + 2 * SWEEP_S + BUSY_MACHINE_S, f"taken over after {recovery_s:.1f} s"
        site.gate.touch()
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        claims = [event.found["batch"] for event in one.history() if "batch" in event.found]
        twice = {batch for batch in claims if claims.count(batch) > 1}
        assert twice <= {kept[0]}, "a batch was held twice"
        site.until(lambda: _drained(one))
        one.end()
        return Struck(recovery_s)


def _held(one: Stage) -> list[tuple[int, str]]:
    """The batches that are held, with their leases."""
    return [
        (batch_id, token)
        for batch_id, token in one.rows("SELECT id, lease_token FROM batches WHERE state = 'running'")
    ]


def _drained(one: Stage) -> bool:
    """Whether no message is left. What the killed worker took was written down by its clock: for others an hour is
    to go, and two hours are waited here."""
    if not any(one.waiting().values()):
        return True
    if one.waiting()[UNACKED]:
        with one.site.app.connection_for_read() as connection, connection.channel() as channel:
            channel.visibility_timeout = -2 * OFF_S
            channel.qos.restore_visible(num=1000)
    return False
