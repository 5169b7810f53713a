"""What a job would ask and cost, before anything is sent. Pure, but for reading the file."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from dataclasses import dataclass
from typing import Any

from worker.enqueue import Source
from worker.oracle.money import Price, token_bound
from worker.oracle.prompts import (
    DECISION_ROOM,
    answer_format,
    answer_room,
    fixed_ids,
    messages,
    questions,
    review_lines,
)
from worker.oracle.redaction import redact
from worker.oracle.spec import OracleSpec
from worker.reviews import Review

BYTES_PER_TOKEN = 4.0
"""What English text has in the usual vocabularies; other languages take more tokens."""
JSON_MEMBER = 14
"""Bytes of an answer's member beside its label: the id, quotes, colon and comma."""


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
    """Reads the file once; memory grows with the number of different texts (some 100 bytes each).

    Which reviews a share will be isn't known: the estimates are for the average one, the bounds for the longest.
    """
    seen: set[bytes] = set()
    sizes = array("q")
    reviews = rejected = 0
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
        # As a JSON line in a JSON string, as it is sent.
        line = review_lines(["r000000"], [text]) + "\n"
        sizes.append(len(json.dumps(line, ensure_ascii=False).encode()))
    different = len(seen)
    asked = round(different * share)
    requests = -(-asked // spec.reviews_per_prompt)
    overhead = requests * _overhead(spec)
    if spec.route == "bulk":
        price = price.halved()
    estimate = (sum(sizes) * share + overhead) / BYTES_PER_TOKEN
    most = sum(sorted(sizes, reverse=True)[:asked]) + overhead
    if spec.route == "decisions":
        # Answers of Decisions are free of charge and not counted.
        answers, most_answers = 0.0, asked * DECISION_ROOM
    else:
        longest = max(len(label.encode()) for label in spec.labels)
        answers = asked * (longest + JSON_MEMBER) / BYTES_PER_TOKEN
        full, rest = divmod(asked, spec.reviews_per_prompt)
        most_answers = full * answer_room(spec.labels, spec.reviews_per_prompt)
        most_answers += answer_room(spec.labels, rest) if rest else 0
    return Plan(
        reviews=reviews,
        duplicates=reviews - different,
        rejected=rejected,
        asked=asked,
        requests=requests,
        tokens=round(estimate + answers),
        cost=price.cost(math.ceil(estimate), math.ceil(answers)).dollars,
        most_tokens=most + most_answers,
        most_cost=price.cost(most, most_answers).dollars,
    )


def _overhead(spec: OracleSpec) -> int:
    """The most tokens that a request takes beside its texts."""
    ids = fixed_ids("plan", spec.reviews_per_prompt)
    empty = messages(spec.template.fill(spec.labels), "")
    body: dict[str, Any]
    if spec.route == "decisions":
        body = {"model": spec.model, "input": empty, "questions": questions(ids, spec.labels)}
    else:
        body = {
            "model": spec.model,
            "messages": empty,
            "response_format": answer_format(ids, spec.labels),
            "max_completion_tokens": answer_room(spec.labels, len(ids)),
            "reasoning_effort": "none",
            "store": False,
        }
    return token_bound(body)
