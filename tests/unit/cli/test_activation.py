"""An adapter that was measured clearly worse doesn't become the active one without a word."""

from __future__ import annotations

from typing import Any

from worker.cli.activation import why_worse


def measured(accuracy: float, n: int, name: str = "reviews_test") -> dict[str, Any]:
    return {name: {"accuracy": accuracy, "n": n}}


def test_worse_on_the_same_data_is_worse_beyond_chance() -> None:
    # 46.67 % took the place of 92.58 %.
    said = why_worse(measured(0.4667, 240), measured(0.9258, 240))
    assert said == "46.67% against 92.58% on reviews_test"
    assert why_worse(measured(0.90, 240), measured(0.9258, 240)) is None
    assert why_worse(measured(0.9258, 240), measured(0.4667, 240)) is None


def test_on_other_data_only_much_worse_is_worse_and_of_nothing_nothing_is_said() -> None:
    said = why_worse({"validation_accuracy": 0.4667}, measured(0.9318, 24_801, "imdb_test"))
    assert said == "46.67% on validation against 93.18% on imdb_test"
    assert why_worse({"validation_accuracy": 0.9}, measured(0.9318, 24_801, "imdb_test")) is None
    assert why_worse({}, measured(0.93, 100)) is None
    assert why_worse(measured(0.1, 100), {}) is None
