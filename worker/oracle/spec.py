"""Who the oracle of a job is, what it is told, which part of a text it gets, and what is masked in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from worker.errors import OptionInvalid
from worker.reviews import ScorerIdentity

FOLDER = Path(__file__).parent.parent / "data" / "prompts"
LABELS = "{labels}"
LONGEST_TEMPLATE = 20_000


@dataclass(frozen=True, slots=True)
class Template:
    """The system text. `{labels}` in it stands for the label names; its hash is part of the scorer's identity."""

    name: str
    text: str

    @classmethod
    def find(cls, name: str) -> Template:
        """The built-in template of that name, or the file of that path.

        Raises:
            OptionInvalid: it is neither, or the file isn't usable.
        """
        built_in = FOLDER / f"{name}.txt"
        if name in built_in_names():
            return cls(name, built_in.read_text(encoding="utf-8").strip())
        path = Path(name)
        known = ", ".join(built_in_names())
        if not path.is_file():
            raise OptionInvalid(f"there is no template or file '{name}'. Built in are {known}.")
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionInvalid(f"the template {path} can't be read: {error}.") from error
        if LABELS not in text:
            raise OptionInvalid(f"the template {path} must say {LABELS} where the label names shall stand.")
        if len(text) > LONGEST_TEMPLATE:
            raise OptionInvalid(
                f"the template {path} has {len(text):,} characters; {LONGEST_TEMPLATE:,} is the most."
            )
        return cls(path.name, text)

    @property
    def sha256(self) -> str:
        """What identifies it, whatever its name."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, labels: Sequence[str]) -> str:
        """The system text for these labels."""
        return self.text.replace(LABELS, ", ".join(json.dumps(label, ensure_ascii=False) for label in labels))


def built_in_names() -> list[str]:
    """The templates that come with Loracle."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


Part = Literal["head", "tail", "head+tail", "full"]

_WINDOW = re.compile(r"(head|tail|head\+tail):([1-9]\d{0,6})")
_GAP = " […] "


@dataclass(frozen=True, slots=True)
class TextWindow:
    """A part of a text: its first or last `characters`, half of them from each end, or all of it (`characters` 0)."""

    part: Part = "tail"
    characters: int = 500

    @classmethod
    def parse(cls, text: str) -> TextWindow:
        """Reads what `--text-window` takes: head:N, tail:N, head+tail:N or full.

        Raises:
            OptionInvalid: it is none of these.
        """
        if text == "full":
            return cls("full", 0)
        found = _WINDOW.fullmatch(text)
        if found is None:
            raise OptionInvalid(
                f"'{text}' is no text window. Use head:500, tail:500, head+tail:500 (in characters) or full."
            )
        part: Part = "head" if found[1] == "head" else "tail" if found[1] == "tail" else "head+tail"
        return cls(part, int(found[2]))

    def __str__(self) -> str:
        return "full" if self.part == "full" else f"{self.part}:{self.characters}"

    def cut(self, text: str) -> str:
        """The part of the text; a text that fits is left as it is."""
        if self.part == "full" or len(text) <= self.characters:
            return text
        if self.part == "head":
            return text[: self.characters]
        if self.part == "tail":
            return text[-self.characters :]
        head = (self.characters + 1) // 2
        tail = self.characters - head
        # The mark keeps two half sentences from being read as one.
        return text[:head] + _GAP + (text[-tail:] if tail else "")


# With the lengths of RFC 5321: without them a long text in one piece is walked through from each of its characters.
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# Thirteen to nineteen digits as they are printed on cards: in a row, or in groups with single blanks or dashes.
_CARD = re.compile(r"(?<![\d.,])\d(?:[ -]?\d){12,18}(?![\d.,]?\d)")
# Either with a country's +, or with a leading 0 or area code in brackets, or in groups such as 555-123-4567.
_PHONE = re.compile(
    r"""(?<![\w.,/+-])(?:
        \+\d{1,3}(?:[ ./-]?\(?\d{1,5}\)?){2,6}
      | \(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]?\d{2,5}){1,3}
      | 0\d{1,4}[ /-]\d{3,}(?:[ -]\d{2,}){0,3}
      | \d{3}[ .-]\d{3}[ .-]\d{4}
    )(?![\w/]|[.,]\d)""",
    re.VERBOSE,
)
_FEWEST_DIGITS, _MOST_DIGITS = 9, 15


def redact(text: str) -> str:
    """The text with e-mail addresses, card and phone numbers masked as [email], [card] and [phone].

    Years, prices, ratings and the like stay. It finds what is written the usual way, and promises no more.
    """
    text = _EMAIL.sub("[email]", text)
    text = _CARD.sub(lambda found: "[card]" if _luhn(found[0]) else found[0], text)
    return _PHONE.sub(lambda found: "[phone]" if _is_phone(found[0]) else found[0], text)


def _is_phone(text: str) -> bool:
    # E.164 has fifteen digits at most; with fewer than nine it is as likely two years beside each other.
    return _FEWEST_DIGITS <= sum(letter.isdigit() for letter in text) <= _MOST_DIGITS


def _luhn(text: str) -> bool:
    """The check digit of every payment card (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


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

    def sent(self, text: str) -> str:
        """What of a text leaves this machine."""
        return self.window.cut(redact(text) if self.redacted else text)

    @property
    def identity(self) -> ScorerIdentity:
        """Who gives these labels.

        What a server refuses is no part of it: that is known only after the first request, and where the schema
        stands, in a parameter or in the prompt, changes neither the labels nor what is said of the reviews.
        """
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
