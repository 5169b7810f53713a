"""The story of a Prompt: claimed, paid for, asked, saved. Free of Celery and click."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from worker.errors import (
    BudgetSpent,
    LeaseLost,
    LoracleError,
    OracleInvalid,
    OracleQuotaSpent,
    OracleUnavailable,
    Transient,
)
from worker.oracle.money import NOTHING, Charge, Price
from worker.reviews import Answer, Prompt
from worker.scorers.asking import OracleScorer
from worker.scorers.base import Throttle
from worker.scorers.bulk import OVER, BulkScorer, Line
from worker.store.bulks import BulkRow
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

PARKED_S = 60.0
"""How long a Prompt waits for quota or for more of LORACLE_MAX_COST."""
MONEY_UNDER_WAY_S = 1.0
TOKEN_LIMIT = "token_limit_exceeded"
TOKEN_LIMIT_S = 600.0


class Gate(Throttle, Protocol):
    """A throttle that knows whether the server is down."""

    def is_open(self) -> bool:
        """Whether the circuit breaker is open."""
        ...


class PromptBook:
    """A Prompt's reservations and answers, each written to the ledger at once; what a call cost, with its answers."""

    def __init__(self, ledger: Ledger, prompt: Prompt, *, max_total: float | None) -> None:
        self._ledger, self._prompt, self._max_total = ledger, prompt, max_total
        self._reservations: list[dict[int, int]] = []
        self._unwritten: dict[int, Charge] = {}
        self.answered = 0

    def reserve(self, bounds: Mapping[int, float], price: Price) -> int:
        """Sets aside the most that a request can cost, by job. Raises BudgetSpent."""
        shares: dict[int, float] = {}
        for index, dollars in bounds.items():
            job_id = self._prompt.requests[index].job_id
            shares[job_id] = shares.get(job_id, 0.0) + dollars
        self._reservations.append(
            self._ledger.reserve(self._prompt.id, shares, price=price, max_total=self._max_total)
        )
        return len(self._reservations) - 1

    def settle(self, reservation: int, charges: Mapping[int, Charge]) -> None:
        """Written with the next answers, or by `flush`."""
        for job_id, charge in self.by_job(charges).items():
            self._unwritten[self._reservations[reservation][job_id]] = charge

    def save(self, answers: Mapping[int, Answer]) -> None:
        """Writes answers and costs; with the last of them the Prompt is done. Raises LeaseLost."""
        self.answered += len(answers)
        charges, self._unwritten = self._unwritten, {}
        done = self.answered == len(self._prompt.requests)
        self._ledger.save_answers(self._prompt, answers, charges=charges, done=done)

    def flush(self) -> None:
        """Writes the costs of calls that gave no answer. Raises LeaseLost."""
        if self._unwritten:
            self.save({})

    def by_job(self, charges: Mapping[int, Charge]) -> dict[int, Charge]:
        """The sum for each job of charges given by position."""
        sums: dict[int, Charge] = {}
        for index, charge in charges.items():
            job_id = self._prompt.requests[index].job_id
            sums[job_id] = sums.get(job_id, NOTHING) + charge
        return sums


def ask_prompt(
    batch_id: int,
    *,
    ledger: Ledger,
    oracle_for: Callable[[int], OracleScorer | BulkScorer],
    gate_for: Callable[[OracleScorer], Gate],
    retry_delay_s: float,
    poll_s: float = 60.0,
    max_total: float | None = None,
    task_id: str = "",
    on_complete: Callable[[int], None] = lambda job_id: None,
) -> int:
    """Claims a Prompt or Bulk, asks the oracle and saves what it answers; how many requests got an answer.

    A batch that is not to be had is no work and no error; a failure gives it back to the ledger.
    """
    prompt = ledger.claim_prompt(batch_id, task_id=task_id)
    if prompt is None:
        return 0
    renewed = time.monotonic()

    def heartbeat() -> None:
        nonlocal renewed
        now = time.monotonic()
        if now - renewed > ledger.lease_s / 4:
            ledger.renew_prompt(prompt)
            renewed = now

    book = PromptBook(ledger, prompt, max_total=max_total)
    try:
        _ask(ledger, prompt, book, oracle_for, gate_for, retry_delay_s, poll_s, heartbeat)
    except LeaseLost:
        log.warning("Lease of Prompt %s lost; its unsaved answers are dropped.", prompt.id)
    for job_id in prompt.job_ids:
        if ledger.complete(job_id):
            on_complete(job_id)
    return book.answered


