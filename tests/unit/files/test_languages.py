"""What language texts are in, with the real detector: what is short or unclear never counts as another one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import worker
from worker.files.languages import SAMPLED, Languages, LanguageWatch, clear_language, look_at, other_language

GERMAN = "Das Essen war kalt und der Service unfreundlich"
FOREIGN = {
    GERMAN: "de",
    "Sehr gutes Produkt, gerne wieder": "de",
    "La comida estaba fría y el servicio lento": "es",
    "Le produit est arrivé cassé": "fr",
    "Ottimo prodotto, consigliato": "it",
    "Очень хороший фильм": "ru",
    "非常好的产品，推荐购买": "zh",
}
ENGLISH = [
    "Great!", "ok", "5 stars", "10/10", "A+++", "lol omg thx gr8 svc", "👍👍", "STAY AWAY FROM THIS MOVIE!!!",
    "Samsung Galaxy S10 Plus 128GB", "sooooo goooood loooove iiiiit", "The sauerkraut at Schmidt's was superb",
    "https://www.amazon.de/gp/das-ist-ein-test", "Nie wieder!", "Super",
]  # fmt: skip


@pytest.mark.parametrize(("text", "code"), FOREIGN.items())
def test_a_review_in_another_language_is_seen(text: str, code: str) -> None:
    assert other_language(text, ("en",)) == code
    assert other_language(text, ("en", code)) is None


@pytest.mark.parametrize("text", ENGLISH)
def test_what_is_short_unclear_or_english_is_no_alarm(text: str) -> None:
    assert other_language(text, ("en",)) is None


def test_the_bundled_samples_are_english() -> None:
    path = Path(worker.__file__).parent / "data" / "sample_reviews.csv"
    with path.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    found = look_at(texts, ("en",))
    assert found is not None
    assert (found.looked_at, found.others, found.sampled) == (len(texts), {}, False)
    assert clear_language(texts) == "en"


def test_a_sample_speaks_for_the_whole_file_and_is_the_same_each_time() -> None:
    # Sorted by language: the first part says nothing of the rest.
    texts = ["It was a fine day and we liked the food"] * 3000 + [GERMAN] * 1000
    found = look_at(texts, ("en",))
    assert found == look_at(texts, ("en",))
    assert found is not None
    assert (found.looked_at, found.sampled, [*found.others]) == (SAMPLED, True, ["de"])
    assert found.share == pytest.approx(0.25, abs=0.06)
    assert str(found) == f"{100 * found.share:.0f} % of 500 sampled reviews don't look English (de)"
    assert Languages.from_json(found.to_json()) == found


def test_each_text_is_counted_where_each_is_looked_at() -> None:
    watch = LanguageWatch(("en",), each=True)
    assert [watch.see(text) for text in (GERMAN, "ok", "Le produit est arrivé cassé")] == ["de", None, "fr"]
    assert watch.found() == Languages(("en",), 3, False, {"de": 1, "fr": 1})


@pytest.mark.parametrize(
    ("others", "looked_at", "notable"), [(2, 10, False), (3, 60, True), (3, 61, False), (0, 0, False)]
)
def test_few_or_a_small_share_is_not_announced(others: int, looked_at: int, notable: bool) -> None:
    assert Languages(("en",), looked_at, False, {"de": others}).notable is notable


def test_nothing_is_looked_at_where_nobody_knows_the_adapters_languages() -> None:
    assert look_at([GERMAN], ()) is None


def test_a_mixture_is_no_clear_language() -> None:
    assert clear_language([GERMAN] * 9 + ["Le produit est arrivé cassé"]) == "de"
    assert clear_language([GERMAN] * 8 + ["Le produit est arrivé cassé"] * 2) is None
    assert clear_language(["ok", "Great!", GERMAN]) is None
