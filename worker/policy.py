"""Which scorers a job uses, and which of its reviews the oracle is asked about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from worker.errors import OptionInvalid
from worker.reviews import Outcome, Score

PolicyKind = Literal["adapter", "oracle", "fallback", "cascade"]
RequestReason = Literal[
    "policy", "fallback", "cascade", "audit", "language", "guarantee", "training", "held_out"
]
DEFERRED: tuple[RequestReason, ...] = ("cascade", "language", "guarantee", "training", "held_out")
"""Reasons for which the adapter gives a label too, and the oracle decides. Of `training` and `held_out` it was asked
before there was an adapter: to train one, and to measure it."""
KINDS: tuple[PolicyKind, ...] = get_args(PolicyKind)
REASONS: tuple[RequestReason, ...] = get_args(RequestReason)

DELTA = 0.05
"""How often a guarantee may fail."""

_TEXT = re.compile(
    r"(\w+)(?: --below (\S+))?(?: --guarantee (?P<guarantee>\S+) --delta (\S+)(?: --label-budget (\d+))?)?"
    r"(?: --audit (?P<audit>\S+))?(?: --audit-seed (?P<seed>-?\d+))?"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides a job's labels.

    `adapter`: the adapter alone. `oracle`: the oracle alone. `fallback`: the adapter, and the oracle where it can't.
    `cascade`: the oracle decides every review whose calibrated score is under `below`. With any of them, `audit` is
    the share of reviews, drawn by `audit_seed`, that both label: for agreement, never for the final label.

    A `cascade` may have a `guarantee` instead of `below`: with a chance of at least 1 - `delta` the final labels are
    the oracle's on at least that share of the reviews (`worker.agreement.guarantee`). The sample that this takes is
    drawn by `audit_seed`, and in it too the oracle decides. With a `label_budget` the oracle labels at most so many.

    Raises:
        OptionInvalid: the parts don't fit together.
    """

    kind: PolicyKind = "adapter"
    below: float | None = None
    audit: float = 0.0
    audit_seed: int = 0
    guarantee: float | None = None
    delta: float = DELTA
    label_budget: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionInvalid(f"there is no policy '{self.kind}'. Choose one of {', '.join(KINDS)}.")
        ways = {"--below": self.below is not None, "--guarantee": self.guarantee is not None}
        if self.kind != "cascade":
            for way in (way for way, given in ways.items() if given):
                raise OptionInvalid(f"{way} needs --policy cascade; --policy {self.kind} doesn't take it.")
        elif sum(ways.values()) != 1:
            raise OptionInvalid("--policy cascade needs one of --below P and --guarantee SHARE.")
        if self.guarantee is None and (self.label_budget is not None or self.delta != DELTA):
            raise OptionInvalid("--delta and --label-budget belong to --guarantee.")
        if self.guarantee is not None and not 0 < self.guarantee <= 1:
            raise OptionInvalid(f"--guarantee is a share over 0, at most 1, not {self.guarantee:g}.")
        if self.guarantee is not None and self.audit:
            raise OptionInvalid("--guarantee draws an audit of its own: leave out --audit.")
        if not 0 < self.delta < 1:
            raise OptionInvalid(f"--delta is a chance between 0 and 1, not {self.delta:g}.")
        if self.label_budget is not None and self.label_budget < 1:
            raise OptionInvalid(f"--label-budget is a number of reviews, 1 or more, not {self.label_budget}.")
        if self.below is not None and not 0 < self.below <= 1:
            raise OptionInvalid(f"--below is a probability over 0, at most 1, not {self.below:g}.")
        if not 0 <= self.audit <= 1:
            raise OptionInvalid(f"--audit is a share between 0 and 1, not {self.audit:g}.")

    def __str__(self) -> str:
        """As it would be typed; `parse` reads it, and it is part of a job's identity."""
        parts = [str(self.kind)]
        if self.below is not None:
            parts.append(f"--below {self.below!r}")
        if self.guarantee is not None:
            parts.append(f"--guarantee {self.guarantee!r} --delta {self.delta!r}")
            if self.label_budget is not None:
                parts.append(f"--label-budget {self.label_budget}")
            parts.append(f"--audit-seed {self.audit_seed}")
        if self.audit:
            parts.append(f"--audit {self.audit!r} --audit-seed {self.audit_seed}")
        return " ".join(parts)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Reads what `str` wrote.

        Raises:
            OptionInvalid: it is no policy.
        """
        found = _TEXT.fullmatch(text)
        drawn = found is not None and (found["guarantee"] or found["audit"]) is not None
        if found is None or found[1] not in KINDS or drawn != (found["seed"] is not None):
            raise OptionInvalid(f"'{text}' is no policy. Choose one of {', '.join(KINDS)}.")
        below, guarantee, delta, budget, audit, seed = found.groups()[1:]
        return cls(
            kind=found[1],
            below=None if below is None else float(below),
            audit=0.0 if audit is None else float(audit),
            audit_seed=0 if seed is None else int(seed),
            guarantee=None if guarantee is None else float(guarantee),
            delta=DELTA if delta is None else float(delta),
            label_budget=None if budget is None else int(budget),
        )

    @property
    def names_oracle(self) -> bool:
        """Whether reviews may leave this machine for the oracle."""
        return self.kind != "adapter" or self.audit > 0

    @property
    def has_sample(self) -> bool:
        """Whether adapter and oracle both label a uniform sample of the adapter's reviews."""
        return self.audit > 0 or self.guarantee is not None

    @property
    def names_adapter(self) -> bool:
        """Whether the adapter labels any review."""
        return self.kind != "oracle" or self.audit > 0

    def is_audited(self, job_id: int, row_no: int) -> bool:
        """Whether this review is of the audited share: drawn by a hash, so it needs no order and no memory.

        A review may be audited and, for another reason, asked about already: the share stays a random one.
        """
        if self.audit <= 0:
            return False
        digest = hashlib.sha256(f"audit {self.audit_seed} {job_id} {row_no}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.audit * 2**64

    def requests(
        self, job_id: int, scored: Iterable[tuple[int, Outcome]], *, foreign: Collection[int] = ()
    ) -> list[tuple[int, RequestReason]]:
        """The rows the oracle is asked about after the adapter has scored them, each once, with the reason.

        Of the `foreign` rows the oracle decides whatever the adapter says.
        """
        found: list[tuple[int, RequestReason]] = []
        for row_no, outcome in scored:
            reason = self._reason(outcome)
            if reason != "policy" and row_no in foreign and isinstance(outcome, Score):
                reason = "language"
            # A review that the adapter couldn't label can't be compared.
            if reason is None and isinstance(outcome, Score) and self.is_audited(job_id, row_no):
                reason = "audit"
            if reason is not None:
                found.append((row_no, reason))
        return found

    def _reason(self, outcome: Outcome) -> RequestReason | None:
        if self.kind == "oracle":
            return "policy"
        if self.kind in ("fallback", "cascade") and not isinstance(outcome, Score):
            return "fallback"
        if self.kind == "cascade" and isinstance(outcome, Score) and self.below is not None:
            # A score that isn't known can't be trusted to be high.
            return "cascade" if outcome.score is None or outcome.score < self.below else None
        return None
