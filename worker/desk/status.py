"""How far a job is, why nothing moves, and what keeps workers from its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.bootstrap import Store
from worker.desk.breaker import read_breaker_of
from worker.desk.presence import has_no_queue, lanes_of, nobody, workers_online
from worker.errors import BrokerUnreachable, HostUnfit
from worker.policy import Policy
from worker.quality.guarantee import not_certified
from worker.quality.measured import (
    Measured,
    agreement_as_it_is,
    kept_agreement,
    kept_certificate,
    summarise_agreement,
)
from worker.reviews import LANES, OVER, Job, counted, duration
from worker.settings import Settings
from worker.store.distillations import Distilled
from worker.store.faults import WITHDRAWN_S, Fault
from worker.store.progress import Progress, WaitingBulk


def job_report(settings: Settings, store: Store, job_id: int) -> dict[str, Any]:
    """All that `loracle status` knows of a job, by name. Raises JobUnknown."""
    at = store.queries.jobs.progress(job_id)
    job = at.job
    adapter = store.queries.adapters.get(job.adapter_id)
    report = _adapter_report(at, adapter.name, adapter.sha256)
    scorer = store.queries.jobs.adapter_scorer(job_id)
    report["adapter_on"] = scorer.where if scorer is not None and scorer.where else None
    oracle = None if job.oracle_id is None else oracle_report(settings, store, at)
    over = job.state in OVER
    report["oracle"] = oracle
    report.update(summarise_agreement(_agreement(store, job)))
    distilled = store.queries.distillations.of(job_id)
    report["stage"] = None if distilled is None else distilled.stage
    report["distilled"] = None if distilled is None else distilled.figures
    report["stage_words"] = None if distilled is None or over else stage_words(distilled, at)
    report["corrections"] = store.queries.browsing.corrections(job_id)
    report["certificate"] = kept_certificate(store.queries, job.id)
    report["guarantee"] = not_certified(job, report["certificate"])
    if Policy.parse(job.policy).guarantee is not None and not over:
        report["guarantee"] = where_it_stands(store, job)
    faults = [] if over else faults_online(settings, store, job.adapter_id)
    unfit = [] if over or job.oracle_id is None else faults_online(settings, store, oracle_id=job.oracle_id)
    report["unfit_workers"] = [
        {"worker": fault.worker, "reason": reason(fault)} for fault in (*faults, *unfit)
    ]
    waits = None if over or report["stage"] not in (None, "labelling") else _waiting_for(settings, at, faults)
    report["waiting_for"] = waits
    report["oracle_waiting_for"] = None if over else oracle_waiting_for(settings, store, at)
    if waits or report["oracle_waiting_for"]:
        report["seconds_left"] = None
    return report


def with_way_out(reason: str, job_id: int) -> str:
    """Why a job or its oracle stopped, and the command that goes on."""
    if "loracle retry" in reason:
        return reason
    return f"{reason.rstrip('.')}. Once that is mended, `loracle retry {job_id}` goes on."


def stage_words(at: Distilled, progress: Progress) -> str:
    """How far a job is whose adapter is trained first."""
    if at.stage == "labelling":
        return "the adapter labels the reviews"
    if at.stage == "reading":
        return "its file is read; then the oracle is asked"
    which = f"round {at.round} of {at.rounds}: "
    if at.stage == "asking":
        answered = sum(n for (_, state), n in progress.requests.items() if state == "labelled")
        return f"{which}the oracle has labelled {answered:,} of {sum(progress.requests.values()):,}"
    doing = "an adapter is trained on the answers" if at.stage == "training" else "the adapter is measured"
    return f"{which}{doing}, where `loracle distill` runs; the same command goes on if it was ended"


def figure_sentences(figures: Mapping[str, Any] | None) -> list[str]:
    """What was measured on the held-out reviews, and which adapter was chosen."""
    if figures is None:
        return []
    trained, at_hand = figures["trained"], figures.get("at_hand")
    said = [f"The trained adapter '{trained['name']}' {_agrees(trained)}."]
    if at_hand is not None:
        said.append(f"The adapter at hand, '{at_hand['name']}', {_agrees(at_hand)}.")
    if figures["chosen"] == "at_hand":
        said.append("The trained adapter is no better, so the one at hand labels the job.")
    return said


def _agrees(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return (
        f"agrees with the oracle on {found['accuracy']:.1%} of {found['n']:,} held-out reviews "
        f"({low:.1%} to {high:.1%})"
    )


def _agreement(store: Store, job: Job) -> Measured | None:
    """What a job that is done came to; of another one only what was kept, since nobody waits for it."""
    if job.state == "done":
        return agreement_as_it_is(store.queries, job.id)
    return kept_agreement(store.queries, job)


def _adapter_report(at: Progress, adapter: str, sha256: str) -> dict[str, Any]:
    job = at.job
    return {
        "job_id": job.id,
        "name": job.name,
        "state": job.state,
        "error": job.error,
        "texts": job.texts,
        "policy": job.policy,
        "adapter": adapter,
        "adapter_sha256": sha256,
        "rows": job.records_read,
        "reviews": at.reviews,
        "labelled": at.labelled,
        "undecided": at.undecided,
        "failed": at.failed,
        "rejected": at.rejected,
        "without_text": job.without_text,
        "other_language": job.other_language,
        "languages": job.languages,
        "gold_left_out": job.gold_left_out,
        "batches": dict(at.batches),
        "reviews_per_s": None if at.speed is None else round(at.speed, 2),
        "seconds_left": at.seconds_left,
        "bulks": [bulk_words(one) for one in at.bulks],
        "last_error": at.last_error,
    }


def why_it_waits(settings: Settings, store: Store, at: Progress) -> str | None:
    """Why a job's adapter or, else, its oracle doesn't get on; None while work goes on."""
    faults = faults_online(settings, store, at.job.adapter_id)
    distilled = store.queries.distillations.of(at.job.id)
    if distilled is not None and distilled.stage != "labelling":
        # The command itself trains; only the oracle's answers are waited for.
        return oracle_waiting_for(settings, store, at) or (
            None if distilled.stage == "asking" else stage_words(distilled, at)
        )
    return _waiting_for(settings, at, faults) or oracle_waiting_for(settings, store, at)


def _waiting_for(settings: Settings, at: Progress, faults: Sequence[Fault]) -> str | None:
    """Why nothing moves, as a sentence with the way out; None while work goes on."""
    running, lanes = at.batches.get("running", 0), lanes_of(at.job.policy)
    if not running and not at.batches.get("queued"):
        if at.open_requests:
            return None
        if Policy.parse(at.job.policy).guarantee is not None and has_no_queue(settings):
            # What the oracle is asked next a worker finds out.
            return nobody(settings, "adapter", lanes=lanes)
        return (
            "the file is still being read, and what was read is scored" if at.job.state == "reading" else None
        )
    # A worker that was killed leaves its batches running until their lease ends.
    held = (
        f" (a worker that ended still holds {counted(running, 'batch', 'batches')}, for a minute at most)"
        if running
        else ""
    )
    try:
        missing = nobody(settings, "adapter", held=held, lanes=lanes)
        online = 0 if missing else len(workers_online(settings))
    except BrokerUnreachable as error:
        return None if running else f"{error} Work goes on when it is back"
    why = missing or why_nobody_can(faults, online)
    if why is not None:
        return why
    if running or at.pace:
        return None
    return "workers are busy with other jobs, or loading the adapter"


def bulk_words(bulk: WaitingBulk) -> str:
    """ "Bulk 7: submitted 12 min ago, in_progress, 120 of 260 lines answered"."""
    words = ["not submitted yet"]
    if bulk.submitted_s is not None:
        words = [f"submitted {duration(bulk.submitted_s)} ago"]
    return f"Bulk {bulk.batch_id}: {', '.join([*words, *([bulk.said] if bulk.said else [])])}"


def where_it_stands(store: Store, job: Job) -> str:
    """How far the guarantee of a job is that isn't certified yet."""
    drawn = store.queries.guarantees.of(job.id)
    if drawn is None:
        return "its audit is drawn once all reviews are scored"
    if drawn.cut is None:
        return f"the oracle labels the audit, {drawn.terms.sample:,} reviews"
    return "the audit is answered; the oracle decides the least sure reviews"


