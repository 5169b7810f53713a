"""Uploads to OpenAI are taken back when their job is deleted."""

from __future__ import annotations

from pathlib import Path

from tests.fake_openai import FakeOpenAI, Fault
from tests.unit import oracles
from worker.bootstrap import open_store
from worker.desk.deletion import forgetting
from worker.settings import Settings
from worker.store.deletion import UploadedFile


def test_uploads_are_deleted_and_those_that_can_t_be_are_named(tmp_path: Path) -> None:
    faults = {"DELETE /v1/files/{}": [None, Fault("status", status=500)]}
    with FakeOpenAI(shelf_faults=faults) as server:
        asked = {"home": tmp_path, "openai_base_url": server.url}
        settings = Settings(openai_api_key="any", **asked)  # type: ignore[arg-type]
        store, scorer = open_store(settings), oracles.bulk(server)
        scorer_id = store.ledger.scorers.register(scorer.identity)
        first, second = (UploadedFile(scorer.upload(b"{}\n"), scorer_id, age_s=60.0) for _ in range(2))
        expired = UploadedFile("file-old", scorer_id, age_s=30 * 86400.0)
        gone = UploadedFile("file-gone", scorer_id, age_s=60.0)
        left = forgetting(settings, store)([first, second, expired, gone])
        assert left == [second]
        assert list(server.shelf.files) == [second.file_id]
        # Without a key nothing can be deleted.
        assert forgetting(Settings(**asked), store)([second, expired]) == [second]  # type: ignore[arg-type]
