"""Commands that are run to their end, and what they say."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.integration.site import HANG_S, Site


def run(site: Site, *arguments: str, **variables: str) -> tuple[int, str]:
    """Runs a command in the site; its exit code and all that it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LORACLE_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        env={**inherited, **site.variables, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert "Traceback" not in done.stdout, done.stdout[-3000:]
    return done.returncode, done.stdout


def refused(site: Site, *arguments: str, **variables: str) -> str:
    """Runs a command that must end with the exit code of what people can mend; what it said."""
    code, said = run(site, *arguments, **variables)
    assert code == 2, f"exit code {code}: {said[-3000:]}"
    return said