def oracle_report(settings: Settings, store: Store, at: Progress) -> dict[str, Any]:
    """The oracle's part of a job's status."""
    job = at.job
    assert job.oracle_id is not None
    scorer = store.queries.oracle.scorer(job.oracle_id)
    by_state: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    for (reason, state), count in at.requests.items():
        by_state[state] = by_state.get(state, 0) + count
        by_reason[reason] = by_reason.get(reason, 0) + count
    return {
        "scorer": scorer.name,
        "route": scorer.details["route"],
        "base_url": scorer.details["base_url"],
        "model": scorer.details["model"],
        "requests": by_state,
        "reasons": by_reason,
        "sources": at.sources,
        "spent": job.spent,
        "lost": store.queries.oracle.lost(job.id),
        "max_cost": job.max_cost,
        "prompts": store.queries.oracle.prompt_counts(job.oracle_id),
        "handed_over": store.queries.oracle.handed_over(job.id),
        "error": job.oracle_error,
        "breaker": read_breaker_of(settings, scorer.details["base_url"], scorer.details["model"]),
    }


def oracle_waiting_for(settings: Settings, store: Store, at: Progress) -> str | None:
    """Why the oracle isn't asked, as a sentence with the way out; None while it is or needn't be."""
    if at.job.oracle_id is None:
        return None
    if not at.open_requests:
        return _fallback_hint(settings, store, at)
    details = store.queries.oracle.scorer(at.job.oracle_id).details
    elsewhere = asked_elsewhere(settings, at.job.id, details)
    breaker = read_breaker_of(settings, details["base_url"], details["model"])
    if breaker and breaker["open"]:
        paused = (
            f"the oracle isn't asked for a while ({breaker['reason']}); "
            f"it is tried again in {duration(breaker['retry_in_s'])}, or at once with `loracle retry {at.job.id}`"
        )
        return ". ".join(filter(None, (paused, elsewhere)))
    try:
        missing = nobody(settings, "openai", lanes=lanes_of(at.job.policy))
        online = 0 if missing else len(workers_online(settings, "openai"))
    except BrokerUnreachable:
        return None
    if missing:
        return ". ".join(filter(None, (missing, elsewhere)))
    why = why_nobody_can(faults_online(settings, store, oracle_id=at.job.oracle_id), online)
    if why is not None:
        return why
    prompts = store.queries.oracle.prompt_counts(at.job.oracle_id)
    if prompts.get("parked"):
        said = str(store.queries.oracle.prompt_error(at.job.oracle_id)).rstrip(".")
        return f"{prompts['parked']:,} Prompts wait: {said}. `loracle retry {at.job.id}` asks at once"
    if at.bulks and not prompts.get("running"):
        return "OpenAI works on a Bulk (`loracle bulk status`)"
    return None


