"""Labels for single texts at once: `/predict` as text-embeddings-inference has it, and for Label Studio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from xml.etree import ElementTree

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from worker.bootstrap import default_adapter, load_directory, restore_adapter
from worker.errors import HostUnfit, LoracleError, ReviewUnscorable
from worker.files.corrections import FROM
from worker.reviews import Failure, Outcome, Review, Score
from worker.scorers import Scorer
from worker.web.problems import Refused
from worker.web.site import Site, site_of

log = logging.getLogger(__name__)
router = APIRouter(tags=["predict"])

SCORED_AT_ONCE = 256
"""Texts of all callers that are scored together."""
MOST_WAITING = 8192
"""Texts that may wait; beyond it a caller is told to come back."""
MOST_TEXTS = 1000
"""Of one request."""
CHECKED_S = 2.0
"""So often it is looked whether another adapter is active."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter in memory, ready to score."""

    adapter_id: int
    version: str
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class _Waiting:
    texts: Sequence[str]
    answer: asyncio.Future[tuple[list[Outcome], str]]


class Predictor:
    """Scores texts with the active adapter, those of all callers together: one thread computes, and what arrives
    meanwhile is the next batch. The model is loaded for the first text."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._waiting: deque[_Waiting] = deque()
        self._texts = 0
        self._loaded: Loaded | None = None
        self._checked = 0.0

    async def __aenter__(self) -> Self:
        """From now on it scores."""
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends it; whoever waits is told."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for one in self._waiting:
            one.answer.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def score(self, texts: Sequence[str]) -> tuple[list[Outcome], str]:
        """One outcome per text, in order, and which adapter gave them.

        Raises:
            Refused: too many texts wait.
            LoracleError: the adapter can't be loaded, or the device is broken.
        """
        if self._texts + len(texts) > MOST_WAITING:
            raise Refused(503, f"{self._texts:,} texts wait already: try again soon.", Retry_After="1")
        self._texts += len(texts)
        waiting = _Waiting(texts, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        return await waiting.answer

    async def version(self) -> str:
        """Which adapter scores; it is loaded if it isn't yet."""
        _, version = await self.score([])
        return version

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                taken = self._take()
                try:
                    found = await loop.run_in_executor(self._thread, self._score, taken)
                except asyncio.CancelledError:
                    for one in taken:
                        one.answer.cancel()
                    raise
                except Exception as error:
                    for one in taken:
                        if not one.answer.done():
                            one.answer.set_exception(_told(error))
                    continue
                for one, outcomes in zip(taken, found, strict=True):
                    if not one.answer.done():
                        one.answer.set_result(outcomes)

    def _take(self) -> list[_Waiting]:
        """The next batch: what waits, in order, up to as much as is scored at once."""
        taken: list[_Waiting] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0].texts) <= SCORED_AT_ONCE):
            one = self._waiting.popleft()
            count += len(one.texts)
            self._texts -= len(one.texts)
            # Whoever went away needs no answer.
            if not one.answer.done():
                taken.append(one)
        return taken

    def _score(self, taken: Sequence[_Waiting]) -> list[tuple[list[Outcome], str]]:
        loaded = self._active()
        texts = [text for one in taken for text in one.texts]
        outcomes: list[Outcome] = []
        for start in range(0, len(texts), SCORED_AT_ONCE):
            reviews = [
                Review(start + number, text) for number, text in enumerate(texts[start:][:SCORED_AT_ONCE])
            ]
            outcomes += loaded.scorer.score(reviews)
        found, begun = [], 0
        for one in taken:
            found.append((outcomes[begun : begun + len(one.texts)], loaded.version))
            begun += len(one.texts)
        return found

    def _active(self) -> Loaded:
        """The adapter of new jobs, loaded."""
        settings, store = self._site.settings, self._site.store
        if self._loaded is not None and time.monotonic() - self._checked < CHECKED_S:
            return self._loaded
        adapter_id, _ = default_adapter(store, settings)
        self._checked = time.monotonic()
        if self._loaded is None or self._loaded.adapter_id != adapter_id:
            row = store.queries.adapters.get(adapter_id)
            # The old one first: a device may have no room for both.
            self._loaded = None
            self._loaded = Loaded(adapter_id, f"{row.name}@{row.sha256[:12]}", self._load(adapter_id))
        return self._loaded

    def _load(self, adapter_id: int) -> Scorer:
        settings, store = self._site.settings, self._site.store
        if store.queries.adapters.get(adapter_id).is_stub:
            from worker.scorers.stub import StubScorer

            return StubScorer()
        try:
            return load_directory(restore_adapter(store, settings, adapter_id), settings)
        except LoracleError:
            raise
        except Exception as error:
            raise HostUnfit(f"the adapter can't be loaded here: {type(error).__name__}.") from error


def _told(error: Exception) -> Exception:
    """What a caller may hear of it: an unexpected error may quote a review."""
    if isinstance(error, LoracleError):
        return type(error)(str(error))
    log.error("Texts couldn't be scored: %s.", type(error).__name__)
    return Refused(500, "The texts couldn't be scored: the log says why.")


def predictor_of(request: Request) -> Predictor:
    """The predictor of this process; a FastAPI dependency."""
    predictor: Predictor = request.app.state.predictor
    return predictor


