"""What four kinds of people see, against stored transcripts: a changed sentence shows as a changed transcript."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest

from tests.acceptance.conftest import left_behind
from tests.acceptance.walks.people import DEEDS
from tests.acceptance.walks.walk import HERE, NAMES, walk


@pytest.mark.parametrize("name", NAMES)
def test_people_see_what_the_transcript_says(name: str, tmp_path: Path) -> None:
    seen = walk(name, tmp_path, DEEDS)
    kept = (HERE / f"{name}.txt").read_text(encoding="utf-8")
    changed = "\n".join(unified_diff(kept.splitlines(), seen.splitlines(), "kept", "seen", lineterm="", n=1))
    # If that is meant: `python -m tests.acceptance.walks` writes the transcripts anew.
    assert not changed, changed
    assert left_behind(tmp_path / "a folder" / "her home") == []