def _ask(
    ledger: Ledger,
    prompt: Prompt,
    book: PromptBook,
    oracle_for: Callable[[int], OracleScorer | BulkScorer],
    gate_for: Callable[[OracleScorer], Gate],
    retry_delay_s: float,
    poll_s: float,
    heartbeat: Callable[[], None],
) -> None:
    """Asks; what goes wrong is the ledger's from here. Raises LeaseLost."""
    bulk = gate = None
    try:
        scorer = oracle_for(prompt.scorer_id)
        if isinstance(scorer, BulkScorer):
            bulk = ledger.bulk(prompt.id)
            assert bulk is not None, f"batch {prompt.id} has no Bulk"
            book.answered = _advance_bulk(ledger, prompt, bulk, scorer, book, poll_s)
        else:
            gate = gate_for(scorer)
            try:
                scorer.ask(
                    [request.text for request in prompt.requests], book, throttle=gate, heartbeat=heartbeat
                )
            finally:
                book.flush()
    except LeaseLost:
        raise
    except BudgetSpent as error:
        _without_money(ledger, prompt, error)
    except OracleQuotaSpent as error:
        log.error("Prompt %s is parked: %s", prompt.id, error)
        ledger.park_prompt(prompt, str(error), delay_s=PARKED_S)
    except OracleInvalid as error:
        log.error("The oracle isn't asked any more for jobs %s: %s", _ids(prompt), error)
        ledger.stop_oracle(prompt.job_ids, str(error))
        ledger.release_prompt(prompt, str(error), delay_s=0.0, counts=False)
    except OracleUnavailable as error:
        # An outage is no review's fault: only while others are answered does a failure count against this Prompt.
        counts = not error.limited and bulk is None and not (gate is not None and gate.is_open())
        delay_s = error.retry_after_s if error.retry_after_s is not None else retry_delay_s
        log.warning("Prompt %s will be asked again: %s", prompt.id, error)
        ledger.release_prompt(prompt, str(error), delay_s=delay_s * random.uniform(1.0, 1.5), counts=counts)
    except Transient:
        raise
    except Exception as error:
        # Only the type is logged, since a message may quote the review.
        log.error("Prompt %s failed with %s.", prompt.id, type(error).__name__)
        ledger.release_prompt(prompt, f"{type(error).__name__} while asking", delay_s=retry_delay_s)


def advance_bulks(
    batch_ids: Sequence[int],
    *,
    ledger: Ledger,
    oracle_for: Callable[[int], OracleScorer | BulkScorer],
    poll_s: float,
    max_total: float | None,
) -> int:
    """Brings these Bulks a step further, without a worker; how many requests got an answer.

    Raises:
        OracleInvalid, OracleUnavailable, BudgetSpent: the first that can't get on; it goes back to the ledger.
    """
    answered = 0
    for batch_id in batch_ids:
        bulk = ledger.bulk(batch_id)
        prompt = ledger.claim_prompt(batch_id)
        if bulk is None or prompt is None:
            continue
        book = PromptBook(ledger, prompt, max_total=max_total)
        try:
            scorer = oracle_for(prompt.scorer_id)
            assert isinstance(scorer, BulkScorer)
            answered += _advance_bulk(ledger, prompt, bulk, scorer, book, poll_s)
        except LoracleError as error:
            ledger.release_prompt(prompt, str(error), delay_s=0.0, counts=False)
            raise
        for job_id in prompt.job_ids:
            ledger.complete(job_id)
    return answered


def _without_money(ledger: Ledger, prompt: Prompt, error: BudgetSpent) -> None:
    if error.final and error.job_id is not None:
        log.warning("Job %s: %s", error.job_id, error)
        ledger.stop_oracle([error.job_id], str(error))
        ledger.release_prompt(prompt, str(error), delay_s=0.0, counts=False)
    else:
        ledger.park_prompt(prompt, str(error), delay_s=PARKED_S if error.final else MONEY_UNDER_WAY_S)


def _advance_bulk(
    ledger: Ledger, prompt: Prompt, bulk: BulkRow, scorer: BulkScorer, book: PromptBook, poll_s: float
) -> int:
    """One step of a Bulk: submitted, looked at, or collected. How many requests got an answer."""
    texts = [request.text for request in prompt.requests]
    lines = scorer.plan(f"b{prompt.id}", [request.attempts > 0 for request in prompt.requests])
    if bulk.remote_id is not None:
        return _collect(ledger, prompt, bulk.remote_id, scorer, book, lines, poll_s)
    remote_id = scorer.find(bulk.client_key) if bulk.file_id is not None else None
    if remote_id is None:
        if not ledger.outstanding(prompt.id):
            book.reserve(scorer.bounds(lines, texts), scorer.price)
        file_id = bulk.file_id
        if file_id is None:
            file_id = scorer.upload(lines, texts)
            ledger.note_upload(prompt, file_id)
        remote_id = scorer.submit(file_id, bulk.client_key)
    ledger.note_submission(prompt, remote_id, poll_after_s=poll_s)
    log.info("Bulk %s: %d requests submitted as %s.", prompt.id, len(texts), remote_id)
    return 0


def _collect(
    ledger: Ledger,
    prompt: Prompt,
    remote_id: str,
    scorer: BulkScorer,
    book: PromptBook,
    lines: list[Line],
    poll_s: float,
) -> int:
    batch = scorer.look(remote_id)
    if batch.status not in OVER:
        ledger.wait_on(prompt, poll_after_s=poll_s)
        return 0
    said = [f"{one.code}: {one.message}" for one in (batch.errors.data or [] if batch.errors else [])]
    if batch.status == "failed" and any(TOKEN_LIMIT in one for one in said):
        ledger.submit_again(prompt, "; ".join(said), delay_s=TOKEN_LIMIT_S)
        return 0
    found = scorer.collect(batch, lines)
    spent = book.by_job(found.charges)
    charges = {
        reservation: spent.get(job_id, NOTHING)
        for job_id, (reservation, _) in ledger.outstanding(prompt.id).items()
    }
    error = f"the Batch API answered: {'; '.join(said) or 'failed'}" if batch.status == "failed" else None
    again = ledger.collect(prompt, found.answers, charges=charges, error=error)
    scorer.clean_up(batch)
    log.info(
        "Bulk %s is %s: %d answers, %d requests will be asked again.",
        prompt.id,
        batch.status,
        len(found.answers),
        again,
    )
    return len(found.answers)


def _ids(prompt: Prompt) -> str:
    return ", ".join(map(str, prompt.job_ids))
