"""The glossary finds the words that a page shows, in all their forms, and no others."""

from __future__ import annotations

import pytest

from worker.agreement.terms import ONLY_IN_COMMANDS, TERMS, mentioned


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Certified 95.0 %", ["certified"]),
        ("Cohen's kappa is 0.884 (95\u00a0%: 0.861–0.905)", ["kappa"]),
        ("with 95\u00a0% intervals of 512 audited reviews", ["95 % interval", "audit"]),
        ("15 bins; Calibration, bin by bin", ["calibration", "bin"]),
        ("the reviews agree on it, whatever a bias", []),
        ("alphabet, goldfish, scored", []),
    ],
)
def test_a_term_is_found_in_its_forms_and_not_in_other_words(text: str, terms: list[str]) -> None:
    assert [term for term, _ in mentioned(text)] == terms


def test_names_of_columns_are_terms() -> None:
    assert set(ONLY_IN_COMMANDS) <= set(TERMS)
