"""Faults that are planted into the product to see them caught; each is a function that patches this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

PLANTED: Mapping[str, Callable[[], None]] = {}
