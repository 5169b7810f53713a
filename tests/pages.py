"""A small strict reader of HTML pages: what it takes is well-formed, and says what a reader of the page meets."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr", "area", "base", "col", "embed", "source", "track"}
CHILDREN = {
    "ul": {"li"},
    "ol": {"li"},
    "dl": {"dt", "dd"},
    "table": {"caption", "thead", "tbody"},
    "thead": {"tr"},
    "tbody": {"tr"},
    "tr": {"th", "td"},
    "html": {"head", "body"},
    "head": {"meta", "title", "style"},
}
PARENTS = {
    "li": {"ul", "ol"},
    "dt": {"dl"},
    "dd": {"dl"},
    "tr": {"thead", "tbody"},
    "th": {"tr"},
    "td": {"tr"},
    "caption": {"table"},
    "figcaption": {"figure"},
    "summary": {"details"},
}
PHRASING = {"a", "strong", "span", "code", "em", "bdi"}
ONLY_PHRASING = {"p", "h1", "h2", "h3", "h4", "summary", "caption", "th", "dt", "pre"}
TEXT_ONLY = {"title", "style"}


class Page(HTMLParser):
    """Reads a page and raises ValueError where it is not well-formed or not accessible."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: set[str] = set()
        self.headings: list[tuple[int, str]] = []
        self.texts: list[str] = []
        self._heading: list[str] | None = None
        if not html.lstrip().startswith("<!DOCTYPE html>"):
            raise ValueError("no doctype")
        self.feed(html)
        self.close()
        if self.open:
            raise ValueError(f"never closed: {self.open}")
        self._check()

    @property
    def text(self) -> str:
        """All text that is shown, with single blanks, no-break ones too."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str) -> list[dict[str, str]]:
        """Of every element of this name."""
        return [found for name, found in self.tags if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            raise ValueError(f"<{tag}> has an attribute twice: {names}")
        if any(name.startswith("on") for name in names):
            raise ValueError(f"<{tag}> has a script: {names}")
        parent = self.open[-1] if self.open else ""
        if "svg" not in self.open:
            self._check_place(tag, parent)
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            if found["id"] in self.ids:
                raise ValueError(f"two elements are called {found['id']}")
            self.ids.add(found["id"])
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._heading = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" not in self.open and tag not in VOID:
            raise ValueError(f"<{tag}/> isn't closed in HTML")
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            raise ValueError(f"</{tag}> closes {self.open[-3:]}")
        self.open.pop()
        if self._heading is not None and tag.startswith("h") and tag[1:].isdigit():
            self.headings.append((int(tag[1]), "".join(self._heading)))
            self._heading = None

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading.append(data)
        if not self.open and data.strip():
            raise ValueError(f"text outside of the page: {data!r}")
        if self.open and self.open[-1] not in TEXT_ONLY:
            self.texts.append(data)
        if self.open and self.open[-1] in CHILDREN and data.strip():
            raise ValueError(f"text in <{self.open[-1]}>: {data!r}")

    def handle_comment(self, data: str) -> None:
        raise ValueError(f"a comment: {data!r}")

    def _check_place(self, tag: str, parent: str) -> None:
        if parent in TEXT_ONLY:
            raise ValueError(f"<{tag}> in <{parent}>")
        if parent in CHILDREN and tag not in CHILDREN[parent]:
            raise ValueError(f"<{tag}> in <{parent}>")
        if tag in PARENTS and parent not in PARENTS[tag]:
            raise ValueError(f"<{tag}> in <{parent}>")
        if any(one in ONLY_PHRASING for one in self.open) and tag not in PHRASING:
            raise ValueError(f"<{tag}> in {self.open[-3:]}")

    def _check(self) -> None:
        for tag, found in self.tags:
            for name in ("aria-labelledby", "aria-describedby", "for"):
                for wanted in found.get(name, "").split():
                    if wanted not in self.ids:
                        raise ValueError(f"<{tag}> is described by {wanted}, which isn't there")
            target = found.get("href", "")
            if target and (not target.startswith("#") or target[1:] not in self.ids):
                raise ValueError(f"<{tag}> refers to {target}")
        levels = [level for level, _ in self.headings]
        if levels[:1] != [1] or levels.count(1) != 1:
            raise ValueError(f"the headings begin {levels[:3]}")
        for before, after in itertools.pairwise(levels):
            if after > before + 1:
                raise ValueError(f"a heading of level {after} follows one of level {before}")
