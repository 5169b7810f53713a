"""The story of a Prompt: claimed, paid for, asked, saved. Free of Celery and click."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from worker.errors import (
    BudgetSpent,
    BulkTooLarge,
    LeaseLost,
    OracleInvalid,
    OracleQuotaSpent,
    OracleUnavailable,
    Transient,
)
from worker.jobs import bulk
from worker.jobs.holding import LeaseKeeper, PromptBook
from worker.oracle.asking import OracleScorer
from worker.oracle.bulk import BulkScorer
from worker.oracle.throttle import Throttle
from worker.reviews import Money, Prompt
from worker.store.ledger import Ledger

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
    retry_delay_s: float,
    poll_s: float = 60.0,
    max_total: Money | None = None,
    task_id: str = "",
) -> int:
    """Claims a Prompt or Bulk, asks the oracle and saves what it answers; how many requests got an answer.

    That is the one of the message, unless one of a higher priority waits or this one is not to be had. If none waits,
    that is no error; a failure gives it back to the ledger.
    """
    prompt = ledger.claim_next_prompt(batch_id, task_id=task_id)
    if prompt is None:
        return 0
    book = PromptBook(ledger, prompt, max_total=max_total)
    try:
        _ask(ledger, prompt, book, oracle_for, gate_for, retry_delay_s, poll_s)
    except LeaseLost:
        log.warning("Lease of Prompt %s lost; its unsaved answers are dropped.", prompt.id)
    for job_id in prompt.job_ids:
        ledger.complete(job_id)
    return book.answered


def _ask(
    ledger: Ledger,
    prompt: Prompt,
    book: PromptBook,
    oracle_for: Callable[[int], OracleScorer | BulkScorer],
    gate_for: Callable[[OracleScorer], Throttle],
    retry_delay_s: float,
    poll_s: float,
) -> None:
    """Asks; what goes wrong is the ledger's from here. Raises LeaseLost."""
    in_bulk = False
    try:
        with LeaseKeeper(
            lambda: ledger.renew_prompt(prompt), lease_s=ledger.lease_s, name=f"Prompt {prompt.id}"
        ) as keeper:
            scorer = oracle_for(prompt.scorer_id)
            if isinstance(scorer, BulkScorer):
                in_bulk = True
                book.answered = bulk.advance(ledger, prompt, scorer, book, poll_s=poll_s)
            else:
                texts = [request.text for request in prompt.requests]
                try:
                    scorer.ask(texts, book, throttle=gate_for(scorer), heartbeat=keeper.beat)
                finally:
                    book.flush()
    except LeaseLost:
        raise
    except BulkTooLarge as error:
        ledger.split_bulk(prompt, str(error))
    except BudgetSpent as error:
        if in_bulk:
            bulk.without_money(ledger, prompt, error, poll_s=poll_s)
        else:
            _without_money(ledger, prompt, error)
    except OracleQuotaSpent as error:
        log.error("Prompt %s is parked: %s", prompt.id, error)
        ledger.park_prompt(prompt, str(error), delay_s=PARKED_S)
    except OracleInvalid as error:
        log.error(
            "The oracle isn't asked any more for jobs %s: %s", ", ".join(map(str, prompt.job_ids)), error
        )
        if in_bulk:
            ledger.abandon_bulk(prompt, str(error))
            ledger.stop_oracle(prompt.job_ids, str(error))
        else:
            ledger.stop_oracle(prompt.job_ids, str(error))
            ledger.release_prompt(prompt, str(error), delay_s=0.0, counts=False)
    except OracleUnavailable as error:
        # An outage is no review's fault: once the breaker is open only its own probe goes out.
        counts = not error.limited and not in_bulk
        delay_s = error.retry_after_s if error.retry_after_s is not None else retry_delay_s
        log.warning("Prompt %s will be asked again: %s", prompt.id, error)
        ledger.release_prompt(prompt, str(error), delay_s=delay_s * random.uniform(1.0, 1.5), counts=counts)
    except Transient:
        raise
    except Exception as error:
        # Only the type is logged, since a message may quote the review.
        log.error("Prompt %s failed with %s.", prompt.id, type(error).__name__)
        ledger.release_prompt(prompt, f"{type(error).__name__} while asking", delay_s=retry_delay_s)


def _without_money(ledger: Ledger, prompt: Prompt, error: BudgetSpent) -> None:
    if error.final and error.job_id is not None:
        log.warning("Job %s: %s", error.job_id, error)
        ledger.stop_oracle([error.job_id], str(error))
        ledger.release_prompt(prompt, str(error), delay_s=0.0, counts=False)
    else:
        ledger.park_prompt(prompt, str(error), delay_s=PARKED_S if error.final else MONEY_UNDER_WAY_S)
