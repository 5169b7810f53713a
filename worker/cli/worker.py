"""`loracle worker`."""

from __future__ import annotations

import logging
import os
import signal
import time
from types import FrameType

import click

from worker.bootstrap import open_store
from worker.cli.common import Address
from worker.errors import BrokerUnreachable, OracleInvalid
from worker.logs import log_lines
from worker.metrics.host import registry_of
from worker.metrics.server import serve
from worker.pool.app import broker_url, make_app, ping
from worker.pool.supervisor import LocalPool, WorkerPlan, no_device, plan_workers
from worker.reviews import LANES, counted
from worker.settings import Settings, read_settings
from worker.urls import without_secrets

log = logging.getLogger(__name__)

TICK_S = 0.2
INTERRUPTED = 130


@click.command()
@click.option(
    "--gpus", default="all", show_default=True, help="all (that LORACLE_DEVICE allows), none, or 0,1."
)
@click.option("--children", type=click.IntRange(min=1), help="Processes per GPU (else 3; 1 on a CPU).")
@click.option(
    "--lane",
    "lanes",
    type=click.Choice(LANES),
    multiple=True,
    default=["adapter"],
    show_default=True,
    help="adapter scores on this host, openai asks the oracle; may be given twice.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Oracle requests in flight at once.",
)
@click.option("--metrics", type=Address(), help="Serve what these workers count to Prometheus, such as 9464.")
def worker(
    gpus: str,
    children: int | None,
    lanes: tuple[str, ...],
    concurrency: int,
    metrics: tuple[str, int] | None,
) -> int:
    """Run the worker pool of this host until SIGTERM or Ctrl-C.

    After the first signal it finishes the batches that it works on. A second signal ends them at once, and the next
    worker scores their reviews. Without REDIS_URL it starts its own queue, and works for this machine alone.

    If a host can't load a job's adapter, or has another OPENAI_BASE_URL than the job, it gives the batches back and
    tries again after five minutes. This doesn't count as an attempt. If a worker's device breaks three times in a
    row, the worker takes no batches until it has scored a test text on that device. The other workers do the job:
    no review fails, and no job stops because of it. `loracle status JOB` and `loracle doctor` say why. A supervisor
    must signal the main process alone (systemd: KillMode=mixed).

    \b
    Example:
      loracle worker --lane adapter --lane openai --concurrency 32
    """
    settings = read_settings()
    log_lines(settings.log_level, settings.log_format)
    signals = Signals()
    plan = plan_workers(gpus, children, device=settings.device) if "adapter" in lanes else []
    if plan and plan[0].missing is not None:
        log.warning("%s This worker scores nothing; jobs wait for other hosts.", no_device(plan[0].missing))
    elif gpus == "all" and settings.device == "auto" and plan and plan[0].gpu is None:
        log.info("No GPU found: the CPU does the work.")
    if "openai" in lanes:
        if settings.openai_api_key is None:
            raise OracleInvalid(
                "OPENAI_API_KEY is not set: the openai lane can't ask anybody. Set it; a server of your own "
                "(OPENAI_BASE_URL) takes any text as key."
            )
        plan.append(WorkerPlan(None, concurrency, lane="openai"))
    with LocalPool(settings, plan, count=metrics is not None) as pool:
        open_store(settings)
        _say(settings, plan)
        pool.start()
        if metrics is not None and pool.signs is not None:
            serve(metrics, registry_of(pool.signs))
        while not signals.received:
            pool.poll()
            time.sleep(TICK_S)
        log.info("Stopping: the batches in flight are finished first. Once more ends them at once.")
        pool.request_stop()
        while pool.running:
            if len(signals.received) > 1:
                pool.kill()
            time.sleep(TICK_S)
    log.info("Stopped.")
    return INTERRUPTED if signal.SIGINT in signals.received else 0


class Signals:
    """Remembers the signals that ask for a stop; from now on they interrupt nothing."""

    def __init__(self) -> None:
        self.received: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Under nohup the end of the terminal is to stop nothing.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)


def _say(settings: Settings, plan: list[WorkerPlan]) -> None:
    devices = ", ".join(
        f"{one.device} with "
        + (
            counted(one.children, "request at once", "requests at once")
            if one.lane == "openai"
            else counted(one.children, "child process", "child processes")
        )
        for one in plan
    )
    broker = "a private Valkey" if settings.embedded else without_secrets(broker_url(settings))
    database = without_secrets(settings.database)
    log.info(f"Worker {os.getpid()} on {devices}; database {database}; queue {broker}.")
    try:
        ping(make_app(settings))
    except BrokerUnreachable as error:
        log.info(f"{error} The worker keeps trying.")
