"""What keeps workers from a job's batches, for people."""

from __future__ import annotations

from collections.abc import Sequence

from worker.bootstrap import Store
from worker.errors import BrokerUnreachable, HostUnfit
from worker.policy import Policy
from worker.settings import Settings
from worker.store.fault_rows import Fault
from worker.store.faults import WITHDRAWN_S
from worker.store.progress import Progress


def faults_online(settings: Settings, store: Store, adapter_id: int | None = None) -> list[Fault]:
    """The faults of the workers that are online, one per worker: of its device, else of an adapter.

    With `adapter_id` of that adapter alone. Without any in the database the broker isn't asked.
    """
    from worker.pool.app import make_app, workers_online

    faults = [
        fault
        for fault in store.queries.worker_faults()
        if adapter_id is None or fault.adapter_id in (None, adapter_id)
    ]
    if not faults:
        return []
    try:
        online = workers_online(make_app(settings))
    except BrokerUnreachable:
        return []
    first: dict[str, Fault] = {}
    for fault in faults:
        if fault.worker in online:
            first.setdefault(fault.worker, fault)
    return list(first.values())


def why_nobody_can(faults: Sequence[Fault], online: int) -> str | None:
    """Why none of so many workers can score a job; None if one of them can."""
    if not faults or len(faults) < online:
        return None
    cant = "score" if any(fault.adapter_id is None for fault in faults) else "load"
    return f"no worker can {cant} it: {'; '.join(f'{fault.worker}: {reason(fault)}' for fault in faults)}"


def why_unscored(settings: Settings, store: Store, at: Progress) -> str | None:
    """Why no worker scores a job of `loracle run`; None if one may.

    Raises:
        HostUnfit: nobody ever will: the only host is this one, and no oracle takes over.
    """
    from worker.pool.app import make_app, workers_online

    faults = faults_online(settings, store, at.job.adapter_id) if at.batches.get("queued") else []
    if not faults:
        return None
    try:
        nobody = why_nobody_can(faults, len(workers_online(make_app(settings))))
    except BrokerUnreachable:
        return None
    on_its_own = settings.embedded and Policy.parse(at.job.policy).kind != "fallback"
    if nobody and on_its_own and all(fault.adapter_id is not None for fault in faults):
        raise HostUnfit(f"{nobody}. Mend it and give the same command again: job {at.job.id} goes on.")
    return nobody


def reason(fault: Fault) -> str:
    """What is wrong, and how it ends."""
    said = fault.reason.rstrip(".")
    if fault.adapter_id is None:
        return f"its device is broken ({said}); it is probed until it works"
    return f"{said} (tried again every {WITHDRAWN_S / 60:g} min, and at a restart of the worker)"
