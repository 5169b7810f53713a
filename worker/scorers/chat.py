"""Chat completions: several reviews a prompt under a strict schema, at any OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion

from worker.oracle.bodies import ChatBody
from worker.oracle.spec import OracleSpec
from worker.reviews import Outcome, Score
from worker.scorers.openai_client import Trouble, explain, quote
from worker.scorers.routes import Reply


class ChatRoute(ChatBody):
    """Asks with a `ChatBody`. Its answers have no probabilities."""

    def __init__(self, client: OpenAI, spec: OracleSpec) -> None:
        super().__init__(spec)
        self._client = client

    def send(self, body: Mapping[str, Any], ids: Sequence[str]) -> Reply:
        """Asks. Raises whatever the client raises."""
        raw = self._client.chat.completions.with_raw_response.create(**body)
        return read_completion(
            raw.parse(),
            ids,
            self.spec.labels,
            headers=raw.headers,
            request_id=raw.headers.get("x-request-id"),
        )

    def explain(self, error: Exception, *, own_text: bool = False, texts: Sequence[str] = ()) -> Trouble:
        """What to do about an error of `send`. With `own_text` no review was in the request: the server's words are
        repeated, unless they hold one of these `texts`."""
        quoted = quote(error, key=self._client.api_key, texts=texts) if own_text else ""
        return explain(error, self.spec.model, self.spec.base_url, quoted=quoted)


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
        getattr(usage, "prompt_tokens", None),
        getattr(usage, "completion_tokens", None),
        getattr(completion, "model", None),
        request_id,
        headers,
        trouble=trouble,
        state="refused" if refused else "unanswered",
        too_long=too_long,
    )


def read_labels(content: object, ids: Sequence[str], labels: Sequence[str]) -> list[str] | None:
    """The labels in order of the ids; None unless the text is an object with exactly these keys, each once."""
    if not isinstance(content, str):
        return None
    try:
        pairs: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=_Pairs)
    except ValueError:
        return None
    if not isinstance(pairs, _Pairs) or sorted(key for key, _ in pairs) != sorted(ids):
        return None
    found = dict(pairs)
    if not all(isinstance(label, str) and label in labels for label in found.values()):
        return None
    return [found[key] for key in ids]


class _Pairs(list[tuple[str, Any]]):
    """An object's members, doubles included."""
