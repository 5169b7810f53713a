"""`python -m tests.acceptance.walks [NAME …]` writes the transcripts anew."""

import sys
import tempfile
from pathlib import Path

from tests.acceptance.walks.people import DEEDS
from tests.acceptance.walks.walk import HERE, NAMES, walk

if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            (HERE / f"{name}.txt").write_text(walk(name, Path(folder), DEEDS), encoding="utf-8")