def asked_elsewhere(settings: Settings, job_id: int, details: Mapping[str, Any]) -> str | None:
    """That the settings here name another server than the job's oracle, and the way out; None if they don't."""
    if details["base_url"] == settings.oracle_url:
        return None
    return (
        f"The job's oracle is at {details['base_url']}, and OPENAI_BASE_URL is {settings.oracle_url} here: if the "
        f"job's is wrong, `loracle cancel {job_id}` and enqueue its file again"
    )


def _fallback_hint(settings: Settings, store: Store, at: Progress) -> str | None:
    """A fallback job without an adapter worker that can score it: who would take over, and when."""
    if not at.job.policy.startswith("fallback") or at.batches.get("running") or not at.batches.get("queued"):
        return None
    if has_no_queue(settings):
        # It is said already that one worker of both lanes is missing.
        return None
    try:
        unfit = {fault.worker for fault in faults_online(settings, store, at.job.adapter_id)}
        if set(workers_online(settings)) - unfit:
            return None
        online = len(workers_online(settings, "openai"))
    except BrokerUnreachable:
        return None
    if online:
        return f"it takes over when no adapter worker has taken a batch for {settings.fallback_after_s:g} s"
    return "it would take over, but no openai worker answers either: start `loracle worker --lane openai`"


def faults_online(
    settings: Settings, store: Store, adapter_id: int | None = None, *, oracle_id: int | None = None
) -> list[Fault]:
    """The faults of the workers that are online, one per worker: of its device, else of an adapter or oracle.

    With `adapter_id` of that adapter and devices alone, with `oracle_id` of that scorer alone. Without any in the
    database the broker isn't asked.
    """
    faults = store.queries.faults.all()
    if adapter_id is not None:
        faults = [fault for fault in faults if fault.is_device or fault.adapter_id == adapter_id]
    elif oracle_id is not None:
        faults = [fault for fault in faults if fault.oracle_id == oracle_id]
    if not faults:
        return []
    try:
        online = {name for lane in LANES for name in workers_online(settings, lane)}
    except BrokerUnreachable:
        return []
    first: dict[str, Fault] = {}
    for fault in faults:
        if fault.worker in online:
            first.setdefault(fault.worker, fault)
    return list(first.values())


def why_nobody_can(faults: Sequence[Fault], online: int) -> str | None:
    """Why none of so many workers can score a job, or ask its oracle; None if one of them can."""
    if not faults or len(faults) < online:
        return None
    cant = "load it"
    if any(fault.is_device for fault in faults):
        cant = "score it"
    elif faults[0].oracle_id is not None:
        cant = "ask its oracle"
    return f"no worker can {cant}: {'; '.join(f'{fault.worker}: {reason(fault)}' for fault in faults)}"


def why_unscored(settings: Settings, store: Store, at: Progress) -> str | None:
    """Why no worker scores a job of `loracle run`; None if one may.

    Raises:
        HostUnfit: nobody ever will: the only host is this one, and no oracle takes over.
    """
    faults = faults_online(settings, store, at.job.adapter_id) if at.batches.get("queued") else []
    if not faults:
        return None
    try:
        why = why_nobody_can(faults, len(workers_online(settings)))
    except BrokerUnreachable:
        return None
    on_its_own = settings.embedded and Policy.parse(at.job.policy).kind != "fallback"
    if why and on_its_own and all(fault.adapter_id is not None for fault in faults):
        raise HostUnfit(f"{why}. Mend it and give the same command again: job {at.job.id} goes on.")
    return why


def reason(fault: Fault) -> str:
    """What is wrong, and how it ends."""
    said = fault.reason.rstrip(".")
    if fault.is_device:
        return f"its device is broken ({said}); it is probed until it works"
    return f"{said} (tried again every {WITHDRAWN_S / 60:g} min, and at a restart of the worker)"
