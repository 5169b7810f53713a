"""What an oracle's server sends: result files of the Batch API, and answers to single requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
from openai import OpenAI
from openai.types import Batch

from tests.faults.fuzz.properties import check_text
from tests.unit.oracles import LABELS, PRICE, spec
from worker.oracle.bulk import ASKED, BulkScorer
from worker.oracle.client import make_client
from worker.oracle.routes import ChatRoute, DecisionsRoute
from worker.reviews import Answer, Score

TEXTS = [f"review number {number} is a fine one" for number in range(6)]
IDS = ["a1", "b2", "c3"]
MOST = 2**63


def batch_lines() -> list[Any]:
    """The lines whose results `read_batch_results` reads."""
    return _bulk(cast(OpenAI, None)).plan("key", [False] * 4 + [True] * 2)


def read_batch_results(path: Path, options: Mapping[str, Any]) -> str:
    """A Bulk's end, with the file as its output, as its errors, or as what it says of its parameters."""
    part = options.get("part", "output")
    content = path.read_bytes()
    files = SimpleNamespace(content=lambda file_id: SimpleNamespace(content=content))
    scorer = _bulk(cast(OpenAI, SimpleNamespace(files=files, api_key="key")))
    metadata = {ASKED: content.decode("utf-8", "replace")} if part == "metadata" else {}
    batch = Batch.construct(
        status="completed",
        output_file_id="file" if part in ("output", "metadata") else None,
        error_file_id="file" if part == "errors" else None,
        metadata=metadata,
    )
    found = scorer.collect(batch, batch_lines(), TEXTS)
    for position, answer in found.answers.items():
        assert 0 <= position < len(TEXTS), "an answer for nobody"
        _check_answer(answer)
    assert all(0 <= one.cost.nanos < MOST and 0 <= one.tokens < MOST for one in found.charges.values())
    assert found.charges.keys() >= found.answers.keys()
    check_text(found.refusal or "")
    return f"{len(found.answers)} answers"


def read_answer(path: Path, options: Mapping[str, Any]) -> str:
    """The file as the body of a 200, or of what `status` says."""
    content = path.read_bytes()
    status = options.get("status", 200)

    def answered(request: Any) -> httpx2.Response:
        return httpx2.Response(status, content=content, headers={"content-type": "application/json"})

    client = make_client("key", "http://127.0.0.1:9/v1").with_options(
        http_client=httpx2.Client(transport=httpx2.MockTransport(answered))
    )
    chat = options.get("route", "chat") == "chat"
    route = ChatRoute(client, spec()) if chat else DecisionsRoute(client, spec(route="decisions"))
    body = route.body(IDS, TEXTS[:3])
    try:
        reply = route.send(body, IDS)
    except Exception as error:
        trouble = route.explain(error, body, TEXTS[:3])
        check_text(trouble.reason)
        # Who asks takes this for a broken connection, and would ask forever what breaks us each time.
        assert "Error while asking" not in trouble.reason, f"{trouble.reason}: {error!r}"  # noqa: PT017
        return trouble.reason
    assert len(reply.outcomes) == len(IDS)
    charge = reply.charge(PRICE)
    for outcome in reply.outcomes:
        if outcome is not None:
            tokens, cost = (charge.tokens, charge.cost) if charge else (0, PRICE.cost(0, 0))
            _check_answer(Answer(outcome, reply.model, reply.request_id, tokens, cost))
    return reply.trouble


def _check_answer(answer: Answer) -> None:
    """Fails where a database couldn't keep it."""
    for text in (answer.response_model, answer.request_id):
        if text is not None:
            check_text(text)
    assert 0 <= answer.cost.nanos < MOST, f"a cost of {answer.cost.nanos}"
    assert 0 <= answer.tokens < MOST, f"{answer.tokens} tokens"
    if isinstance(answer.outcome, Score):
        assert answer.outcome.label in LABELS
        json.dumps(answer.outcome.score, allow_nan=False)


def _bulk(client: OpenAI) -> BulkScorer:
    return BulkScorer(spec(route="bulk", reviews_per_prompt=2), client, PRICE)
