"""The Batch API: many prompts in one file at half the price, answered within a day."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import openai
from openai import OpenAI
from openai.types import Batch
from openai.types.chat import ChatCompletion
from pydantic import ValidationError

from worker.errors import BulkTooLarge, OracleInvalid, OracleUnavailable
from worker.oracle.client import Reply, name_of, plain_code, raise_for, unavailable
from worker.oracle.prices import Charge, Price
from worker.oracle.prompts import FORM, PARAMETERS, Learnt, fixed_ids
from worker.oracle.routes import ChatRoute, read_completion
from worker.oracle.spec import OracleSpec
from worker.reviews import Answer, Failure, Money, total

MOST_LINES = 50_000
MOST_BYTES = 200_000_000
WINDOW: Literal["24h"] = "24h"
KEEP_OUTPUT_S = 7 * 24 * 3600
KEEP_INPUT_S = 3 * 24 * 3600
LOOK_BACK_S = 24 * 3600
"""How far before its row was written a submission is looked for: clocks differ."""
OVER = ("completed", "failed", "expired", "cancelled")
CLIENT_KEY = "client_key"
ASKED = "asked"
"""With which parameters the lines of a Bulk ask: until they are answered, others may have learnt to go without."""
FEWEST_LINES = 3
"""Fewer lines without one good answer may be due to their reviews."""


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt of a Bulk: the positions of its reviews, and their ids in the text."""

    custom_id: str
    positions: tuple[int, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """What came back: answers, and charges, by position; what has no answer must be asked again.

    `refusal`: of all lines the server answered none well, and this is what it said most often. `learnt`: the next
    requests ask with other parameters than these lines did.
    """

    answers: Mapping[int, Answer]
    charges: Mapping[int, Charge]
    refusal: str | None = None
    learnt: bool = False


class BulkScorer:
    """Asks by the Batch API as its `spec` says, at half the `price` that others pay: submit, remember, collect."""

    def __init__(self, spec: OracleSpec, client: OpenAI, price: Price, learnt: Learnt | None = None) -> None:
        self.spec = spec
        self.price = price.halved()
        self._client = client
        self._route = ChatRoute(client, spec, learnt)

    def plan(self, key: str, alone: Sequence[bool]) -> list[Line]:
        """The lines for so many reviews, the same for the same arguments; those `alone` get a line of their own."""
        size = self.spec.reviews_per_prompt
        together = [index for index, single in enumerate(alone) if not single]
        parts = [tuple(together[start : start + size]) for start in range(0, len(together), size)]
        parts += [(index,) for index, single in enumerate(alone) if single]
        return [
            Line(f"{key}-{number}", part, tuple(fixed_ids(f"{key}-{number}", len(part))))
            for number, part in enumerate(parts)
        ]

    def body(self, line: Line, texts: Sequence[str]) -> dict[str, Any]:
        """The request of a line."""
        return self._route.body(line.ids, [self.spec.sent(texts[index]) for index in line.positions])

    def bounds(self, lines: Iterable[Line], texts: Sequence[str]) -> dict[int, Money]:
        """The most that each review can cost."""
        bounds: dict[int, Money] = {}
        for line in lines:
            cost = self.price.cost(*self._route.bound(self.body(line, texts)))
            bounds.update(zip(line.positions, cost.split(len(line.positions)), strict=True))
        return bounds

    def content(self, lines: Sequence[Line], texts: Sequence[str]) -> bytes:
        """The file to upload.

        Raises:
            BulkTooLarge: the Batch API takes no such file.
        """
        content = io.BytesIO()
        for line in lines:
            request = {
                "custom_id": line.custom_id,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": self.body(line, texts),
            }
            content.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
            if content.tell() > MOST_BYTES:
                break
        if len(lines) > MOST_LINES or content.tell() > MOST_BYTES:
            raise BulkTooLarge(
                f"a Bulk of {len(lines):,} lines is larger than the {MOST_LINES:,} lines and {MOST_BYTES:,} bytes "
                "that the Batch API takes"
            )
        return content.getvalue()

    def upload(self, content: bytes) -> str:
        """Uploads the lines; the file's id. OpenAI forgets it after three days, should nobody delete it.

        Raises:
            OracleInvalid, OracleUnavailable, OracleQuotaSpent: it couldn't.
        """
        with _translated(self):
            return self._client.files.create(
                file=("reviews.jsonl", content),
                purpose="batch",
                expires_after={"anchor": "created_at", "seconds": KEEP_INPUT_S},
            ).id

    def submit(self, file_id: str, client_key: str, content: bytes) -> str:
        """Submits an uploaded file of this content under our key; the id of OpenAI's batch."""
        first = json.loads(content.partition(b"\n")[0])["body"]
        with _translated(self):
            return self._client.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window=WINDOW,
                metadata={CLIENT_KEY: client_key, ASKED: json.dumps(_parameters(first))},
                output_expires_after={"anchor": "created_at", "seconds": KEEP_OUTPUT_S},
            ).id

    def find(self, client_key: str, *, since: float) -> str | None:
        """The batch that was submitted under this key before somebody died; None if there is none.

        They come newest first; those made before `since`, in seconds since 1970, aren't looked at.
        """
        with _translated(self):
            for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(CLIENT_KEY) == client_key:
                    return batch.id
                if batch.created_at < since - LOOK_BACK_S:
                    return None
        return None

    def look(self, remote_id: str) -> Batch:
        """How far OpenAI is."""
        with _translated(self):
            return self._client.batches.retrieve(remote_id)

    def cancel(self, remote_id: str) -> None:
        """Asks OpenAI to stop; what was finished is still collected."""
        with _translated(self):
            self._client.batches.cancel(remote_id)

    def collect(self, batch: Batch, lines: Sequence[Line], texts: Sequence[str]) -> Collected:
        """Reads both result files, whatever the batch ended as; lines belong to prompts by custom_id alone."""
        by_id = {line.custom_id: line for line in lines}
        answers: dict[int, Answer] = {}
        charges: dict[int, Charge] = {}
        refusals: list[str | None] = []
        asked = _asked(batch)
        refused: set[str] = set()
        for file_id in (batch.output_file_id, batch.error_file_id):
            for custom_id, status, body, request_id in self._results(file_id):
                line = by_id.pop(custom_id, None)
                if line is None:
                    continue
                if status == 200:
                    reply = self._read(body, line, request_id)
                    self._take(line, reply, answers, charges, most=self.bounds([line], texts))
                    answered = any(outcome is not None for outcome in reply.outcomes)
                    refusals.append(None if answered else f"answered 200: {reply.trouble}")
                else:
                    refusals.append(_refusal(status, body))
                    if status in (400, 422):
                        sent = [self.spec.sent(texts[index]) for index in line.positions]
                        refused |= self._route.refused(body, asked, sent)
        if batch.status != "failed":
            # Of a line that is in neither file nobody knows whether it was done.
            for line in by_id.values():
                most = self.bounds([line], texts)
                charges.update({position: Charge(most[position]) for position in line.positions})
        refusal = None
        if len(refusals) == len(lines) >= FEWEST_LINES and None not in refusals:
            (said, _), *_ = Counter(refusals).most_common(1)
            where = self.spec.base_url
            refusal = f"the server refuses every request: {where} {said}. Check --model and OPENAI_BASE_URL"
        self._route.learnt.leave_out(refused, asked)
        learnt = bool(lines) and _parameters(self.body(lines[0], texts)) != asked
        return Collected(answers, charges, refusal, learnt=learnt)

    def forget(self, file_id: str | None) -> bool:
        """Deletes uploaded reviews; whether they are gone. What can't be deleted now goes by itself in three days."""
        if file_id:
            try:
                self._client.files.delete(file_id)
            except openai.NotFoundError:
                return True
            except openai.OpenAIError:
                return False
        return True

    def _results(self, file_id: str | None) -> Iterator[tuple[str, int, Any, str | None]]:
        if not file_id:
            return
        with _translated(self):
            content = self._client.files.content(file_id).content
        for raw in content.splitlines():
            try:
                result = json.loads(raw)
                response = result.get("response") or {}
                yield (
                    str(result.get("custom_id")),
                    int(response.get("status_code") or 0),
                    response.get("body"),
                    name_of(response.get("request_id")),
                )
            except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
                # A line cut in half: its reviews are asked again.
                continue

    def _read(self, body: object, line: Line, request_id: str | None) -> Reply:
        try:
            completion = ChatCompletion.model_validate(body)
        except (ValidationError, RecursionError):
            # Whatever it is, it is nobody's label.
            return Reply(
                [None] * len(line.ids), None, None, None, request_id, trouble="the answer isn't a completion"
            )
        return read_completion(completion, line.ids, self.spec.labels, headers={}, request_id=request_id)

    def _take(
        self,
        line: Line,
        reply: Reply,
        answers: dict[int, Answer],
        charges: dict[int, Charge],
        *,
        most: Mapping[int, Money],
    ) -> None:
        # An answer that doesn't say what it took is taken to have used all.
        taken = reply.charge(self.price) or Charge(total(most.values()))
        shares = taken.split(len(line.positions))
        for position, outcome, charge in zip(line.positions, reply.outcomes, shares, strict=True):
            charges[position] = charge
            if outcome is None:
                if len(shares) > 1 or reply.state != "refused":
                    # Asked again, in a line of its own; the ledger counts how often.
                    continue
                outcome = Failure(reply.trouble, reply.state)
            answers[position] = Answer(outcome, reply.model, reply.request_id, charge.tokens, charge.cost)


