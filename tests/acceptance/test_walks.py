"""What four kinds of people see, against stored transcripts: a changed sentence shows as a changed transcript."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import left_behind
from tests.acceptance.walks.people import DEEDS
from tests.acceptance.walks.walk import HERE, NAMES, walk


@pytest.mark.parametrize("name", NAMES)
def test_people_see_what_the_transcript_says(name: str, tmp_path: Path) -> None:
    seen = walk(name, tmp_path, DEEDS)
    # If that is meant: `python -m tests.acceptance.walks` writes the transcripts anew.
    assert seen.splitlines() == (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert left_behind(tmp_path / "a folder" / "her home") == []
