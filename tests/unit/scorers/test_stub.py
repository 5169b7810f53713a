import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import DeviceBroken, HostUnfit, ReviewUnscorable
from worker.reviews import Review
from worker.scorers.stub import StubScorer, stub_score


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_the_stub_gives_what_its_pure_function_says() -> None:
    texts = ["fine", "", "schön", "fine"]
    outcomes = StubScorer().score([Review(row, text) for row, text in enumerate(texts)])
    assert outcomes == [stub_score(text) for text in texts]


@settings(deadline=None, max_examples=50)
@given(st.text(), st.sampled_from([("a", "b"), ("a", "b", "c"), tuple("abcdefgh")]))
def test_the_label_is_the_most_probable_one(text: str, labels: Sequence[str]) -> None:
    score = stub_score(text, labels)
    assert score.probabilities is not None
    assert score.label == max(score.probabilities, key=score.probabilities.__getitem__)
    assert score.score == score.probabilities[score.label]
    assert sum(score.probabilities.values()) == pytest.approx(1)


def test_both_labels_occur() -> None:
    labels = [stub_score(str(number)).label for number in range(1000)]
    assert 400 < labels.count("positive") < 600


def test_labels_never_change_between_versions() -> None:
    # Drills compare a database with these.
    assert [stub_score(text).label for text in ("a", "b", "c", "d")] == [
        "negative",
        "negative",
        "negative",
        "positive",
    ]


def test_a_held_text_waits_for_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("LORACLE_STUB_GATE", str(gate))
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if seconds:
            gate.touch()

    monkeypatch.setattr("time.sleep", sleep)
    assert StubScorer().score([Review(1, "fine")]) == [stub_score("fine")]
    assert StubScorer().score([Review(1, "LORACLE-HOLD")]) == [stub_score("LORACLE-HOLD")]
    assert waited == [0, 0.05, 0]


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


def test_a_drill_says_when_the_device_is_broken_and_why_the_host_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisonous = [Review(1, "LORACLE-POISON-BREAK")]
    assert len(StubScorer().score(poisonous)) == 1
    monkeypatch.setenv("LORACLE_STUB_POISON", "1")
    with pytest.raises(DeviceBroken, match="at a text"):
        StubScorer().score(poisonous)
    monkeypatch.setenv("LORACLE_STUB_DEVICE", str(tmp_path / "broken"))
    scorer = StubScorer()
    assert len(scorer.score([Review(1, "fine")])) == 1
    (tmp_path / "broken").touch()
    with pytest.raises(DeviceBroken, match="broken while"):
        scorer.score([Review(1, "fine")])
    monkeypatch.setenv("LORACLE_STUB_UNFIT", "no base model")
    with pytest.raises(HostUnfit, match="no base model"):
        StubScorer()


def test_the_stub_needs_no_torch() -> None:
    code = (
        "import sys, worker.scorers.stub; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert run(code).returncode == 0