ThisPredictor = Annotated[Predictor, Depends(predictor_of)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
OneEach = Annotated[
    list[Annotated[list[str], Field(min_length=1, max_length=1)]], Field(min_length=1, max_length=MOST_TEXTS)
]


class Inputs(BaseModel):
    """What is asked, in the shape of text-embeddings-inference."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": "A wonderful little film."}})

    inputs: str | Texts | OneEach = Field(
        description='A text; or several, as ["a", "b"] or [["a"], ["b"]]: a pair of texts is none here.'
    )
    truncate: bool = Field(True, description="A long text is cut as the adapter was trained: always.")
    raw_scores: Literal[False] = Field(False, description="Scores are probabilities; there are no others.")


class Prediction(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class Tasks(BaseModel):
    """What Label Studio asks."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"tasks": [{"id": 1, "data": {"text": "A wonderful little film."}}]}}
    )

    tasks: list[dict[str, Any]] = Field(max_length=MOST_TEXTS)
    label_config: Annotated[str, StringConstraints(max_length=100_000)] | None = None


class Choice(BaseModel):
    """Label Studio's choices."""

    choices: list[str]


class Result(BaseModel):
    """One region of Label Studio: a choice."""

    from_name: str
    to_name: str
    type: str = "choices"
    value: Choice
    score: float


class TaskPrediction(BaseModel):
    """What Label Studio shows at a task."""

    model_version: str
    score: float | None = None
    result: list[Result]


class TaskPredictions(BaseModel):
    """One prediction per task, in order."""

    results: list[TaskPrediction]


@router.post(
    "/predict",
    summary="Label texts at once",
    response_model=None,
    responses={
        200: {
            "description": "All labels, the likeliest first: a list for one text, a list of lists for several; "
            "`results` for Label Studio's tasks.",
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {"type": "array"},
                            {"type": "object", "required": ["results"]},
                        ]
                    },
                    "example": [{"label": "positive", "score": 0.99}, {"label": "negative", "score": 0.01}],
                }
            },
        }
    },
)
async def predict(
    site: Annotated[Site, Depends(site_of)], predictor: ThisPredictor, asked: Inputs | Tasks
) -> list[Prediction] | list[list[Prediction]] | TaskPredictions:
    """Nothing is stored. Texts of all callers are scored together, with the active adapter, on this host."""
    if isinstance(asked, Tasks):
        return await _for_tasks(site, predictor, asked)
    given = asked.inputs
    texts = [given] if isinstance(given, str) else [one if isinstance(one, str) else one[0] for one in given]
    _check(site, texts)
    outcomes, _ = await predictor.score(texts)
    found = []
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Failure):
            where = "the text" if len(outcomes) == 1 else f"text {number}"
            raise ReviewUnscorable(f"{where} can't be labelled: {outcome.reason}.")
        found.append(_predictions(outcome))
    # [“one text”] is one text there too.
    is_one = isinstance(given, str) or (len(given) == 1 and isinstance(given[0], str))
    return found[0] if is_one else found


def _check(site: Site, texts: Sequence[str]) -> None:
    most = site.settings.max_text_chars
    for number, text in enumerate(texts):
        if len(text) > most:
            raise Refused(422, f"text {number} has {len(text):,} characters, more than {most:,}.")


def _predictions(outcome: Score) -> list[Prediction]:
    scores = outcome.probabilities or {outcome.label: outcome.score or 0.0}
    return [
        Prediction(label=label, score=score)
        for label, score in sorted(scores.items(), key=lambda one: -one[1])
    ]


class Project(BaseModel):
    """What Label Studio says of a project; only its labelling configuration matters here."""

    model_config = ConfigDict(json_schema_extra={"example": {"project": "1.2", "schema": "<View/>"}})

    project: str | int | None = None


@router.post("/setup", summary="Label Studio connects a project")
async def setup(predictor: ThisPredictor, _: Project) -> dict[str, str]:
    """Loads the active adapter and names it."""
    return {"model_version": await predictor.version()}


async def _for_tasks(site: Site, predictor: Predictor, asked: Tasks) -> TaskPredictions:
    from_name, to_name, key = _control(asked.label_config)
    texts: dict[int, str] = {}
    for number, task in enumerate(asked.tasks):
        data = task.get("data")
        text = data.get(key) if isinstance(data, dict) else None
        # A task without a text, or with one that has no words, gets no prediction, and the others theirs.
        if isinstance(text, str) and text.strip():
            texts[number] = text
    _check(site, list(texts.values()))
    outcomes, version = await predictor.score(list(texts.values()))
    by_task = dict(zip(texts, outcomes, strict=True))
    found = []
    for number in range(len(asked.tasks)):
        outcome = by_task.get(number)
        if not isinstance(outcome, Score):
            found.append(TaskPrediction(model_version=version, result=[]))
            continue
        score = outcome.score or 0.0
        chosen = Result(
            from_name=from_name, to_name=to_name, value=Choice(choices=[outcome.label]), score=score
        )
        found.append(TaskPrediction(model_version=version, score=score, result=[chosen]))
    return TaskPredictions(results=found)


def _control(config: str | None) -> tuple[str, str, str]:
    """The names of the choices and of the text they are about, and the task's field with it.

    Raises:
        Refused: the labelling configuration can't be read, or has no choices.
    """
    if not config:
        return FROM, "text", "text"
    if "<!" in config:
        raise Refused(422, "label_config: no declarations (<!…>) are read.")
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError:
        raise Refused(422, "label_config is no XML.") from None
    texts = {one.get("name", ""): one.get("value", "") for one in root.iter("Text")}
    for control in root.iter("Choices"):
        to_name = control.get("toName", "")
        if control.get("name") and to_name in texts:
            return control.get("name", ""), to_name, texts[to_name].removeprefix("$")
    raise Refused(
        422, "label_config has no <Choices> about a <Text>: `loracle review JOB --label-config` prints one."
    )
