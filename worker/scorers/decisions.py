"""OpenAI's Decisions: typed questions, answered with probabilities and no generated text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from openai import OpenAI
from openai.types import Decision

from worker.oracle.bodies import DecisionsBody
from worker.oracle.spec import OracleSpec
from worker.reviews import Outcome, Score
from worker.scorers.openai_client import Trouble, explain, quote
from worker.scorers.routes import Reply

SUM_TOLERANCE = 0.02


class DecisionsRoute(DecisionsBody):
    """Asks with a `DecisionsBody`; the probability of the choice is the score. Output tokens are free."""

    def __init__(self, client: OpenAI, spec: OracleSpec) -> None:
        super().__init__(spec)
        self._client = client

    def send(self, body: Mapping[str, Any], ids: Sequence[str]) -> Reply:
        """Asks. Raises whatever the client raises."""
        raw = self._client.decisions.with_raw_response.create(**body)
        decision = raw.parse()
        outcomes, trouble = read_decision(decision, ids, self.spec.labels)
        usage = getattr(decision, "usage", None)
        return Reply(
            outcomes,
            getattr(usage, "input_tokens", None),
            getattr(usage, "output_tokens", None),
            getattr(decision, "model", None),
            raw.headers.get("x-request-id"),
            raw.headers,
            trouble=trouble,
            state="refused" if trouble.startswith("the model refused") else "unanswered",
        )

    def explain(self, error: Exception, *, own_text: bool = False, texts: Sequence[str] = ()) -> Trouble:
        """What to do about an error of `send`. With `own_text` no review was in the request: the server's words are
        repeated, unless they hold one of these `texts`."""
        quoted = quote(error, key=self._client.api_key, texts=texts) if own_text else ""
        return explain(error, self.spec.model, self.spec.base_url, quoted=quoted)


def read_decision(
    decision: Decision, ids: Sequence[str], labels: Sequence[str]
) -> tuple[list[Outcome | None], str]:
    """An outcome per id, None where there is no valid answer, and what was wrong.

    Answers belong to questions by name; with a name missing, double or foreign none of them is believed.
    """
    nothing: list[Outcome | None] = [None] * len(ids)
    answers = getattr(decision, "answers", None)
    if not isinstance(answers, list):
        return nothing, "the answer holds no decisions"
    if sorted(str(getattr(answer, "name", None)) for answer in answers) != sorted(ids):
        return nothing, f"the answer has {len(answers)} decisions that aren't those asked for"
    by_name = {str(answer.name): answer for answer in answers}
    trouble = "the model refused to answer"
    outcomes: list[Outcome | None] = []
    for key in ids:
        answer = by_name[key]
        if getattr(answer, "type", None) == "refusal":
            outcomes.append(None)
            continue
        score = _score(answer, labels)
        if score is None:
            trouble = "the decision names another label, or its probabilities aren't any"
        outcomes.append(score)
    return outcomes, trouble


def _score(answer: Any, labels: Sequence[str]) -> Score | None:
    if getattr(answer, "type", None) != "choice" or getattr(answer, "choice", None) not in labels:
        return None
    try:
        found = {one.value: float(one.probability) for one in answer.probabilities}
    except (TypeError, ValueError, AttributeError):
        return None
    sound = all(math.isfinite(p) and 0 <= p <= 1 for p in found.values())
    if not sound or set(found) != set(labels) or len(answer.probabilities) != len(labels):
        return None
    if abs(sum(found.values()) - 1) > SUM_TOLERANCE or found[answer.choice] < max(found.values()):
        return None
    return Score(answer.choice, found[answer.choice], {label: found[label] for label in labels})
