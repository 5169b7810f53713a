"""Files that wait for somebody to say how they are read: uploaded ones (deleted after it) and named ones."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from worker.desk.enqueue import Publisher, announce, usual_batch, write_job
from worker.desk.options import choose_oracle, enqueue_options, pinned_adapter
from worker.errors import FileUnreadable, Invalid, LoracleError
from worker.jobs.enqueue import Source
from worker.reviews import Job
from worker.web.site import Site

KEPT_S = 24 * 3600.0
LONGEST_NAME = 200
BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that may become a job. An `uploaded` one lies in a folder of its own in LORACLE_HOME."""

    token: str
    path: Path
    name: str
    uploaded: bool
    since: float


class Drafts:
    """The files that wait. They are forgotten, and uploaded ones deleted, after a day or with this process."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._drafts: dict[str, Draft] = {}
        self._folder = site.settings.home / "uploads"
        # What an earlier process left: nobody knows any more how to ask for it.
        shutil.rmtree(self._folder, ignore_errors=True)

    def folders(self) -> list[Path]:
        """The folders below which files may be named (LORACLE_WEB_FOLDERS)."""
        given = (self._site.settings.web_folders or "").split(":")
        return [Path(one).expanduser().resolve() for one in given if one.strip()]

    def get(self, token: str) -> Draft:
        """The draft. Raises Invalid: it is no more."""
        with self._lock:
            draft = self._drafts.get(token)
        if draft is None:
            raise Invalid("this file was read or given up meanwhile: choose it again.")
        return draft

    def upload(self, name: str, file: BinaryIO) -> Draft:
        """Keeps an uploaded file.

        Raises:
            Invalid: it is empty or too large.
        """
        self._forget_old()
        # The name says the format; a folder in it is the sender's, not ours.
        name = Path(name.replace("\\", "/")).name[-LONGEST_NAME:] or "reviews"
        token, most = secrets.token_urlsafe(12), self._site.settings.web_upload_mb * 10**6
        folder = self._folder / token
        folder.mkdir(parents=True, mode=0o700)
        path, size = folder / name, 0
        try:
            with path.open("wb") as kept:
                while block := file.read(BLOCK):
                    size += len(block)
                    if size > most:
                        raise Invalid(
                            f"{name} is larger than {self._site.settings.web_upload_mb:,} MB: LORACLE_WEB_UPLOAD_MB "
                            "allows more, and `loracle enqueue` reads files of any size."
                        )
                    kept.write(block)
            if not size:
                raise FileUnreadable(f"{name} is empty.")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._keep(Draft(token, path, name, True, time.monotonic()))

    def name(self, path: str) -> Draft:
        """A file or folder by its path.

        Raises:
            Invalid: it lies in no folder that may be read.
        """
        self._forget_old()
        folders = self.folders()
        if not folders:
            raise Invalid(
                "files can't be named here: LORACLE_WEB_FOLDERS says below which folders they may be."
            )
        asked = Path(path.strip()).expanduser()
        places = [asked] if asked.is_absolute() else [folder / asked for folder in folders]
        for place in places:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                # Resolved first: neither .. nor a link leads out of a folder.
                found = place.resolve(strict=True)
                if any(found.is_relative_to(folder) for folder in folders):
                    return self._keep(
                        Draft(secrets.token_urlsafe(12), found, found.name, False, time.monotonic())
                    )
        raise Invalid(f"there is no file {path.strip()} below {' or '.join(map(str, folders))}.")

    def discard(self, token: str) -> None:
        """Forgets the draft, and deletes what was uploaded."""
        with self._lock:
            draft = self._drafts.pop(token, None)
        if draft is not None and draft.uploaded:
            shutil.rmtree(draft.path.parent, ignore_errors=True)

    def enqueue(self, draft: Draft, values: Mapping[str, Any], *, wait_s: float = 600.0) -> int:
        """Makes the job, behind the page, and returns its number once it has one.

        Raises:
            LoracleError: the file or the options won't do.
        """
        work = _Enqueuing(self._site, draft, values)
        threading.Thread(target=work.run, args=(self,), name=f"enqueue {draft.token}", daemon=True).start()
        work.known.wait(wait_s)
        if work.error is not None:
            raise work.error
        if work.job_id is None:
            raise Invalid(
                f"{draft.name} is still being looked at: the list of jobs shows it when it has a number."
            )
        return work.job_id

    def _keep(self, draft: Draft) -> Draft:
        with self._lock:
            self._drafts[draft.token] = draft
        return draft

    def _forget_old(self) -> None:
        with self._lock:
            old = [one.token for one in self._drafts.values() if time.monotonic() - one.since > KEPT_S]
        for token in old:
            self.discard(token)


class _Enqueuing:
    """The reading of one file into a job, in a thread of its own."""

    def __init__(self, site: Site, draft: Draft, values: Mapping[str, Any]) -> None:
        self._site, self._draft, self._values = site, draft, values
        self.known = threading.Event()
        self.job_id: int | None = None
        self.error: LoracleError | None = None

    def run(self, drafts: Drafts) -> None:
        """Reads the file to its end. An upload stays as long as nothing was made of it: the options may be mended."""
        try:
            self._write()
        except LoracleError as error:
            # Of a job that has its number already the ledger keeps the reason.
            self.error = error
        finally:
            if self.job_id is not None:
                drafts.discard(self._draft.token)
            self.known.set()

    def _write(self) -> None:
        settings, store = self._site.settings, self._site.store

        def say(sentence: str) -> None:
            """What was guessed was on the page already."""

        options = enqueue_options(settings, self._values, usual_batch=lambda: usual_batch(settings))
        adapter = pinned_adapter(store, settings, self._values["adapter"], say=say)
        asked = choose_oracle(store, settings, adapter, self._values, say=say)
        source = Source(self._draft.path, options, adapter.labels, adapter.languages)
        announce(source, source.announcements, say)
        most = settings.web_upload_rows

        def made(job: Job) -> None:
            self.job_id = job.id
            self.known.set()

        def count(reviews: int, rejects: int) -> None:
            if reviews + rejects > most and self.job_id is not None:
                reason = f"the file has more than {most:,} rows (LORACLE_WEB_UPLOAD_ROWS)"
                store.ledger.jobs.stop(self.job_id, reason)
                raise Invalid(reason)

        write_job(
            source, adapter, store, Publisher(settings, store, say=say),
            say=say, asked=asked, made=made, after_chunk=count,
        )  # fmt: skip
