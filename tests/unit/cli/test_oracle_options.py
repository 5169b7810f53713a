"""Options of policy and oracle that don't fit together, in this process: the command line itself, but quicker."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.cli import main


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "cascade"), "--below P"),
        (("--below", "0.5"), "--below needs --policy cascade; --policy adapter"),
        (("--policy", "cascade", "--below", "0.5", "--guarantee", "0.9"), "needs one of --below P"),
        (("--policy", "adapter", "--guarantee", "0.9"), "--guarantee needs --policy cascade"),
        (("--policy", "cascade", "--guarantee", "95"), "at most 1, not 95"),
        (("--policy", "cascade", "--guarantee", "0.9", "--audit", "0.1"), "an audit of its own"),
        (("--policy", "cascade", "--guarantee", "0.9", "--delta", "0"), "chance between 0 and 1"),
        (("--policy", "cascade", "--below", "0.5", "--label-budget", "9"), "belong to --guarantee"),
        (("--policy", "cascade", "--guarantee", "0.9", "--label-budget", "0"), "1 or more, not 0"),
        (("--policy", "cascade", "--below", "1.5"), "at most 1"),
        (("--audit", "2"), "share between 0 and 1"),
        (("--model", "gpt-6-luna"), "--policy adapter never asks"),
        (("--policy", "oracle", "--model", "unheard-of"), "LORACLE_PRICES"),
        (("--policy", "oracle", "--prompt", "nowhere.txt"), "zero-shot-v1"),
        (("--policy", "oracle", "--text-window", "middle:3"), "head"),
        (("--policy", "oracle", "--reviews-per-prompt", "0"), "--reviews-per-prompt"),
        (("--policy", "oracle", "--bulk", "--route", "chat"), "exclude each other"),
        (
            ("--policy", "oracle", "--max-cost", "-1"),
            "'--max-cost': -1 is no amount in US dollars, 0 or more",
        ),
        (("--policy", "oracle", "--max-cost", "nan"), "nan is no amount in US dollars"),
    ],
)
def test_options_that_do_not_fit_are_told_with_the_way_out(
    options: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORACLE_ADAPTER", "stub")
    (tmp_path / "reviews.txt").write_text("A fine film.\n")
    with pytest.raises(SystemExit) as ended:
        main(["enqueue", "reviews.txt", *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
