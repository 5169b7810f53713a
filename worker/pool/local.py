"""All that `loracle worker` and `loracle run` keep alive on this host: the queue and the Celery workers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from worker.errors import DataDirectoryBusy
from worker.pool.supervisor import Spawn, Supervisor, WorkerPlan
from worker.pool.valkey import EmbeddedValkey, running_pid
from worker.settings import Settings

log = logging.getLogger(__name__)


class LocalPool:
    """The private Valkey, where no Redis is configured, and the planned workers. Entering it starts the queue.

    It has no loop of its own: call `poll` a few times a second. Use it on the main thread alone, which its processes
    die with. With `may_wait`, another worker that has this data directory is no error: it does the work, and when it
    ends this pool takes over.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Sequence[WorkerPlan],
        *,
        may_wait: bool = False,
        spawn: Spawn | None = None,
    ) -> None:
        self._home = settings.home
        self._valkey = EmbeddedValkey(settings.home) if settings.embedded else None
        self._supervisor = Supervisor(settings, plan, spawn=spawn)
        self._may_wait = may_wait
        self._started = False
        self._stopping = False
        self.waits_for: str | None = None
        """The sentence that names the other worker which does the work; None: this pool does it."""

    def start(self) -> None:
        """Starts the workers, now or when the other worker has ended."""
        self._started = True
        if self.waits_for is None:
            self._supervisor.start()

    def poll(self) -> None:
        """Starts again what died, the queue first, later after each death.

        Raises:
            LoracleError: one died five times in ten minutes.
        """
        if self._stopping:
            return
        if self.waits_for is not None:
            if running_pid(self._home) is None:
                self._take_over()
            return
        if self._valkey is not None:
            self._valkey.poll()
        if self._started:
            self._supervisor.poll()

    @property
    def running(self) -> int:
        """How many workers run."""
        return self._supervisor.running

    def request_stop(self) -> None:
        """Asks every worker to finish the batches in flight and end; returns at once. Nothing starts again."""
        self._stopping = True
        self._supervisor.request_stop()

    def kill(self) -> None:
        """Ends every worker at once; the ledger gives their batches to others."""
        self._stopping = True
        self._supervisor.kill()

    def stop(self) -> None:
        """Stops the workers warmly and after them the queue, on which they rely to the end."""
        self._stopping = True
        try:
            self._supervisor.stop()
        finally:
            # Also when a second Ctrl-C ends the wait for the workers.
            if self._valkey is not None:
                self._valkey.stop()

    def __enter__(self) -> LocalPool:
        self._open_queue()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _open_queue(self) -> None:
        if self._valkey is None:
            return
        try:
            self._valkey.start()
        except DataDirectoryBusy as busy:
            if not self._may_wait:
                raise
            self.waits_for = str(busy)
        else:
            self.waits_for = None

    def _take_over(self) -> None:
        self._open_queue()
        if self.waits_for is None:
            log.warning("The worker that did the work on this machine has ended: this command takes over.")
            if self._started:
                self._supervisor.start()
