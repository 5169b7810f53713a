"""The search for the shortest sequence that still fails."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.nemesis.storm import Planned, shorten


def test_of_a_sequence_that_fails_the_shortest_part_is_found() -> None:
    planned = [Planned(f"fault {number}", 0.0, number) for number in range(8)]
    tried: list[int] = []

    def fails(part: Sequence[Planned]) -> bool:
        tried.append(len(part))
        return {planned[2], planned[5]} <= set(part)

    assert shorten(planned, fails, most=50) == [planned[2], planned[5]]
    assert len(tried) == 8


def test_the_search_for_the_shortest_part_is_bounded() -> None:
    planned = [Planned(f"fault {number}", 0.0, number) for number in range(8)]
    assert shorten(planned, lambda part: False, most=3) == planned
