"""What a job would ask and cost, before anything is sent. Pure, but for reading the file."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from dataclasses import dataclass

from worker.jobs.source import Source
from worker.oracle.prices import Price
from worker.oracle.prompts import body_of, fixed_ids
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

    Which reviews a share will be isn't known: the estimates are for the average one, the bounds for the longest. It
    is the share of those of which the oracle doesn't decide anyway, since they are in another language.
    """
    seen: set[bytes] = set()
    sizes, foreign = array("q"), array("q")
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
        (sizes if record.language is None else foreign).append(_size(spec.sent(record.text)))
    different = len(seen)
    asked = len(foreign) + round(len(sizes) * share)
    full, rest = divmod(asked, spec.reviews_per_prompt)
    prompts = [(full, spec.reviews_per_prompt), (1, rest)] if rest else [(full, spec.reviews_per_prompt)]
    bounds = [(count, *_bound(spec, size)) for count, size in prompts]
    overhead = sum(count * most for count, most, _ in bounds)
    most_answers = sum(count * most for count, _, most in bounds)
    if spec.route == "bulk":
        price = price.halved()
    estimate = (sum(foreign) + sum(sizes) * share + overhead) / BYTES_PER_TOKEN
    most = sum(foreign) + sum(sorted(sizes, reverse=True)[: asked - len(foreign)]) + overhead
    if spec.route == "decisions":
        # Answers of Decisions are free of charge and not counted.
        answers = 0.0
    else:
        longest = max(len(label.encode()) for label in spec.labels)
        answers = asked * (longest + JSON_MEMBER) / BYTES_PER_TOKEN
    return Plan(
        reviews=reviews,
        duplicates=reviews - different,
        rejected=rejected,
        asked=asked,
        requests=sum(count for count, _ in prompts),
        tokens=round(estimate + answers),
        cost=price.cost(math.ceil(estimate), math.ceil(answers)).dollars,
        most_tokens=most + most_answers,
        most_cost=price.cost(most, most_answers).dollars,
    )


def _size(text: str) -> int:
    """The most tokens that a text adds to a request: its bytes in a JSON line in a JSON string, as it is sent."""
    line = json.dumps(text, ensure_ascii=False)[1:-1]
    return len(json.dumps(line, ensure_ascii=False)[1:-1].encode())


def _bound(spec: OracleSpec, count: int) -> tuple[int, int]:
    """The most tokens that a request about so many reviews takes beside their texts, and its answer."""
    made = body_of(spec)
    return made.bound(made.body(fixed_ids("plan", count), [""] * count))
