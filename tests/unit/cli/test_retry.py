"""`loracle retry` ends a pause of the oracle: whoever types it says that the server is mended."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.contract.asking import ORACLE, ask, pack
from worker.bootstrap import open_store
from worker.cli.common import read_settings
from worker.cli.jobs import retry
from worker.desk.status import oracle_waiting_for
from worker.errors import OracleQuotaSpent
from worker.oracle.throttle import RedisThrottle, connect
from worker.pool.app import broker_url
from worker.pool.valkey import EmbeddedValkey

URL = "http://127.0.0.1:1/v1"


@pytest.mark.services
def test_what_waits_for_quota_is_asked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It waited out ten minutes, whatever the operator did.
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    store = open_store(settings)
    ledger = store.ledger
    oracle = dataclasses.replace(ORACLE, details={**ORACLE.details, "base_url": URL})
    job = ask(ledger, 1, oracle=oracle)
    pack(ledger)
    with EmbeddedValkey(tmp_path), closing(connect(broker_url(settings))) as client:
        [batch_id] = ledger.publishing.choose("openai", window=1)
        prompt = ledger.prompts.claim(batch_id)
        assert prompt is not None
        ledger.prompts.park(prompt, "no quota", delay_s=600.0)
        throttle = RedisThrottle(client, base_url=URL, model="gpt", concurrency=1)
        throttle.failed(OracleQuotaSpent("no quota"))
        at = store.queries.jobs.progress(job.id)
        why = str(oracle_waiting_for(settings, store, at))
        assert why.startswith("the oracle isn't asked for a while (no quota); it is tried again in")
        here = settings.oracle_url
        other = f"The job's oracle is at {URL}, and OPENAI_BASE_URL is {here} here: if the job's is wrong, `loracle "
        assert f"or at once with `loracle retry 1`. {other}cancel 1` and enqueue its file again" in why
        done = CliRunner().invoke(retry, ["1"], standalone_mode=False)
        assert done.exception is None
        assert f"{other}cancel 1` and enqueue its file again.\n" in done.stderr
        assert "isn't asked for a while" not in str(oracle_waiting_for(settings, store, at))
        assert ledger.prompts.claim(batch_id) is not None
