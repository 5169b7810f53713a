"""The story of a Prompt or a Bulk: claimed, paid for, asked or submitted once, saved. Free of Celery and click."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from worker.errors import (
    BudgetSpent,
    BulkTooLarge,
    HostUnfit,
    LeaseLost,
    LoracleError,
    OracleInvalid,
    OracleQuotaSpent,
    OracleUnavailable,
    Transient,
)
from worker.jobs.holding import LeaseKeeper, PromptAccount, Saved
from worker.jobs.scoring import Publish, hand_on
from worker.logs import BatchLine
from worker.oracle.asking import OracleScorer
from worker.oracle.bulk import OVER, BulkScorer, Collected, Line, how_far
from worker.oracle.client import plain_code
from worker.oracle.prices import NOTHING
from worker.oracle.throttle import Throttle
from worker.reviews import Money, Prompt
from worker.store.faults import WITHDRAWN_S
from worker.store.ledger import Ledger
from worker.store.prompts import BulkRow

log = logging.getLogger(__name__)

PARKED_S = 60.0
"""How long a Prompt waits for quota or for more of LORACLE_MAX_COST."""
MONEY_UNDER_WAY_S = 1.0


def ask_prompt(
    batch_id: int,
    *,
    ledger: Ledger,
    oracle_for: Callable[[int], OracleScorer | BulkScorer],
    gate_for: Callable[[OracleScorer], Throttle],
    publish: Publish,
    window: int,
    retry_delay_s: float,
    poll_s: float = 60.0,
    max_total: Money | None = None,
    worker: str = "",
    task_id: str = "",
    saved: Saved = lambda *_: None,
    goes_on: Callable[[], bool] = lambda: False,
    counting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> int:
    """Claims a Prompt or Bulk, asks the oracle and saves what it answers; how many requests got an answer.

    That is the one of the message, unless one of a higher priority waits or this one is not to be had. If none waits,
    that is no error; a failure gives it back to the ledger. `worker` leaves oracles that it can't ask to others.
    While `goes_on`, and nothing goes wrong, those follow that have no message: with a message for each, Celery took
    nearly half of the lane's time. `counting` is entered for each.
    """
    began = time.monotonic()
    unasked = ledger.faults.unasked(worker)
    prompt = ledger.prompts.claim_next(batch_id, task_id=task_id, without=unasked)
    if prompt is None:
        if unasked:
            hand_on(ledger, publish, "openai", window=window)
        return 0
    ask = partial(
        _ask,
        ledger,
        oracle_for=oracle_for,
        gate_for=gate_for,
        retry_delay_s=retry_delay_s,
        poll_s=poll_s,
    )
    answered = 0
    while prompt is not None:
        account = PromptAccount(ledger, prompt, max_total=max_total, saved=saved)
        with counting():
            outcome = _ask_and_say(ask, ledger, prompt, account, worker, began)
        answered += account.answered
        began = time.monotonic()
        following = None
        if outcome == "done" and goes_on():
            following = ledger.prompts.claim_unpublished(task_id=task_id, without=unasked)
        for job_id in prompt.job_ids:
            # Most jobs have something open as long as there is more to ask.
            if following is None or job_id not in following.job_ids:
                ledger.jobs.complete(job_id)
        prompt = following
    return answered


def _ask_and_say(
    ask: Callable[[Prompt, PromptAccount], str],
    ledger: Ledger,
    prompt: Prompt,
    account: PromptAccount,
    worker: str,
    began: float,
) -> str:
    """Asks by `_ask`, and logs how it ended: the outcome, as `BatchLine` has it."""
    line = BatchLine(
        {
            "job_id": next(iter(prompt.job_ids), None),
            "job_ids": list(prompt.job_ids),
            "batch_id": prompt.id,
            "lane": "openai",
            "scorer_id": prompt.scorer_id,
            "reviews": len(prompt.requests),
            "attempt": prompt.attempts,
        },
        since=began,
    )
    line.stage("claim_s")
    try:
        line.outcome = ask(prompt, account)
    except HostUnfit as error:
        line.outcome = "host_unfit"
        if ledger.faults.unfit(prompt, worker, str(error)):
            log.warning(
                "This worker can't ask the oracle of %s %s and leaves it to others; it tries again in %g min: %s.",
                "job" if len(prompt.job_ids) == 1 else "jobs",
                ", ".join(map(str, prompt.job_ids)),
                WITHDRAWN_S / 60,
                error,
            )
    except LeaseLost:
        line.outcome = "lease_lost"
        log.warning("Lease of Prompt %s lost; its unsaved answers are dropped.", prompt.id)
    line.fields["answered"] = account.answered
    line.stage("ask_s")
    line.say()
    return line.outcome


def _ask(
    ledger: Ledger,
    prompt: Prompt,
    account: PromptAccount,
    oracle_for: Callable[[int], OracleScorer | BulkScorer],
    gate_for: Callable[[OracleScorer], Throttle],
    retry_delay_s: float,
    poll_s: float,
) -> str:
    """Asks; what goes wrong is the ledger's from here. How it ended, as `BatchLine` has it.

    Raises:
        LeaseLost: another worker has it.
        HostUnfit: this worker can't ask this oracle; the lease is still held.
    """
    in_bulk = False
    try:
        with LeaseKeeper(
            lambda: ledger.prompts.renew(prompt), lease_s=ledger.prompts.lease_s, name=f"Prompt {prompt.id}"
        ) as keeper:
            scorer = oracle_for(prompt.scorer_id)
            if isinstance(scorer, BulkScorer):
                in_bulk = True
                account.answered = advance(ledger, prompt, scorer, account, poll_s=poll_s)
            else:
                texts = [request.text for request in prompt.requests]
                try:
                    scorer.ask(texts, account, throttle=gate_for(scorer), heartbeat=keeper.beat)
                finally:
                    account.flush()
    except (LeaseLost, HostUnfit):
        raise
    except BulkTooLarge as error:
        ledger.bulks.split(prompt, str(error))
        return "split"
    except BudgetSpent as error:
        _without_money(ledger, prompt, error, in_bulk=in_bulk, poll_s=poll_s)
        return "without_money"
    except OracleQuotaSpent as error:
        log.error("Prompt %s is parked: %s", prompt.id, error)
        ledger.prompts.park(prompt, str(error), delay_s=PARKED_S)
        return "parked"
    except OracleInvalid as error:
        _say_stopped(prompt, error)
        _stop(ledger, prompt, prompt.job_ids, str(error), in_bulk=in_bulk)
        return "job_stopped"
    except OracleUnavailable as error:
        # An outage is no review's fault: once the breaker is open only its own probe goes out.
        counts = not error.limited and not in_bulk
        delay_s = error.retry_after_s if error.retry_after_s is not None else retry_delay_s
        log.warning("Prompt %s will be asked again: %s", prompt.id, error)
        ledger.prompts.release(prompt, str(error), delay_s=delay_s * random.uniform(1.0, 1.5), counts=counts)
        return "retry"
    except Transient:
        raise
    except Exception as error:
        # Only the type is logged, since a message may quote the review.
        log.error("Prompt %s failed with %s.", prompt.id, type(error).__name__)
        ledger.prompts.release(prompt, f"{type(error).__name__} while asking", delay_s=retry_delay_s)
        return "failed"
    return "done"


def _without_money(
    ledger: Ledger, prompt: Prompt, error: BudgetSpent, *, in_bulk: bool, poll_s: float
) -> None:
    """A Bulk that the budget doesn't allow is halved where a part of it may fit; else its job stops asking."""
    if not error.final or error.job_id is None:
        wait_s = poll_s if in_bulk else PARKED_S if error.final else MONEY_UNDER_WAY_S
        ledger.prompts.park(prompt, str(error), delay_s=wait_s)
    elif in_bulk and len(prompt.requests) > 1:
        ledger.bulks.split(prompt, str(error))
    else:
        log.warning("Job %s: %s", error.job_id, error)
        _stop(ledger, prompt, [error.job_id], str(error), in_bulk=in_bulk)


