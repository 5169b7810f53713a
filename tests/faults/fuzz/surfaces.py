"""What takes an input from outside, as the commands call it: each returns an answer, or raises a LoracleError."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from tests.faults.fuzz.moving import changed, filled_pipe
from tests.faults.fuzz.oracle_surfaces import read_answer, read_batch_results
from tests.faults.fuzz.properties import check_count, check_storable
from worker.bootstrap import adapter_of, choose_adapter, open_store
from worker.errors import LoracleError
from worker.files import ReadOptions
from worker.files.corrections import read_annotations, read_filled_table
from worker.jobs.enqueue import enqueue_file, open_job
from worker.jobs.source import Adapter, EnqueueOptions, Source, preview
from worker.model.bases import find_base
from worker.model.manifest import Manifest
from worker.settings import Settings, read_settings
from worker.store.engine import make_engine
from worker.store.tables import Adapter as AdapterTable
from worker.urls import without_secrets

SECRET = "hunter2hunter2"
"""Stands in the passwords of settings, and must never be in a message."""

Check = Callable[[Path, Mapping[str, Any]], str]


class Surfaces:
    """The surfaces, with a database and a cache of their own in `home`."""

    def __init__(self, home: Path) -> None:
        os.environ.update(LORACLE_HOME=str(home), LORACLE_DOTENV="no", HF_HUB_OFFLINE="1")
        self._home = home
        self._store = open_store(Settings(home=home))
        self._stub = choose_adapter(self._store, "stub")
        self._checks: dict[str, Check] = {
            "file": self._file,
            "corrections": _corrections,
            "adapter": self._adapter,
            "archive": self._archive,
            "base": lambda path, options: str(find_base(str(path))),
            "settings": self._settings,
            "batch": read_batch_results,
            "answer": read_answer,
        }
        sample = home / "sample.csv"
        sample.write_text("id,text,label\n1,This is a fine film that everybody should see,pos\n" * 3)
        self.check("file", sample, {})
        # Loaded now, so that no input is charged for it.
        import numpy  # noqa: F401
        import pyarrow.parquet
        import zstandard  # noqa: F401

        pyarrow.parquet.write_table(pyarrow.table({"text": ["fine", "bad"]}), home / "sample.parquet")
        self.check("file", home / "sample.parquet", {})

    def check(self, surface: str, path: Path, options: Mapping[str, Any]) -> str:
        """What the surface answers. Raises LoracleError where it refuses, anything else where a promise is broken."""
        return self._checks[surface](path, options)

    def _file(self, path: Path, options: Mapping[str, Any]) -> str:
        """As `loracle enqueue` does it; as `--dry-run` with `dry`, and as `loracle enqueue -` with `stream`."""
        read = dict(options)
        dry, stream, counted = (read.pop(name, False) for name in ("dry", "stream", "counted"))
        piped, changing = read.pop("piped", None), read.pop("changing", None)
        for name in ("columns", "keep_columns"):
            if name in read:
                read[name] = tuple(read[name])
        chosen = EnqueueOptions(ReadOptions(**read), max_rejects=1.0, other_languages="reject")
        adapter = Adapter(self._stub, "stub", ("negative", "positive"), ("en",))
        opened: Any = path if piped is None else filled_pipe(piped)
        opened = path.open("rb") if stream else opened
        with changed(path, changing):
            source = Source(opened, chosen, adapter.labels, adapter.languages)
        with closing(source.file), changed(path, changing):
            said = source.announcements
            if dry:
                found = preview(source)
                return f"{found.reviews} reviews, {found.rejected} rejects"
            records = [] if source.is_stream else list(source.file.read())
            check_storable(records, [*said, source.file.name])
            if counted:
                check_count(path, source.file, records)
            job, new = open_job(source, adapter, self._store.ledger)
            if new:
                enqueue_file(job, source, self._store.ledger)
            said += source.notes
        return f"{len(records)} records"

    def _adapter(self, path: Path, options: Mapping[str, Any]) -> str:
        adapter_id = choose_adapter(self._store, str(path))
        return f"{adapter_of(self._store, adapter_id).labels} {self._restored(adapter_id)}"

    def _archive(self, path: Path, options: Mapping[str, Any]) -> str:
        """The archive stands in a database that others may have written, beside the manifest that options name."""
        text = Path(options["manifest"]).read_text(encoding="utf-8")
        adapters = self._store.ledger.adapters
        adapter_id = adapters._insert(
            "seed", Manifest.from_json(text).sha256, json.loads(text), path.read_bytes()
        )
        try:
            return self._restored(adapter_id)
        finally:
            with adapters.engine.begin() as connection:
                connection.execute(delete(AdapterTable).where(AdapterTable.id == adapter_id))

    def _restored(self, adapter_id: int) -> str:
        before = sorted(self._home.iterdir())
        cache = self._home / "cache"
        try:
            return str(self._store.ledger.adapters.restore(adapter_id, cache))
        finally:
            shutil.rmtree(cache, ignore_errors=True)
            assert sorted(self._home.iterdir()) == before, "files beside the cache"

    def _settings(self, path: Path, options: Mapping[str, Any]) -> str:
        """As environment, or as the `.env` of the data directory with `dotenv`."""
        content = path.read_bytes()
        kept = dict(os.environb)
        home = self._home / "settings"
        home.mkdir(exist_ok=True)
        os.environ["LORACLE_HOME"] = str(home)
        try:
            if options.get("dotenv"):
                del os.environ["LORACLE_DOTENV"]
                (home / ".env").write_bytes(content)
                if options.get("sparse"):
                    os.truncate(home / ".env", 5 * 1024**3)
            else:
                pairs = (line.partition(b"=")[::2] for line in content.split(b"\n") if b"\0" not in line)
                os.environb.update({name: value for name, value in pairs if name})
            said = _told(read_settings())
        except LoracleError as error:
            said = str(error)
            assert SECRET not in said or SECRET.encode() in _harmless(content), f"a secret in {said!r}"
            raise
        finally:
            os.environb.clear()
            os.environb.update(kept)
            shutil.rmtree(home, ignore_errors=True)
        assert SECRET not in said or SECRET.encode() in _harmless(content), f"a secret in {said!r}"
        return said


def _told(settings: Settings) -> str:
    """What people are shown of settings; the library that will open the database must understand its URL, too."""
    make_engine(settings.database).dispose()
    shown = [
        without_secrets(settings.database),
        settings.oracle_url,
        str(settings.most_spent),
        repr(settings),
    ]
    if settings.redis_url is not None:
        shown.append(without_secrets(settings.redis_url.get_secret_value()))
    return " ".join(shown)


def _harmless(content: bytes) -> bytes:
    """The lines that hold no secret, whatever stands in them, and the paths of SQLite, which are shown."""
    secret = (b"DATABASE_URL=", b"REDIS_URL=", b"OPENAI_API_KEY=")
    lines = content.splitlines()
    return b"\n".join(line for line in lines if not line.lstrip().startswith(secret) or b"sqlite:" in line)


def _corrections(path: Path, options: Mapping[str, Any]) -> str:
    if path.suffix == ".csv":
        found = read_filled_table(path)
    else:
        found, _ = read_annotations(path, options.get("control"))
    check_storable(
        [], [text for one in found for text in (one.label, one.author, one.note) if text is not None]
    )
    assert all(abs(one.row_no) < 2**63 for one in found), "a row number that no database takes"
    return f"{len(found)} corrections"
