"""Two ways to ask: the Decisions API and chat completions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import openai
from openai import OpenAI
from openai.types import Decision
from openai.types.chat import ChatCompletion

from worker.oracle.client import Reply, Trouble, explain, name_of, named, quote, tokens_of
from worker.oracle.prompts import PARAMETERS, ChatBody, DecisionsBody, Learnt
from worker.oracle.spec import OracleSpec
from worker.reviews import Outcome, Score


class _Explaining:
    spec: OracleSpec
    _system: str
    _client: OpenAI

    def explain(
        self,
        error: Exception,
        body: Mapping[str, Any] | None = None,
        texts: Sequence[str] = (),
        *,
        own_text: bool = False,
    ) -> Trouble:
        """What to do about an error of `send`. With `own_text` no review was in the request: the server's words are
        repeated, unless they hold one of these `texts`."""
        quoted = quote(error, key=self._client.api_key, texts=texts) if own_text else ""
        said = error.body if isinstance(error, openai.APIStatusError) else None
        params = self.refused(said, body or {}, [] if own_text else texts)
        return explain(error, self.spec.model, self.spec.base_url, quoted=quoted, params=params)

    def refused(self, said: object, body: Mapping[str, Any], texts: Sequence[str]) -> frozenset[str]:
        """Which of the parameters of a request with these texts an error's body names as refused."""
        return named(said, body.keys() & PARAMETERS, [self._system, *texts])


class ChatRoute(_Explaining, ChatBody):
    """Asks with a `ChatBody`. Its answers have no probabilities."""

    def __init__(self, client: OpenAI, spec: OracleSpec, learnt: Learnt | None = None) -> None:
        super().__init__(spec, learnt)
        self._client = client

    def send(self, body: Mapping[str, Any], ids: Sequence[str]) -> Reply:
        """Asks. Raises whatever the client raises."""
        raw = self._client.chat.completions.with_raw_response.create(**body)
        return read_completion(
            raw.parse(),
            ids,
            self.spec.labels,
            headers=raw.headers,
            request_id=name_of(raw.headers.get("x-request-id")),
        )


def read_completion(
    completion: ChatCompletion,
    ids: Sequence[str],
    labels: Sequence[str],
    *,
    headers: Mapping[str, str],
    request_id: str | None,
) -> Reply:
    """What a completion says of the reviews with these ids: all of them, or none is believed."""
    usage = getattr(completion, "usage", None)
    outcomes: list[Outcome | None] = [None] * len(ids)
    trouble, refused, too_long = "the answer holds no choice", False, False
    choices = getattr(completion, "choices", None)
    if isinstance(choices, list) and choices:
        message = getattr(choices[0], "message", None)
        finish = getattr(choices[0], "finish_reason", None)
        if finish == "length":
            trouble, too_long = "the answer was cut off", True
        elif finish == "content_filter":
            trouble, refused = "the server's content filter stopped the answer", True
        elif getattr(message, "refusal", None):
            trouble, refused = "the model refused to answer", True
        else:
            found = read_labels(getattr(message, "content", None), ids, labels)
            trouble = "the answer doesn't have exactly the labels asked for"
            if found is not None:
                outcomes = [Score(label, None) for label in found]
    return Reply(
        outcomes,
        tokens_of(getattr(usage, "prompt_tokens", None)),
        tokens_of(getattr(usage, "completion_tokens", None)),
        name_of(getattr(completion, "model", None)),
        request_id,
        headers,
        trouble=trouble,
        state="refused" if refused else "unanswered",
        too_long=too_long,
    )


THINK, FENCE = "<think>", "```json"


def read_labels(content: object, ids: Sequence[str], labels: Sequence[str]) -> list[str] | None:
    """The labels in order of the ids; None unless the text is an object with exactly these keys, each once.

    The object may stand behind one closed <think> block, and in one ```json fence. A label may differ from ours in
    case and in space around it, unless two of ours would be the same then.
    """
    if not isinstance(content, str):
        return None
    content = content.strip()
    # By finding, not by a pattern: of an answer without end an engine would remember each character.
    if content.startswith(THINK):
        thought, closed, answer = content.removeprefix(THINK).partition("</think>")
        if closed and THINK not in thought:
            content = answer.strip()
    if content.startswith(FENCE):
        fenced, closed, rest = content.removeprefix(FENCE).partition("```")
        if closed and not rest:
            content = fenced
    try:
        pairs: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, _Pairs) or sorted(key for key, _ in pairs) != sorted(ids):
        return None
    found = {key: _label(value, labels) for key, value in pairs}
    chosen = [label for key in ids if (label := found[key]) is not None]
    return chosen if len(chosen) == len(ids) else None


def _label(value: object, labels: Sequence[str]) -> str | None:
    if not isinstance(value, str):
        return None
    if value in labels:
        return value
    same = [label for label in labels if label.strip().casefold() == value.strip().casefold()]
    return same[0] if len(same) == 1 else None


class _Pairs(list[tuple[str, Any]]):
    """An object's members, doubles included."""


SUM_TOLERANCE = 0.02


class DecisionsRoute(_Explaining, DecisionsBody):
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
            tokens_of(getattr(usage, "input_tokens", None)),
            tokens_of(getattr(usage, "output_tokens", None)),
            name_of(getattr(decision, "model", None)),
            name_of(raw.headers.get("x-request-id")),
            raw.headers,
            trouble=trouble,
            state="refused" if trouble.startswith("the model refused") else "unanswered",
        )


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
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None
    sound = all(math.isfinite(p) and 0 <= p <= 1 for p in found.values())
    if not sound or set(found) != set(labels) or len(answer.probabilities) != len(labels):
        return None
    if abs(sum(found.values()) - 1) > SUM_TOLERANCE or found[answer.choice] < max(found.values()):
        return None
    return Score(answer.choice, found[answer.choice], {label: found[label] for label in labels})
