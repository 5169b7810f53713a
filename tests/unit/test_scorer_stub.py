import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ReviewUnscorable
from worker.reviews import Review, Score
from worker.scorers.stub import StubScorer, stub_label, stub_score


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_the_stub_gives_what_its_pure_function_says() -> None:
    texts = ["fine", "", "schön", "fine"]
    outcomes = StubScorer().score([Review(row, text) for row, text in enumerate(texts)])
    assert outcomes == [stub_score(text) for text in texts]
    assert [outcome.label for outcome in outcomes if isinstance(outcome, Score)] == [*map(stub_label, texts)]


@settings(deadline=None, max_examples=50)
@given(st.text(), st.sampled_from([("a", "b"), ("a", "b", "c"), tuple("abcdefgh")]))
def test_the_label_is_the_most_probable_one(text: str, labels: Sequence[str]) -> None:
    score = stub_score(text, labels)
    assert score.probabilities is not None
    assert score.label == max(score.probabilities, key=score.probabilities.__getitem__)
    assert score.score == score.probabilities[score.label]
    assert sum(score.probabilities.values()) == pytest.approx(1)


def test_both_labels_occur() -> None:
    labels = [stub_label(str(number)) for number in range(1000)]
    assert 400 < labels.count("positive") < 600


def test_labels_never_change_between_versions() -> None:
    # Drills compare a database with these.
    assert [stub_label(text) for text in ("a", "b", "c", "d")] == [
        "negative",
        "negative",
        "negative",
        "positive",
    ]


def test_a_held_text_waits_for_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORACLE_STUB_GATE", str(tmp_path / "gate"))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (tmp_path / "gate").touch()

    assert StubScorer().score([Review(1, "fine")]) == [stub_score("fine")]
    monkeypatch.setattr("worker.scorers.stub.time.sleep", wait)
    assert StubScorer().score([Review(1, "LORACLE-HOLD")]) == [stub_score("LORACLE-HOLD")]
    assert waits == [0.05, 0.05, 0]


def test_a_poisonous_text_raises() -> None:
    with pytest.raises(ReviewUnscorable, match="row 7"):
        StubScorer().score([Review(1, "fine"), Review(7, "a LORACLE-POISON-RAISE here")])


KILL = """
from worker.reviews import Review
from worker.scorers.stub import StubScorer
StubScorer().score([Review(1, "LORACLE-POISON-KILL")])
"""


def test_a_poisonous_text_kills_only_where_that_is_allowed() -> None:
    assert run(KILL, LORACLE_STUB_POISON="1").returncode == -9
    assert run(KILL).returncode == 0


def test_the_stub_needs_no_torch() -> None:
    code = (
        "import sys, worker.scorers.stub; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert run(code).returncode == 0
