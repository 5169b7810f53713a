"""What the oracle answered, written for every request that asked about that text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from worker.money import ZERO
from worker.reviews import Answer, Failure, Prompt, Score
from worker.store.requests import change, of_same_text, resolve
from worker.store.rows import insert_answers

COPIED = "the same text had a label by this scorer"


def settle_answers(connection: Connection, prompt: Prompt, answers: Mapping[int, Answer]) -> None:
    """A label or a reason per answer, by position in `prompt.requests`, and for requests about the same text.

    They take the label for nothing, and the reason too: of what the oracle refuses once it isn't asked again.
    """
    if not answers:
        return
    asked = [(prompt.requests[index], answer) for index, answer in sorted(answers.items())]
    same = of_same_text(
        connection, prompt.scorer_id, prompt.id, [request.text_sha256 for request, _ in asked]
    )
    labels: list[tuple[int, int, Answer]] = []
    copies: list[tuple[int, int, Answer]] = []
    ended: dict[Failure, list[tuple[int, int, str]]] = {}
    for request, answer in asked:
        others = same.get(request.text_sha256, [])
        if isinstance(answer.outcome, Score):
            labels.append((request.job_id, request.row_no, answer))
            free = replace(answer, tokens=0, cost=ZERO)
            copies += [(job_id, row_no, free) for job_id, row_no, _ in others]
        else:
            ended.setdefault(answer.outcome, []).extend(
                [(request.job_id, request.row_no, request.reason), *others]
            )
    if labels:
        insert_answers(connection, scorer_id=prompt.scorer_id, batch_id=prompt.id, answers=[*labels, *copies])
    keys = [(job_id, row_no) for job_id, row_no, _ in labels]
    change(connection, prompt.scorer_id, keys, state="labelled", detail=None, follows=False)
    keys = [(job_id, row_no) for job_id, row_no, _ in copies]
    change(connection, prompt.scorer_id, keys, state="labelled", detail=COPIED, follows=True)
    for failure, requests in ended.items():
        resolve(connection, requests, scorer_id=prompt.scorer_id, state=failure.state, detail=failure.reason)
