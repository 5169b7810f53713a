"""Cuts reviews into micro-batches by a budget of padded tokens. Integers in, integers out."""

from collections.abc import Sequence


def plan(lengths: Sequence[int], *, token_budget: int) -> list[list[int]]:
    """Micro-batches of indices into `lengths`: every index once, longest reviews first.

    A micro-batch of n reviews costs n x its longest length, which is what a padded forward pass computes;
    that product never exceeds `token_budget`. Longest first, so that a memory shortage shows at once.

    Raises:
        ValueError: a single review is longer than the budget, or a length is below 1.
    """
    if not lengths:
        return []
    if min(lengths) < 1:
        raise ValueError(f"lengths must be at least 1, found {min(lengths)}")
    if max(lengths) > token_budget:
        raise ValueError(f"a review of {max(lengths)} tokens is over the token budget of {token_budget}")
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    micro_batches: list[list[int]] = []
    room = 0
    for index in order:
        if room == 0:
            micro_batches.append([])
            room = token_budget // lengths[index]
        micro_batches[-1].append(index)
        room -= 1
    return micro_batches
