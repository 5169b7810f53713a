"""Whether everybody can read the report: contrast in both colour schemes (WCAG 2.2, 1.4.3), on paper, by keyboard."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from worker.report.drawing import MARKERS, SERIES, STRONGEST_CELL

STYLE = files("worker.report").joinpath("style.css").read_text(encoding="utf-8")
Colour = tuple[float, float, float]


def schemes() -> dict[str, dict[str, Colour]]:
    """The variables of the light and the dark scheme; what dark doesn't set is as in light."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = [
        {
            name: tuple(int(value[place : place + 2], 16) / 255 for place in (0, 2, 4))
            for name, value in re.findall(r"(--[\w-]+): #([0-9a-f]{6});", block)
        }
        for block in (light, dark)
    ]
    return {"light": found[0], "dark": {**found[0], **found[1]}}  # type: ignore[dict-item]


def luminance(colour: Colour) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def over(colour: Colour, ground: Colour, opacity: float) -> Colour:
    red, green, blue = (opacity * a + (1 - opacity) * b for a, b in zip(colour, ground, strict=True))
    return red, green, blue


def test_the_ratio_is_the_one_of_the_standard() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast((0x76 / 255,) * 3, (1, 1, 1)) == pytest.approx(4.54, abs=0.01)  # the usual example


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["--paper", "--raised"])
@pytest.mark.parametrize("ink", ["--ink", "--muted", "--link"])
def test_text_is_legible(scheme: str, ground: str, ink: str) -> None:
    colours = schemes()[scheme]
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_the_fullest_cell_are_legible(scheme: str) -> None:
    colours = schemes()[scheme]
    for opacity in (0.0, STRONGEST_CELL / 2, STRONGEST_CELL):
        cell = over(colours["--ink"], colours["--paper"], opacity)
        assert contrast(colours["--ink"], cell) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_bars_stand_out(scheme: str) -> None:
    colours = schemes()[scheme]
    for series in range(1, 5):
        # 3 would do for drawings (1.4.11); these are as good as text.
        assert contrast(colours[f"--series-{series}"], colours["--paper"]) >= 4.5


def test_every_mark_of_a_drawing_has_a_rule_in_colours_of_the_page() -> None:
    template = files("worker.report").joinpath("drawing.svg.j2").read_text(encoding="utf-8")
    classes = {one for found in re.findall(r'class="([\w -]+)"', template) for one in found.split()}
    classes |= {*SERIES, *(f"line-{number}" for number in range(2, len(MARKERS) + 1))}
    assert classes >= {"plot", "cell", "track", "band"}
    assert all(re.search(rf"\.{one}\b", STYLE) for one in classes)
    assert set(re.findall(r"var\((--[\w-]+)\)", STYLE)) <= set(schemes()["light"])


def test_paper_has_its_own_rules_and_the_light_scheme() -> None:
    assert "@page" in STYLE
    assert "@media print" in STYLE
    # Ink on white, whatever the reader's screen prefers.
    assert "@media screen and (prefers-color-scheme: dark)" in STYLE
    assert "details::details-content" in STYLE
    assert "thead { display: table-header-group; }" in STYLE


def test_focus_is_visible_and_motion_can_be_refused() -> None:
    assert re.search(r":focus-visible \{ outline: 3px solid", STYLE)
    assert "prefers-reduced-motion" in STYLE
    assert not re.search(r"outline:\s*(0|none)", STYLE)


def test_the_style_sheet_loads_nothing() -> None:
    assert not re.search(r"url\(|@import|@font-face", STYLE)