def _stop(ledger: Ledger, prompt: Prompt, job_ids: Sequence[int], reason: str, *, in_bulk: bool) -> None:
    """These jobs ask no more; the Prompt's other requests go back to the ledger."""
    if in_bulk:
        ledger.bulks.abandon(prompt, reason)
    ledger.jobs.stop_oracle(job_ids, reason)
    if not in_bulk:
        ledger.prompts.release(prompt, reason, delay_s=0.0, counts=False)


def _say_stopped(prompt: Prompt, reason: object) -> None:
    log.error(
        "The oracle isn't asked any more for %s %s: %s. Once that is mended, `loracle retry JOB` goes on.",
        "job" if len(prompt.job_ids) == 1 else "jobs",
        ", ".join(map(str, prompt.job_ids)),
        str(reason).rstrip("."),
    )


TOKEN_LIMIT = "token_limit_exceeded"
TOKEN_LIMIT_S = 600.0
MANY = 1_000
"""So many reviews in one Bulk are never at fault all together."""
GRACE_S = 300.0
"""How long a submission of which nobody heard may take to appear in OpenAI's list, before it is made again."""


def advance(
    ledger: Ledger, prompt: Prompt, scorer: BulkScorer, account: PromptAccount, *, poll_s: float
) -> int:
    """One step of a Bulk: submitted, looked at, or collected. How many requests got an answer.

    Raises:
        OracleInvalid, OracleUnavailable, BudgetSpent: it can't get on now; the lease is still held.
        LeaseLost: another worker has it.
    """
    bulk = ledger.bulks.get(prompt.id)
    assert bulk is not None, f"batch {prompt.id} has no Bulk"
    texts = [request.text for request in prompt.requests]
    lines = scorer.plan(f"b{prompt.id}", [request.attempts > 0 for request in prompt.requests])
    if bulk.remote_id is not None:
        return _collect(ledger, prompt, bulk.remote_id, scorer, account, lines, texts, poll_s)
    remote_id = _submitted_before(bulk, scorer)
    if remote_id is None:
        remote_id = _submit(ledger, prompt, bulk, scorer, account, lines, texts)
    ledger.bulks.note_submission(prompt, remote_id, poll_after_s=poll_s)
    log.info("Bulk %s: %d requests submitted as %s.", prompt.id, len(texts), remote_id)
    return 0


