"""Who the oracle is: all that can change its labels, and so its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from worker.errors import OptionInvalid
from worker.oracle.prompts import Template
from worker.oracle.windows import TextWindow
from worker.reviews import ScorerIdentity

Route = Literal["decisions", "chat", "bulk"]
ROUTES: tuple[Route, ...] = get_args(Route)
OPENAI = "https://api.openai.com/v1"
DECISIONS_MODELS = ("gpt-6-luna",)
MOST_PER_PROMPT: dict[str, int] = {"decisions": 400, "chat": 100, "bulk": 100}
DEFAULT_PER_PROMPT: dict[str, int] = {"decisions": 1, "chat": 10, "bulk": 10}


def choose_route(wanted: str, model: str, base_url: str) -> Route:
    """The route of `--route`: `auto` is Decisions for a model that has it at OpenAI's own address, else chat.

    Raises:
        OptionInvalid: the model has no such route.
    """
    has_decisions = any(model == name or model.startswith(f"{name}-") for name in DECISIONS_MODELS)
    at_openai = urlsplit(base_url).hostname == urlsplit(OPENAI).hostname
    if wanted == "auto":
        return "decisions" if has_decisions and at_openai else "chat"
    if wanted == "decisions" and at_openai and not has_decisions:
        raise OptionInvalid(
            f"OpenAI answers Decisions only for {', '.join(DECISIONS_MODELS)}, not for {model}. "
            "Use --route chat."
        )
    if wanted not in ROUTES:
        raise OptionInvalid(f"there is no route '{wanted}'. Choose one of auto, {', '.join(ROUTES)}.")
    return wanted


@dataclass(frozen=True, slots=True)
class OracleSpec:
    """A model with its way of being asked. `labels` are in the adapter's order."""

    model: str
    labels: tuple[str, ...]
    route: Route
    template: Template
    window: TextWindow
    reviews_per_prompt: int
    redacted: bool = False
    base_url: str = OPENAI

    def __post_init__(self) -> None:
        most = MOST_PER_PROMPT[self.route]
        if not 1 <= self.reviews_per_prompt <= most:
            raise OptionInvalid(
                f"--reviews-per-prompt is 1 to {most} on the route {self.route}, not {self.reviews_per_prompt}."
            )

    @property
    def identity(self) -> ScorerIdentity:
        """Who gives these labels."""
        details = self.details()
        return ScorerIdentity(
            kind="openai",
            name=f"{self.model} {self.template.name}",
            sha256=hashlib.sha256(json.dumps(details, sort_keys=True).encode()).hexdigest(),
            details=details,
        )

    def details(self) -> dict[str, Any]:
        """Everything, as JSON that `parse` reads: a worker makes the scorer from the database alone."""
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("template", "window")},
            "labels": list(self.labels),
            "window": str(self.window),
            "template": {"name": self.template.name, "text": self.template.text},
            "template_sha256": self.template.sha256,
        }

    @classmethod
    def parse(cls, details: Mapping[str, Any]) -> OracleSpec:
        """Reads what `details` wrote."""
        return cls(
            model=details["model"],
            labels=tuple(details["labels"]),
            route=details["route"],
            template=Template(details["template"]["name"], details["template"]["text"]),
            window=TextWindow.parse(details["window"]),
            reviews_per_prompt=int(details["reviews_per_prompt"]),
            redacted=bool(details["redacted"]),
            base_url=details["base_url"],
        )
