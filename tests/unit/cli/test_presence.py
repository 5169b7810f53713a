"""Who is there to work, lane by lane, and what a command says where nobody is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.bootstrap import Store, open_store
from worker.cli.common import Waiting
from worker.cli.jobs import jobs, retry
from worker.cli.run import _take_turns
from worker.desk import doctor
from worker.desk.presence import nobody, say_who_is_missing, who_is_missing
from worker.desk.status import why_it_waits
from worker.pool import app as celery_app
from worker.pool import valkey
from worker.reviews import JobSpec, Review
from worker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]


def job(store: Store, name: str) -> int:
    """A job of two batches."""
    ledger = store.ledger
    rows = [Review(row_no, f"text {row_no}") for row_no in range(1, 5)]
    spec = JobSpec(name, name, name, adapter_id=ledger.adapters.register_stub(), batch_size=2)
    opened, _ = ledger.jobs.open(spec)
    ledger.jobs.append(opened.id, rows, batches=[rows[:2], rows[2:]])
    ledger.jobs.seal(opened.id)
    return opened.id


def test_a_worker_of_one_lane_is_none_of_the_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = settings.model_copy(update={"redis_url": "redis://queue/0"})
    monkeypatch.setattr(
        celery_app, "workers_online", lambda app, lane, host: ["a"] if lane == "openai" else []
    )
    monkeypatch.setattr(celery_app, "last_seen", lambda app, lane: ("a", 95.0 if lane == "adapter" else 1.0))
    monkeypatch.setattr(celery_app, "workers_stopping", lambda app, lane, host: [])
    monkeypatch.setattr(celery_app, "make_app", lambda settings: None)
    assert nobody(servers, "openai") is None
    said = (
        "no worker of the adapter lane has been seen for 2 min: start `loracle worker` on a host that reaches "
        "this Redis"
    )
    assert nobody(servers, "adapter") == said
    assert who_is_missing(servers, ["adapter", "oracle"]) == {"adapter": said}
    # One that was halted counts as there for a while longer; of one that stops nothing more is to be had.
    monkeypatch.setattr(celery_app, "last_seen", lambda app, lane: ("b CPU (pid 77)", 20.0))
    assert str(nobody(servers, "openai")).startswith(
        "b CPU (pid 77) has given no sign for 20 s: it was halted"
    )
    monkeypatch.setattr(valkey, "running_pid", lambda home: 77)
    assert str(nobody(settings, "adapter")).startswith(
        "b CPU (pid 77) has given no sign for 20 s: it was halted"
    )
    with monkeypatch.context() as patched:
        patched.setattr(celery_app, "workers_stopping", lambda app, lane, host: ["b CPU (pid 77)"])
        assert nobody(servers, "adapter") == (
            "b CPU (pid 77) is stopping: it finishes the batches that it holds and takes no more. Then start "
            "`loracle worker`"
        )
    # The private queue serves one worker: a second one is no way out.
    monkeypatch.setattr(celery_app, "last_seen", lambda app, lane: None)
    assert "has been seen yet. The one with pid 77" in str(nobody(settings, "adapter"))
    assert "start `loracle worker --lane adapter --lane openai`" in str(nobody(settings, "adapter"))


def test_a_job_whose_run_was_killed_is_said_to_wait_for_a_worker(settings: Settings) -> None:
    # It stayed `running` in the list, and `retry` said "No worker runs" before "Nothing failed".
    store = open_store(settings)
    job(store, "left.csv")
    listed = CliRunner().invoke(jobs, [], standalone_mode=False)
    assert "Nobody works on job 1: no worker runs on this machine: start `loracle worker`." in listed.stderr
    # Two jobs of one file differ in what labels them.
    assert [line.split()[-2:] for line in listed.stdout.splitlines()] == [
        ["name", "by"],
        ["left.csv", "stub"],
    ]
    for_programs = CliRunner().invoke(jobs, ["--json"]).stdout
    assert '"waiting_for": "no worker runs' in for_programs
    assert '"adapter": "stub"' in for_programs
    # `doctor` found that none of the workers reports a fault: there was none.
    found = next(finding for finding in doctor.findings() if finding.check == "workers")
    assert (found.state, found.found) == (
        "warning",
        "1 job waits: no worker runs on this machine: start `loracle worker`",
    )
    again = CliRunner().invoke(retry, ["1"], standalone_mode=False)
    assert again.stdout == "Nothing failed in job 1: there is nothing to score again.\n"
    assert again.stderr == ""
    # None of them was scored before: "will be scored again" was wrong.
    store.ledger.jobs.cancel(1)
    again = CliRunner().invoke(retry, ["1"], standalone_mode=False)
    assert again.stdout == "4 reviews of job 1 will be scored.\n"


def test_a_job_of_both_lanes_waits_for_one_worker_where_a_second_one_is_refused(settings: Settings) -> None:
    # `loracle worker` and `loracle worker --lane openai` were named, and the second wouldn't start.
    both = "no worker runs on this machine: start `loracle worker --lane adapter --lane openai`"
    assert who_is_missing(settings, ["cascade --below 0.9"]) == {"adapter": both, "openai": both}
    said: list[str] = []
    say_who_is_missing(settings, "cascade --below 0.9", say=said.append)
    assert said == [f"The job waits: {both}."]


def test_who_only_looks_is_told_that_the_database_is_new(settings: Settings) -> None:
    # With a mistyped LORACLE_HOME it said "No jobs yet", and nothing more.
    said = f"A new database was made: {settings.home / 'loracle.db'}\n"
    assert CliRunner().invoke(jobs, []).stderr.startswith(said)
    assert "A new database" not in CliRunner().invoke(jobs, []).stderr


def test_a_job_whose_adapter_is_trained_first_waits_for_its_own_command(settings: Settings) -> None:
    store = open_store(settings)
    ledger = store.ledger
    opened, _ = ledger.jobs.open(
        JobSpec("distilled", "distilled", "distilled", adapter_id=ledger.adapters.register_stub())
    )
    at = ledger.distillations.open(opened.id, rounds=2, answers=2, held_out=1, seed=0)
    rows = [Review(row_no, f"text {row_no}") for row_no in range(1, 9)]
    ledger.jobs.append(opened.id, rows, batches=None)
    why = why_it_waits(settings, store, store.queries.jobs.progress(opened.id))
    assert why == "its file is read; then the oracle is asked"
    ledger.distillations.move(at, "training")
    why = why_it_waits(settings, store, store.queries.jobs.progress(opened.id))
    assert why is not None
    assert why.startswith("round 0 of 2: an adapter is trained on the answers, where `loracle distill` runs")
    # A worker, which the others lack, would be of no use.
    shown = CliRunner().invoke(jobs, [])
    assert "Nobody works" not in shown.stderr, shown.stderr
    ledger.jobs.cancel(opened.id)
    shown = CliRunner().invoke(retry, [str(opened.id)])
    assert "the same `loracle distill` command goes on" in shown.stderr
    assert "start `loracle worker`" not in shown.stderr


def test_a_reason_to_wait_is_told_once_however_long_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    # It came again with every second that the sentence counted.
    waiting = Waiting(7)
    for reason in ("nobody for 5 s", "nobody for 6 s", None, "nobody for 7 s", "Redis is away"):
        waiting.tell(reason)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"Job 7 waits: {one}." for one in ("nobody for 5 s", "nobody for 7 s", "Redis is away")]


def test_a_new_run_goes_before_what_earlier_ones_left(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    # 1,200 reviews of interrupted runs were scored first, without a word.
    store = open_store(settings)
    for name in ("a.csv", "b.csv", "c.csv"):
        job(store, name)
    _take_turns(store, 3, goes_first=True)
    assert (
        "Unfinished from earlier: jobs 1 (a.csv), 2 (b.csv). This job goes first;" in capsys.readouterr().err
    )
    numbers = store.ledger.publishing.choose("adapter", window=6)
    taken = [claimed.job_id for one in numbers if (claimed := store.ledger.batches.claim(one)) is not None]
    assert taken == [3, 3, 1, 2, 1, 2]
    # The one that is taken up again later goes before that one, and what is first stays first.
    _take_turns(store, 1, goes_first=True)
    assert [store.queries.jobs.get(at).priority for at in (1, 2, 3)] == [2, 0, 1]
    _take_turns(store, 2, goes_first=False)
    assert store.queries.jobs.get(2).priority == 0
    said = capsys.readouterr().err
    assert "They are scored beside this one (--priority); `loracle worker` finishes all of them" in said


def test_who_left_jobs_for_the_oracle_is_told_of_a_worker_that_asks_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    # It named `loracle worker`, which serves the adapter lane alone.
    store = open_store(settings)
    for name, policy in (("a.csv", "adapter"), ("b.csv", "oracle"), ("c.csv", "adapter")):
        adapter = store.ledger.adapters.register_stub()
        store.ledger.jobs.open(JobSpec(name, name, name, adapter_id=adapter, policy=policy))
    _take_turns(store, 3, goes_first=True)
    assert "`loracle worker --lane adapter --lane openai` finishes all of them" in capsys.readouterr().err
    _take_turns(store, 1, goes_first=True)
    store.ledger.jobs.cancel(3)
    _take_turns(store, 1, goes_first=True)
    assert "`loracle worker --lane openai` finishes all of them" in capsys.readouterr().err