def _submitted_before(bulk: BulkRow, scorer: BulkScorer) -> str | None:
    """The submission that a worker made and didn't live to write down; None if there is none."""
    if bulk.creating_s is None:
        return None
    remote_id = scorer.find(bulk.client_key, since=bulk.created_at)
    if remote_id is None and bulk.creating_s < GRACE_S:
        raise OracleUnavailable(
            "it isn't known yet whether the Batch API took this Bulk",
            retry_after_s=GRACE_S / 10,
            limited=True,
        )
    return remote_id


def _submit(
    ledger: Ledger,
    prompt: Prompt,
    bulk: BulkRow,
    scorer: BulkScorer,
    account: PromptAccount,
    lines: list[Line],
    texts: list[str],
) -> str:
    content = scorer.content(lines, texts)
    # Of an upload that was never submitted some request may have left since.
    scorer.forget(bulk.file_id)
    ledger.bulks.begin(prompt)
    account.reserve(scorer.bounds(lines, texts), scorer.price)
    file_id = scorer.upload(content)
    ledger.bulks.note_upload(prompt, file_id)
    try:
        return scorer.submit(file_id, bulk.client_key, content)
    except (OracleInvalid, OracleUnavailable) as error:
        if isinstance(error, OracleInvalid | OracleQuotaSpent) or error.limited:
            # A clear no: there is no submission. After silence there may be one.
            ledger.bulks.begin(prompt)
            scorer.forget(file_id)
        raise


