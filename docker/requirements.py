"""Prints what `.[EXTRA,…]` needs without this project itself, so that an image's layer of dependencies stays the same
while only the code changes: python requirements.py pyproject.toml EXTRA …"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict, extras: list[str]) -> list[str]:
    """The project's dependencies and those of the extras, which may name other extras of the project."""
    found = list(project["dependencies"])
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", line)
            found += requirements(project, own[1].split(",")) if own else [line]
    return sorted(set(found))


if __name__ == "__main__":
    told = requirements(tomllib.loads(Path(sys.argv[1]).read_text())["project"], sys.argv[2:])
    sys.stdout.write("\n".join(told) + "\n")
