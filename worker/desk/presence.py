"""Who is there to work: the workers of each lane, and what to say where one has none."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from worker.bootstrap import Store, worker_name
from worker.desk.options import Say
from worker.errors import BrokerUnreachable
from worker.policy import Policy
from worker.reviews import LANES, OVER, Job, Lane, duration
from worker.settings import Settings

QUIET_S = 15.0
"""A worker that lives leaves a sign every second, or every ten where its database is away."""


def worker_command(lanes: Collection[Lane]) -> str:
    """The command that starts a worker of these lanes."""
    named = "".join(f" --lane {lane}" for lane in LANES if lane in lanes)
    return f"loracle worker{'' if named == ' --lane adapter' else named}"


def has_no_queue(settings: Settings) -> bool:
    """Whether the queue is this machine's own, and no worker has started it."""
    from worker.pool.valkey import running_pid

    return settings.embedded and running_pid(settings.home) is None


def check_queue(settings: Settings) -> None:
    """Returns if the configured Redis, where one is, answers and is new enough.

    Raises:
        BrokerUnreachable: it doesn't answer.
        SettingsInvalid: it is too old.
    """
    from worker.pool import app

    if not settings.embedded:
        app.ping(app.make_app(settings))


def workers_online(settings: Settings, lane: Lane = "adapter") -> list[str]:
    """The names of the lane's workers that live.

    Raises:
        BrokerUnreachable: the broker is away.
    """
    from worker.pool import app

    return app.workers_online(app.make_app(settings), lane, host=worker_name(settings))


def nobody(settings: Settings, lane: Lane, *, held: str = "", lanes: Iterable[Lane] = ()) -> str | None:
    """That no worker of the lane is there, since when, and the command that starts one; None if there is one that
    left a sign lately.

    `held` says what of the job a worker that ended still has. `lanes` are all that are needed: where the queue
    is this machine's own, one worker serves them.

    Raises:
        BrokerUnreachable: the broker is away.
    """
    from worker.pool import app
    from worker.pool.valkey import running_pid

    if has_no_queue(settings):
        return f"no worker runs on this machine{held}: start `{worker_command([lane, *lanes])}`"
    celery = app.make_app(settings)
    seen = app.last_seen(celery, lane)
    online = workers_online(settings, lane)
    if online and (seen is None or seen[1] <= QUIET_S):
        return None
    if not online and (stopping := app.workers_stopping(celery, lane, host=worker_name(settings))):
        return (
            f"{stopping[0]} is stopping: it finishes the batches that it holds and takes no more. Then start "
            f"`{worker_command([lane])}`"
        )
    pid = running_pid(settings.home) if settings.embedded else None
    if seen is not None and (online or (pid is not None and seen[0].endswith(f"(pid {pid})"))):
        return (
            f"{seen[0]} has given no sign for {duration(seen[1])}: it was halted (SIGSTOP), or its machine or "
            f"database hangs. Let it go on (`kill -CONT`), or start it anew"
        )
    since = "yet" if seen is None else f"for {duration(seen[1])}"
    none = f"no worker of the {lane} lane has been seen {since}{held}"
    if settings.embedded:
        return (
            f"{none}. The one with pid {pid} may still be starting; if it serves another "
            f"lane, stop it and start `{worker_command(LANES)}`"
        )
    return f"{none}: start `{worker_command([lane])}` on a host that reaches this Redis"


def lanes_of(policy: str) -> list[Lane]:
    """The lanes whose workers a job of this policy needs, the one that comes first at the front."""
    parsed = Policy.parse(policy)
    lanes: list[Lane] = ["adapter"] if parsed.names_adapter else []
    return [*lanes, "openai"] if parsed.names_oracle else lanes


def who_is_missing(settings: Settings, policies: Iterable[str]) -> dict[Lane, str]:
    """The lanes that jobs of these policies need and that have no worker, with the sentence of `nobody`. Of a broker
    that is away nothing is known."""
    missing: dict[Lane, str] = {}
    lanes = dict.fromkeys(lane for policy in policies for lane in lanes_of(policy))
    try:
        for lane in lanes:
            said = nobody(settings, lane, lanes=lanes)
            if said is not None:
                missing[lane] = said
    except BrokerUnreachable:
        return {}
    return missing


def who_waits(settings: Settings, store: Store, jobs: Iterable[Job]) -> dict[int, list[str]]:
    """Which of these jobs nobody works on, by number, with what `nobody` says of each lane that they lack."""
    # Of these `loracle distill` itself does the work.
    distilled = store.queries.distillations.unfinished()
    active = {job.id: job.policy for job in jobs if job.state not in OVER and job.id not in distilled}
    missing = who_is_missing(settings, active.values())
    return {
        job_id: list(dict.fromkeys(missing[lane] for lane in lanes_of(policy) if lane in missing))
        for job_id, policy in active.items()
        if any(lane in missing for lane in lanes_of(policy))
    }


def say_who_is_missing(settings: Settings, policy: str, *, say: Say) -> None:
    """Says which workers a job of this policy waits for."""
    for sentence in dict.fromkeys(who_is_missing(settings, [policy]).values()):
        say(f"The job waits: {sentence}.")
