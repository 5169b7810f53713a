"""What keeps workers from a job's batches, for people."""

from __future__ import annotations

from collections.abc import Sequence

from worker.bootstrap import Store
from worker.cli.common import duration
from worker.errors import BrokerUnreachable
from worker.settings import Settings
from worker.store.fault_rows import Fault


def faults_online(settings: Settings, store: Store, adapter_id: int | None = None) -> list[Fault]:
    """The faults of the workers that are online, one per worker: of its device, else of an adapter.

    With `adapter_id` of that adapter alone. Without any in the database the broker isn't asked.
    """
    from worker.celery_app import make_app, workers_online

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


def reason(fault: Fault) -> str:
    """What is wrong, and when the worker tries again."""
    again = f"tried again in {duration(fault.again_in_s)}" if fault.again_in_s else "tried again now"
    said = fault.reason.rstrip(".")
    return f"its device is broken ({said}; {again})" if fault.adapter_id is None else f"{said} ({again})"
