"""A finished job's agreement is measured whatever happens to the process that measures it."""

from __future__ import annotations

import os
import signal

import psutil

from tests.integration.site import Site, assert_gone, family, reviews

# Whoever measures says so, and waits while the file `hold` is there.
HELD = """
import os, time
if "LORACLE_HOME" in os.environ:
    from worker.store.agreements import AgreementQueries
    hold = os.path.join(os.environ["LORACLE_HOME"], "hold")
    plain = AgreementQueries.is_comparable
    def is_comparable(self, job_id):
        with open(os.path.join(os.environ["LORACLE_HOME"], "measuring"), "w") as file:
            file.write(str(os.getpid()))
        while os.path.exists(hold):
            time.sleep(0.02)
        return plain(self, job_id)
    AgreementQueries.is_comparable = is_comparable
"""


def measuring(site: Site, *, but: int = 0) -> int:
    """The pid of the process that has begun to measure, another one than `but`."""
    found = site.home / "measuring"

    def other() -> bool:
        return found.exists() and found.read_text() not in ("", str(but))

    site.until(other)
    return int(found.read_text())


def measured(site: Site, job_id: int) -> bool:
    return site.store.queries.jobs.get(job_id).measured_at is not None


def test_a_killed_or_frozen_measuring_holds_nothing_up_and_is_made_up_for(site: Site) -> None:
    modules = site.home / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(HELD)
    path = os.pathsep.join([str(modules), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    hold = site.home / "hold"
    hold.touch()
    worker = site.start_ready(PYTHONPATH=path)
    first = site.enqueue(reviews(20))
    pid = measuring(site)
    os.kill(pid, signal.SIGSTOP)
    # Nobody but the sweeper publishes this one.
    second = site.enqueue(reviews(20, 1000))
    site.wait(second)
    assert not measured(site, first)
    assert not measured(site, second)
    os.kill(pid, signal.SIGKILL)
    measuring(site, but=pid)
    hold.unlink()
    site.until(lambda: measured(site, first) and measured(site, second))
    assert f"The agreement of job {first} couldn't be measured: its process died (signal 9)" in site.said

    hold.touch()
    (site.home / "measuring").unlink()
    third = site.enqueue(reviews(20, 2000))
    site.wait(third)
    last = psutil.Process(measuring(site))
    running = [last, *family(worker.pid)]
    worker.kill()
    worker.wait()
    assert_gone(running)
    assert not measured(site, third)
