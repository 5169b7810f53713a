"""What every rule of the ledger's state machine stands on: a step of ledger and model, and the promises after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import Engine

from tests.contract.clock import START, Clock
from tests.contract.model import Model
from tests.contract.model_state import Key, Lane, Refused
from tests.contract.seen import OPEN, Eye, Seen, differences, empty
from worker.errors import LoracleError
from worker.reviews import Batch, Prompt
from worker.store.ledger import Ledger

T = TypeVar("T")

LANES: tuple[Lane, ...] = ("adapter", "openai")
MAX_ATTEMPTS, LEASE_S, UNHEARD_S = 2, 60.0, 600.0
KNOWN_LOST = 4
"""So many workers that have lost their lease are remembered."""


@dataclass(repr=False)
class Worker:
    """Who claimed a batch, and may not know that it isn't his any more."""

    lane: Lane
    held: Batch | Prompt
    message: int
    in_bulk: bool
    answered: set[int] = field(default_factory=set)
    unsettled: dict[int, int] = field(default_factory=dict)
    """What is set aside, by reservation."""

    def __repr__(self) -> str:
        return f"<{self.held.attempts}. holder of batch {self.held.id}>"

    @property
    def prompt(self) -> Prompt:
        assert isinstance(self.held, Prompt)
        return self.held

    @property
    def batch(self) -> Batch:
        assert isinstance(self.held, Batch)
        return self.held

    @property
    def lease(self) -> tuple[int, str]:
        return self.held.id, self.held.lease_token


class Machine(RuleBasedStateMachine):
    """A ledger, its model, the queues, and the workers."""

    engine: ClassVar[Engine]
    clock: ClassVar[Clock]
    eye: ClassVar[Eye]

    def __init__(self) -> None:
        super().__init__()
        empty(self.engine)
        self.clock.now = START
        self.ledger = Ledger(
            self.engine, max_attempts=MAX_ATTEMPTS, lease_s=LEASE_S, unheard_after_s=UNHEARD_S
        )
        self.model = Model(max_attempts=MAX_ATTEMPTS, lease_s=LEASE_S, unheard_s=UNHEARD_S)
        self.adapter_id = self.ledger.adapters.register_stub()
        self.window = 2
        self.limit: int | None = None
        self.queues: dict[Lane, list[int]] = {"adapter": [], "openai": []}
        self.workers: list[Worker] = []
        self.refused = False
        self.numbers = count(1)

    def step(self, act: Callable[[], T], expect: Callable[[T | None], None]) -> T | None:
        """The ledger acts, the model says what had to come of it, and both are compared; None if it is refused."""
        result, refused, expected = None, None, None
        try:
            result = act()
        except LoracleError as error:
            refused = type(error).__name__
        seen = self.eye.look()
        self.model.look(self.clock.now, seen)
        try:
            expect(result)
        except Refused as error:
            expected = str(error)
        except Exception as error:
            error.add_note(f"The ledger gave {result!r}, refused: {refused}.")
            raise
        assert refused == expected, f"the ledger refuses it with {refused}, the model with {expected}"
        assert not (wrong := differences(self.model.view(), seen)), "\n".join(wrong)
        self.promises(seen)
        self.refused = refused is not None
        return result

    def promises(self, seen: Seen) -> None:
        """What is true at every moment, without a look at the model."""
        _money(seen, self.limit)
        for lane in LANES:
            out = [
                number
                for number, row in seen.batches.items()
                if row[1] == lane and row[7] is not None and (lane == "openai" or _active(seen, row[0]))
            ]
            assert len(out) <= self.window, f"batches {out} have a message each"
        for number, row in seen.batches.items():
            assert (row[2] == "running") == (row[4] is not None), f"batch {number} is {row[2]}: {row[4]}"
        leaders: Counter[tuple[int, str]] = Counter()
        for key, (_, state, _, _, follows, batch_id) in seen.requests.items():
            if state == "packed":
                assert batch_id is not None
                assert seen.batches[batch_id][2] in OPEN, f"{key} waits for a batch that is over"
                leaders[batch_id, seen.rows[key][0]] += not follows
        assert set(leaders.values()) <= {1}, f"not asked once: {leaders}"
        for key, (_, error, _) in seen.rows.items():
            assert error is None or final_label(seen, key) is None, (
                f"{key} has a label and the reason {error!r}"
            )

    def forget_some(self) -> None:
        """Of those who have lost their lease the oldest."""
        for one in [one for one in self.workers if not self.model.holds(*one.lease)][:-KNOWN_LOST]:
            self.workers.remove(one)


def final_label(seen: Seen, key: Key) -> str | None:
    """The oracle's where it was asked for more than agreement, else the adapter's."""
    reason = seen.requests[key][0] if key in seen.requests else None
    said = {rater: seen.labels.get((*key, rater), (None,))[0] for rater in ("adapter", "oracle")}
    if said["oracle"] is not None and reason not in (None, "audit"):
        return str(said["oracle"])
    return None if reason == "policy" else said["adapter"]


def _active(seen: Seen, job_id: int) -> bool:
    return seen.jobs[job_id][0] in ("reading", "running")


def _money(seen: Seen, limit: int | None) -> None:
    sums: Counter[int] = Counter()
    for job_id, _, reserved, cost, _ in seen.reservations.values():
        sums[job_id] += reserved if cost is None else cost
    total = sum(spent for (spent,) in seen.deleted.values())
    for job_id, (state, _, _, spent, cap, _, _) in seen.jobs.items():
        total += spent
        assert spent == sums[job_id] or state == "deleting", (
            f"job {job_id} has spent {spent}, not {sums[job_id]}"
        )
        assert cap is None or spent <= cap, f"job {job_id} has spent {spent} of {cap}"
    assert limit is None or total <= limit, f"all jobs have spent {total} of {limit}"
