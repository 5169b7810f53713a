"""How a file, a directory or a database becomes a job, and how the workers hear of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from worker.bootstrap import Store
from worker.desk.options import Say
from worker.desk.presence import has_no_queue, workers_online
from worker.errors import BrokerUnreachable, OptionInvalid
from worker.jobs.enqueue import ADAPTER_ALONE, Asked, enqueue_file, open_job
from worker.jobs.scoring import Publish, publish_waiting
from worker.jobs.source import Adapter, EnqueueOptions, Source
from worker.reviews import OVER, Job
from worker.settings import Settings
from worker.store.foreign import Query
from worker.urls import without_secrets

GPU_BATCH = 2048
"""Of 256 a GPU makes one micro-batch: nothing is planned by length, and it waits for the ledger more often."""


def open_source(path: str, options: EnqueueOptions, adapter: Adapter, *, say: Say) -> Source:
    """A file, a directory or a database, opened; what was guessed is announced.

    Raises:
        OptionInvalid: a database without --query, --query without a database, or an address on the web.
    """
    web = re.match(r"(https?|ftp|s3|gs)://", path, re.IGNORECASE)
    if web is not None:
        # The rest may be a secret: who has a signed address may read the file.
        raise OptionInvalid(
            f"Loracle doesn't read from {web[0]}… addresses. Download the file first, with `curl -O ADDRESS`, and "
            "name the file."
        )
    # A URL that is mistyped may hold a password: it is never shown as a file's name.
    if ":/" in path and not Path(path).exists():
        if options.query is None:
            raise OptionInvalid(
                "a database's URL needs --query, for example "
                "--query 'SELECT id, body AS text FROM reviews ORDER BY id'."
            )
        source = Source(Query(path, options.query), options, adapter.labels, adapter.languages)
    elif options.query is not None:
        raise OptionInvalid(
            f"--query reads a database, and {path} is no URL of one. Leave it out, or name the database, say "
            "sqlite:///shop.db."
        )
    else:
        source = Source(Path(path), options, adapter.labels, adapter.languages)
    announce(source, source.announcements, say)
    return source


def write_job(
    source: Source,
    adapter: Adapter,
    store: Store,
    publisher: Publisher,
    *,
    say: Say,
    asked: Asked = ADAPTER_ALONE,
    tick: Callable[[], None] = lambda: None,
    after_chunk: Callable[[int, int], None] = lambda reviews, rejects: None,
    made: Callable[[Job], object] = lambda job: None,
    scores_later: bool = False,
) -> Job:
    """Makes the source's job, or takes up or returns the one that is there.

    `made` hears of the job before its reviews are read; with `scores_later` they are scored later (`enqueue_file`).
    `after_chunk` hears how many reviews and rejects were read,
    and `tick` is called after every chunk, and several times a second while a stream is silent; what they raise
    leaves a job that can be taken up.
    """
    try:
        return _written(source, adapter, store, publisher, say, asked, tick, after_chunk, made, scores_later)
    finally:
        if source.query is not None:
            # It holds a transaction open, which nobody needs while the job is scored.
            source.query.close()


def _written(
    source: Source,
    adapter: Adapter,
    store: Store,
    publisher: Publisher,
    say: Say,
    asked: Asked,
    tick: Callable[[], None],
    after_chunk: Callable[[int, int], None],
    made: Callable[[Job], object],
    scores_later: bool,
) -> Job:
    job, new = open_job(source, adapter, store.ledger, asked=asked)
    made(job)
    if not new and asked.max_cost is not None and asked.max_cost.dollars != job.max_cost:
        if store.ledger.jobs.set_budget(job.id, asked.max_cost):
            say(f"Job {job.id} has a budget of {asked.max_cost} from now on.")
        else:
            say(f"Its budget stays as it is; `loracle retry {job.id} --max-cost DOLLARS` changes it.")
    if not new and source.options.name not in (None, job.name):
        say(f"Job {job.id} keeps its name, {job.name}: a job can't be renamed, and --again makes a new one.")
    if not new and job.state != "reading":
        say(f"{source.file.name}: {_as_it_stands(job)}")
        if job.state not in OVER:
            publisher.publish()
        return job
    if not new:
        say(f"{source.file.name}: job {job.id} is taken up again after {job.records_read:,} records.")
    told: list[str] = []

    def chunk_written(reviews: int, rejects: int) -> None:
        after_chunk(reviews, rejects)
        publisher.publish()
        tick()

    def after_look() -> None:
        if not told:
            told.extend(source.language_notes)
            announce(source, told, say)

    enqueue_file(
        job,
        source,
        store.ledger,
        scores_later=scores_later,
        after_chunk=chunk_written,
        idle=tick,
        after_look=after_look,
    )
    publisher.publish()
    announce(source, source.notes, say)
    return job


def announce(source: Source, sentences: Sequence[str], say: Say) -> None:
    """Says each of the sentences about the source."""
    for sentence in sentences:
        say(f"{source.file.name}: {sentence}")


def _as_it_stands(job: Job) -> str:
    """What has become of the job that a file has already, and the ways on."""
    again = "--again scores the file in a new job"
    if job.state == "done" and not job.reviews_read:
        return (
            f"job {job.id} has these records, is done, and has no reviews: all records were rejected "
            f"(`loracle status {job.id} --rejects`); {again}."
        )
    if job.state == "done":
        return f"job {job.id} has these reviews and is done. `loracle results {job.id}` shows its labels; {again}."
    if job.state in OVER:
        return f"job {job.id} has these reviews and is {job.state}. `loracle retry {job.id}` takes it up; {again}."
    return f"job {job.id} has these reviews and isn't finished yet: its labels so far are kept; {again}."


def usual_batch(settings: Settings) -> int:
    """What a GPU scores at once where a worker with one is online; 256 else, and where the broker is away."""
    from worker.pool.supervisor import is_on_gpu

    if has_no_queue(settings):
        return settings.batch_size
    try:
        online = workers_online(settings)
    except BrokerUnreachable:
        return settings.batch_size
    return GPU_BATCH if any(map(is_on_gpu, online)) else settings.batch_size


class Publisher:
    """Publishes for who enqueues; with the broker away the ledger keeps the work."""

    def __init__(self, settings: Settings, store: Store, *, say: Say) -> None:
        self._say = say
        self._settings = settings
        self._store = store
        self._publish: Publish | None = None
        self._unheard = False

    def publish(self) -> None:
        """Publishes what the window has room for; says once if Redis is away."""
        if self._unheard:
            return
        if self._publish is None:
            from worker.pool.app import make_app, publisher
            from worker.pool.valkey import running_pid

            if self._settings.embedded and running_pid(self._settings.home) is None:
                # The next worker brings the queue along, and publishes.
                return
            self._publish = publisher(make_app(self._settings))
        try:
            heard = publish_waiting(
                self._store.ledger, self._publish, "adapter", window=self._settings.publish_window
            )
        except BrokerUnreachable:
            heard = False
        if not heard:
            self._unheard = True
            self._say(
                f"Warning: {self._where()} can't be reached; the job is saved, and the workers publish it when Redis "
                "is back."
            )

    def _where(self) -> str:
        url = self._settings.redis_url
        return "Redis" if url is None else f"{without_secrets(url.get_secret_value())} (REDIS_URL)"
