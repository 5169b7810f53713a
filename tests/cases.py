"""One test for many cases: where they are cheap and check the same lines, a test for each only costs time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def for_each(cases: Mapping[str, tuple[Any, ...]]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Makes one test out of a test of one case: it runs with the arguments of each, and a failure names its case."""

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        def run() -> None:
            for name, arguments in cases.items():
                try:
                    test(*arguments)
                except Exception as error:
                    error.add_note(f"The case is {name!r}.")
                    raise

        # Not functools.wraps: pytest would take the arguments of the test of one case for fixtures.
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        return run

    return decorate
