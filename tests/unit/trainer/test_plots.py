import math
import struct
from pathlib import Path

import pytest

from trainer import plots
from trainer.plots import draw_curves, draw_reliability, plots_available
from worker.agreement.calibration import ReliabilityBin
from worker.errors import TrainingInvalid

STEPS = [
    {
        "kind": "step",
        "step": step,
        "epoch": 1 + step // 100,
        "loss": 1 / step,
        "accuracy": 1 - 1 / step,
        "learning_rate": 6e-4,
        "tokens_per_s": 4000.0,
        "seconds": float(step),
    }
    for step in range(10, 201, 10)
]
EPOCHS = [
    {
        "kind": "epoch",
        "epoch": epoch,
        "step": 100 * epoch,
        "validation_accuracy": 0.9,
        "validation_loss": 0.3,
        "best": epoch == 1,
    }
    for epoch in (1, 2)
]
ROWS = [ReliabilityBin(0.5, 0.7, 20, 0.6, 0.4), ReliabilityBin(0.9, 1.0, 20, 0.95, 1.0)]


def size(path: Path) -> tuple[int, int]:
    """Width and height in pixels; fails if the file is no PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


@pytest.mark.parametrize(
    "events",
    [
        [*STEPS, *EPOCHS],
        [],
        STEPS,
        EPOCHS,
        STEPS[:1],
        [{**STEPS[0], "loss": math.nan, "accuracy": math.inf, "learning_rate": None}, {"kind": "step"}],
        [{**EPOCHS[0], "validation_loss": None}, {"kind": "other", "step": "x"}],
    ],
)
def test_curves_are_drawn_of_whatever_was_reported(tmp_path: Path, events: list[dict[str, object]]) -> None:
    draw_curves(events, tmp_path / "curves.png")
    width, height = size(tmp_path / "curves.png")
    assert width > 600
    assert height > 600
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_same_events_are_the_same_bytes_and_others_are_not(tmp_path: Path) -> None:
    draw_curves([*STEPS, *EPOCHS], tmp_path / "a.png")
    draw_curves([*STEPS, *EPOCHS], tmp_path / "b.png")
    draw_curves(STEPS, tmp_path / "c.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_reliability_is_drawn(tmp_path: Path, rows: list[ReliabilityBin]) -> None:
    draw_reliability(rows, tmp_path / "reliability.png")
    assert min(size(tmp_path / "reliability.png")) > 400


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    assert plots._smooth([0.7, 0.7, 0.7]) == pytest.approx([0.7, 0.7, 0.7])
    smoothed = plots._smooth([1.0, 0.0])
    assert smoothed[0] == pytest.approx(1.0)
    assert 0 < smoothed[1] < 0.5


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'matplotlib'"), ValueError("numpy.dtype size changed")]
)
def test_without_a_matplotlib_that_works_drawing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(name: str) -> None:
        raise error

    assert plots_available()
    monkeypatch.setattr("importlib.import_module", fail)
    assert not plots_available()
    for draw in (lambda path: draw_curves(STEPS, path), lambda path: draw_reliability(ROWS, path)):
        with pytest.raises(TrainingInvalid, match="pip install 'loracle") as caught:
            draw(tmp_path / "x.png")
        assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_failed_drawing_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curves.png"
    draw_curves(STEPS, path)
    before = path.read_bytes()

    def fail(_: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        draw_curves([*STEPS, *EPOCHS], path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["curves.png"]


def test_what_is_missing_or_no_number_is_left_out_of_a_line() -> None:
    events = [
        {"step": 1, "loss": 0.5},
        {"step": 2},
        {"step": None, "loss": 1.0},
        {"step": 4, "loss": math.nan},
    ]
    assert plots._points(events, "loss") == ([1.0], [0.5])
