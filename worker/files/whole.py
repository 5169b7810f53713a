"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

from worker.errors import OptionInvalid


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends well, and vanishes when it doesn't.

    Raises:
        OptionInvalid: nothing can be written there.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OptionInvalid(f"{path} can't be written: {error.strerror}. Choose another place.") from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_text(target: TextIO | Path) -> Iterator[TextIO]:
    """The same for text in UTF-8, its line ends as they are; an open stream is passed on as it is."""
    if not isinstance(target, Path):
        yield target
        return
    with whole(target) as file, open(file.fileno(), "w", encoding="utf-8", newline="", closefd=False) as text:
        yield text