def _collect(
    ledger: Ledger,
    prompt: Prompt,
    remote_id: str,
    scorer: BulkScorer,
    account: PromptAccount,
    lines: list[Line],
    texts: list[str],
    poll_s: float,
) -> int:
    batch = scorer.look(remote_id)
    if batch.status not in OVER:
        ledger.bulks.wait(prompt, poll_after_s=poll_s, said=how_far(batch))
        return 0
    said = [plain_code(one.code) for one in (batch.errors.data or [] if batch.errors else [])]
    if batch.status == "failed" and TOKEN_LIMIT in said:
        scorer.forget(batch.input_file_id)
        ledger.bulks.submit_again(prompt, TOKEN_LIMIT, delay_s=TOKEN_LIMIT_S)
        return 0
    found = scorer.collect(batch, lines, texts)
    spent = account.by_job(found.charges)
    charges = {
        reservation: spent.get(job_id, NOTHING)
        for job_id, reservation in ledger.budgets.outstanding(prompt.id).items()
    }
    error = None
    if batch.status == "failed":
        error = f"the Batch API answered: {', '.join(filter(None, said)) or 'failed'}"
    answers, refusal = found.answers, _refusal(ledger, prompt, found, error)
    if refusal is not None:
        answers, error = {}, refusal
    again = ledger.bulks.collect(prompt, answers, charges=charges, error=error)
    if refusal is not None:
        _say_stopped(prompt, refusal)
        ledger.jobs.stop_oracle(prompt.job_ids, refusal)
    scorer.forget(batch.input_file_id)
    log.info(
        "Bulk %s is %s: %d answers, %d requests will be asked again.",
        prompt.id,
        batch.status,
        len(answers),
        again,
    )
    return len(answers)


def _refusal(ledger: Ledger, prompt: Prompt, found: Collected, error: str | None) -> str | None:
    """Why the server is at fault for a whole Bulk without a good answer; None where its reviews may be.

    A review is at fault only where others succeed. They don't where the oracle answered nothing of these jobs, or
    where so many refused lines are first ones; and a Bulk that is refused as a whole once more is no review's fault.
    Lines that asked with other parameters than the next ones will are asked once more.
    """
    tried = [request.attempts > 0 for request in prompt.requests]
    if error is not None:
        return f"the server refuses every request: {error}" if all(tried) else None
    if found.refusal is None or (found.learnt and not all(tried)):
        return None
    if not any(tried) and len(tried) >= MANY:
        return found.refusal
    return None if ledger.bulks.has_answers(prompt) else found.refusal


def advance_bulks(
    batch_ids: Sequence[int],
    *,
    ledger: Ledger,
    oracle_for: Callable[[int], object],
    poll_s: float,
    max_total: Money | None,
) -> int:
    """Brings these Bulks a step further, without a worker; how many requests got an answer.

    Raises:
        OracleInvalid, OracleUnfit, OracleUnavailable, BudgetSpent: the first that can't get on; it goes back to the
            ledger.
    """
    answered = 0
    for batch_id in batch_ids:
        prompt = ledger.prompts.claim(batch_id)
        if prompt is None:
            continue
        account = PromptAccount(ledger, prompt, max_total=max_total)
        try:
            scorer = oracle_for(prompt.scorer_id)
            assert isinstance(scorer, BulkScorer)
            with LeaseKeeper(
                partial(ledger.prompts.renew, prompt),
                lease_s=ledger.prompts.lease_s,
                name=f"Bulk {prompt.id}",
            ):
                answered += advance(ledger, prompt, scorer, account, poll_s=poll_s)
        except BulkTooLarge as error:
            ledger.bulks.split(prompt, str(error))
        except LoracleError as error:
            ledger.prompts.release(prompt, str(error), delay_s=0.0, counts=False)
            raise
        for job_id in prompt.job_ids:
            ledger.jobs.complete(job_id)
    return answered
