"""What `doctor` makes of what it finds: each finding says why it matters and what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.contract.enqueued import enqueue, work_off
from worker.desk import host
from worker.desk.doctor import findings
from worker.desk.host import Found
from worker.model.devices import Build
from worker.store.care import clock_s, slowest_batch_s
from worker.store.engine import make_engine
from worker.store.ledger import Ledger

GIB = 2**30
REMOTE = "redis://redis:6379/0"


@pytest.mark.parametrize(
    ("found", "state", "said"),
    [
        (
            host.judge_variables({"LORACLE_BATCH_SIZE": "9", "OPENAI_API_KEY_FILE": "k"}, Path("/home")),
            "ok",
            "/home",
        ),
        (host.judge_variables({"LORACLE_STUB_GATE": "x", "REDIS_HOST": "y"}, Path("/home")), "ok", "/home"),
        (host.judge_variables({"LORACLE_BACHT_SIZE": "9"}, Path("/home")), "warning", "LORACLE_BACHT_SIZE"),
        (host.judge_clock(100.0, 100.1, 100.2), "ok", "agree"),
        # A slow answer is no wrong clock.
        (host.judge_clock(110.0, 100.0, 130.0), "ok", "agree"),
        (host.judge_clock(4000.0, 400.0, 400.1), "warning", "3,600 s behind"),
        (host.judge_clock(400.0, 4000.0, 4000.1), "warning", "3,600 s ahead of"),
        (host.judge_batch_time(None, 900.0), "ok", "no batch"),
        (host.judge_batch_time(30.0, 900.0), "ok", "30.0 s"),
        (host.judge_batch_time(500.0, 900.0), "warning", "500.0 s"),
        (host.judge_redis("Redis 8", True, "redis://:x@redis/0"), "error", "without a password"),
        (host.judge_redis("Redis 8", None, REMOTE), "error", "without a password"),
        (host.judge_redis("Redis 8", None, "redis://:x@redis/0"), "ok", "doesn't say"),
        (host.judge_redis("Redis 8", None, "redis://127.0.0.1/0"), "ok", "doesn't say"),
        (host.judge_redis("Redis 8", None, "redis+socket:///run/redis.sock"), "ok", "doesn't say"),
        # It refuses strangers by itself.
        (host.judge_redis("Redis 8", False, REMOTE), "ok", "Redis 8"),
        (host.judge_disk({Path("/a"): 50 * GIB, Path("/b"): 6 * GIB}), "ok", "6.0 GiB free for /b"),
        (host.judge_disk({Path("/a"): 50 * GIB, Path("/b"): GIB}), "warning", "1.0 GiB free for /b"),
        (host.judge_disk({Path("/a"): GIB // 100}), "error", "0.0 GiB free for /a"),
        (host.judge_descriptors(-1), "ok", "no limit"),
        (host.judge_descriptors(65536), "ok", "65,536"),
        (host.judge_descriptors(256), "warning", "256"),
        (host.judge_tokenizer({}, 4), "ok", "4 threads"),
        (
            host.judge_tokenizer({"TOKENIZERS_PARALLELISM": "false"}, 4),
            "warning",
            "TOKENIZERS_PARALLELISM=false",
        ),
        (host.judge_tokenizer({"RAYON_NUM_THREADS": "1"}, 4), "warning", "RAYON_NUM_THREADS=1"),
        (host.judge_tokenizer({"RAYON_NUM_THREADS": "8"}, 4), "ok", "4 threads"),
        (host.judge_driver(Build("2.13+cpu", None, 0), None), "ok", "the CPU alone, no NVIDIA driver"),
        (host.judge_driver(Build("2.13", "13.0", 2), "580.1"), "ok", "CUDA 13.0, driver 580.1, 2 GPUs"),
        (
            host.judge_driver(Build("2.13+cpu", None, 0), "580.1"),
            "warning",
            "alone, driver 580.1: torch sees",
        ),
        (
            host.judge_driver(Build("2.13", "13.0", 0), "470.1"),
            "warning",
            "CUDA 13.0, driver 470.1: torch sees",
        ),
        (host.judge_driver(Build("2.13", "13.0", 0), ""), "warning", "no NVIDIA driver: torch sees"),
    ],
)
def test_a_finding_says_what_it_is_and_what_to_do(found: Found, state: str, said: str) -> None:
    assert found[0] == state
    assert said in found[1]
    # Cause and way out, unless all is well.
    assert (len(found) == 4 and all(found)) == (state != "ok")


def test_the_clock_and_the_slowest_batch_come_from_the_database(sqlite_url: str) -> None:
    engine = make_engine(sqlite_url)
    assert slowest_batch_s(engine) is None
    ledger = Ledger(engine)
    enqueue(ledger, 8)
    work_off(ledger)
    with engine.begin() as connection:
        connection.execute(text("UPDATE batches SET claimed_at = 100, finished_at = 100 + id"))
    assert slowest_batch_s(engine) == 2.0
    assert abs(clock_s(engine) - time.time()) < 60.0
    engine.dispose()


def test_an_empty_database_is_named_and_the_other_findings_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")
    (tmp_path / "empty.db").touch()
    found = {finding.check: finding for finding in findings()}
    assert "loracle db upgrade" in found["database"].found
    # The same error stood there for each check that asks the database.
    assert found["batch time"].found == "not checked: the database can't be used"
    assert [finding.check for finding in found.values() if finding.state == "error"] == ["database"]
    assert {"disk", "tokenizer", "oracle"} <= set(found)