def _asked(batch: Batch) -> dict[str, Any]:
    """With which parameters the lines of a Bulk asked; none where its metadata don't say so."""
    try:
        found = json.loads((batch.metadata or {}).get(ASKED, "{}"))
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get(FORM, {}), dict) else {}


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a server may refuse of a request, without a word of its reviews."""
    found = {name: body[name] for name in sorted(body.keys() & PARAMETERS)}
    return {**found, FORM: {"type": found[FORM]["type"]}} if FORM in found else found


def _refusal(status: int, body: object) -> str | None:
    """What the server has against a line: of its words the code alone. None where the line may be answered later."""
    if not 400 <= status < 500 or status in (408, 409, 429):
        return None
    error = body.get("error") if isinstance(body, Mapping) else None
    code = plain_code(error.get("code")) if isinstance(error, Mapping) else ""
    return f"answered {status}{f' {code}' if code else ''}"


class _translated:  # noqa: N801
    """Turns the client's errors into the project's own."""

    def __init__(self, scorer: BulkScorer) -> None:
        self._scorer = scorer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if (
            error is None
            or not isinstance(error, Exception)
            or isinstance(error, OracleInvalid | OracleUnavailable)
        ):
            return
        trouble = self._scorer._route.explain(error)
        raise_for(trouble)
        if trouble.kind in ("bisect", "drop"):
            raise OracleInvalid(f"{trouble.reason}: the Batch API doesn't take this submission") from error
        raise unavailable(trouble) from error


def how_far(batch: Batch) -> str:
    """The Batch API's state of a Bulk, with its counts where it gives some."""
    counts = batch.request_counts
    if counts is None or not counts.total:
        return batch.status
    return f"{batch.status}, {counts.completed + counts.failed:,} of {counts.total:,} lines answered"
