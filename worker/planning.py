"""What a job would ask and cost, before anything is sent. Pure, but for reading the file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from worker.enqueue import Source
from worker.oracle.money import Price, token_bound
from worker.oracle.prompts import answer_format, fixed_ids, messages, questions, review_lines
from worker.oracle.redaction import redact
from worker.oracle.spec import OracleSpec
from worker.reviews import Review

BYTES_PER_TOKEN = 4.0
"""What English text has in the usual vocabularies; other languages take more tokens."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What asking the oracle about a share of a file would take. Dollars are US dollars.

    `tokens` and `cost` are estimates, `most_tokens` and `most_cost` bounds that no request exceeds. `asked` counts
    reviews, `requests` calls, each with different texts.
    """

    reviews: int
    duplicates: int
    rejected: int
    asked: int
    requests: int
    tokens: int
    cost: float
    most_tokens: int
    most_cost: float


def plan(source: Source, spec: OracleSpec, price: Price, share: float) -> Plan:
    """Reads the file once; memory grows with the number of different texts (32 bytes each)."""
    seen: set[bytes] = set()
    reviews = rejected = sent_bytes = 0
    for record in source.records():
        if not isinstance(record, Review):
            rejected += 1
            continue
        reviews += 1
        digest = hashlib.sha256(record.text.encode()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        text = spec.window.cut(redact(record.text) if spec.redacted else record.text)
        sent_bytes += len(review_lines(["r000000"], [text]).encode()) + 1
    different = len(seen)
    asked = round(different * share)
    requests = -(-asked // spec.reviews_per_prompt)
    overhead, answer = _overhead(spec)
    text_bytes = sent_bytes * share + requests * overhead
    output = asked * answer
    if spec.route == "bulk":
        price = price.halved()
    estimate = text_bytes / BYTES_PER_TOKEN
    # Answers of Decisions are free of charge and not counted; a chat answer is one short JSON member per review.
    counted = 0.0 if spec.route == "decisions" else output / BYTES_PER_TOKEN
    most_output = asked * (64 if spec.route == "decisions" else 24 + answer)
    return Plan(
        reviews=reviews,
        duplicates=reviews - different,
        rejected=rejected,
        asked=asked,
        requests=requests,
        tokens=round(estimate + counted),
        cost=price.cost(estimate, counted),
        most_tokens=round(text_bytes + most_output),
        most_cost=price.cost(text_bytes, most_output),
    )


def _overhead(spec: OracleSpec) -> tuple[float, int]:
    """Bytes that a request takes beside its texts, and an answer per review."""
    ids = fixed_ids("plan", spec.reviews_per_prompt)
    empty = messages(spec.template.fill(spec.labels), "")
    longest = max(len(label.encode()) for label in spec.labels)
    body: dict[str, Any]
    if spec.route == "decisions":
        body = {"model": spec.model, "input": empty, "questions": questions(ids, spec.labels)}
    else:
        body = {
            "model": spec.model,
            "messages": empty,
            "response_format": answer_format(ids, spec.labels),
            "max_completion_tokens": 1000,
            "reasoning_effort": "none",
            "store": False,
        }
    return float(token_bound(body)), longest + 14
