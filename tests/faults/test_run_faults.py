"""`loracle run` loses its queue or its worker in the middle: the job is labelled to its end all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

from tests.integration.site import Site, assert_gone, family, kill_all, reviews
from worker.errors import JobUnknown
from worker.scorers.stub import stub_score

# A child scores two batches and then waits while the file `hold` is there.
HELD = """
import os, time
if "LORACLE_HOME" in os.environ:
    from worker.scorers.stub import StubScorer
    hold = os.path.join(os.environ["LORACLE_HOME"], "hold")
    plain, calls = StubScorer.score, []
    def score(self, reviews, **options):
        calls.append(1)
        while len(calls) > 2 and os.path.exists(hold):
            time.sleep(0.02)
        return plain(self, reviews, **options)
    StubScorer.score = score
"""
# The second death is the last one that is borne.
IMPATIENT = "\nimport worker.lifeline\nworker.lifeline.DEATHS_GIVEN_UP = 2\n"
JOB = 1


def held(site: Site, more: str = "") -> dict[str, str]:
    """The variables of processes that hold the job in its middle until `release`."""
    (site.home / "modules").mkdir()
    (site.home / "modules" / "sitecustomize.py").write_text(HELD + more)
    (site.home / "hold").touch()
    path = os.pathsep.join([str(site.home / "modules"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path.rstrip(os.pathsep), "LORACLE_LEASE_S": "300"}


def release(site: Site) -> None:
    (site.home / "hold").unlink()


def run(
    site: Site, file: Path | str, variables: dict[str, str], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    return site.command(
        "run", str(file), "--adapter", "stub", "--format", "txt", "--batch-size", "10", stdin=stdin, **variables
    )  # fmt: skip


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def records_read(site: Site) -> int:
    try:
        return site.store.queries.jobs.get(JOB).records_read
    except JobUnknown:
        return 0


def labelled(site: Site) -> int:
    return site.store.queries.jobs.progress(JOB).labelled if records_read(site) else 0


def servers(pid: int) -> list[psutil.Process]:
    """The private Valkey of a command."""
    return [one for one in family(pid) if "valkey-server" in one.name()]


def kill_the_queue(site: Site, pid: int) -> psutil.Process:
    """SIGKILL for the private Valkey; returns with the next one."""
    [server] = servers(pid)
    server.kill()
    site.until(lambda: any(one.pid != server.pid for one in servers(pid)))
    [restarted] = [one for one in servers(pid) if one.pid != server.pid]
    return restarted


def assert_all_labelled(site: Site, texts: list[str]) -> None:
    assert site.labels(JOB) == {row_no: stub_score(text).label for row_no, text in enumerate(texts, 1)}
    assert site.store.queries.jobs.get(JOB).measured_at is not None


def test_run_outlives_two_deaths_of_its_queue_in_the_middle_of_the_job(site: Site) -> None:
    texts = reviews(200)
    command = run(site, write(site.home / "reviews.txt", texts), held(site))
    site.until(lambda: labelled(site) >= 20)
    first = family(command.pid)
    kill_the_queue(site, command.pid)
    kill_the_queue(site, command.pid)
    running = [*first, *family(command.pid)]
    release(site)
    assert command.wait(120) == 0, site.said
    assert_all_labelled(site, texts)
    assert_gone(running)
    assert site.said.count("The embedded Valkey died (signal 9)") == 2


def test_run_outlives_the_death_of_its_queue_while_it_reads_a_stream(site: Site) -> None:
    texts = reviews(200)
    command = run(site, "-", held(site), stdin=subprocess.PIPE)
    assert command.stdin is not None

    def send(some: list[str]) -> None:
        assert command.stdin is not None
        command.stdin.write("".join(f"{text}\n" for text in some).encode())
        command.stdin.flush()

    send(texts[:60])
    site.until(lambda: records_read(site) >= 1 and servers(command.pid))
    first = family(command.pid)
    # The stream is silent: the queue is started again all the same.
    kill_the_queue(site, command.pid)
    [server] = servers(command.pid)
    server.kill()
    # And what comes while the queue is away is published later.
    send(texts[60:])
    command.stdin.close()
    release(site)
    assert command.wait(120) == 0, site.said
    assert_all_labelled(site, texts)
    assert_gone(first)


def test_a_queue_that_dies_again_and_again_is_given_up_and_leaves_nothing_behind(site: Site) -> None:
    command = run(site, write(site.home / "reviews.txt", reviews(200)), held(site, IMPATIENT))
    site.until(lambda: labelled(site) >= 20)
    running = family(command.pid)
    server = kill_the_queue(site, command.pid)
    server.kill()
    # The workers stop warmly: the batch in flight is finished.
    release(site)
    assert command.wait(120) == 1
    assert "Error: the embedded Valkey died" in site.said
    assert "Traceback" not in site.said
    assert_gone([*running, server])
    assert site.store.queries.jobs.state(JOB) == "running"


def test_run_takes_over_from_a_worker_that_ends_in_the_middle(site: Site) -> None:
    texts = reviews(200)
    variables = held(site)
    worker = site.start_ready(**variables)
    command = run(site, write(site.home / "reviews.txt", texts), variables)
    site.until(lambda: labelled(site) >= 20)
    assert "does the work." in site.said
    assert servers(command.pid) == []
    kill_all(worker.pid)
    site.until(lambda: "this command takes over" in site.said)
    site.until(lambda: servers(command.pid))
    running = family(command.pid)
    release(site)
    # The lease of the batch in flight is long: nobody else may finish it before.
    site.store.ledger.batches.expire_lease(task_of_running(site))
    assert command.wait(120) == 0, site.said
    assert_all_labelled(site, texts)
    assert_gone(running)


def test_a_second_run_goes_on_when_the_first_is_ended_before_either_job_is_done(site: Site) -> None:
    # It would wait for ever; and the first one died of SIGTERM or the end of its terminal without a word.
    texts = reviews(60)
    variables = held(site)
    first = run(site, write(site.home / "others.txt", [f"other {text}" for text in texts]), variables)
    site.until(lambda: labelled(site) >= 20)
    second = run(site, write(site.home / "reviews.txt", texts), variables)
    site.until(lambda: "does the work." in site.said)
    first.terminate()
    site.until(lambda: "Stopping: the batches in flight are finished first." in site.said)
    release(site)
    assert first.wait(120) == 130, site.said
    assert (
        f"Interrupted. Job {JOB} keeps its labels; the same command or `loracle worker` goes on." in site.said
    )
    assert second.wait(120) == 0, site.said
    assert "this command takes over" in site.said
    assert "semaphore" not in site.said
    assert site.store.queries.jobs.state(2) == "done"


def task_of_running(site: Site) -> str:
    """The task of the batch that a dead worker has left running."""
    with site.store.ledger.jobs.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT task_id FROM batches WHERE state = 'running'").scalar()
    return str(found)
