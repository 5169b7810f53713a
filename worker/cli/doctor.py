"""`loracle doctor`: is everything in order, and what is to be done where it isn't?"""

from __future__ import annotations

from dataclasses import asdict

import click

from worker.cli.common import echo_json, json_option
from worker.desk.doctor import broken, findings


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check settings, host, servers, workers, device, adapter and oracle: what is wrong, why it matters, what to do.

    Exit code 2 if something would keep a worker from scoring, or is open to strangers.

    Variables of the environment count first. Then comes the file `.env` in LORACLE_HOME. Last comes `.env` in the
    checkout, if Loracle runs from its source. Only the `.env` in the checkout may set LORACLE_HOME. Any other `.env`
    is ignored, because a folder of data must not choose the server that gets your key. LORACLE_DOTENV=no turns all of
    them off.

    In a user name or password of a URL, write # / ? @ : % [ ] as %23 %2F %3F %40 %3A %25 %5B %5D. A URL that could be
    read in two ways is refused, and no message shows its secrets. rediss:// checks the server's certificate: add
    ?ssl_ca_certs=ca.pem for your own authority, or ?ssl_cert_reqs=none to check nothing.

    \b
    Example:
      loracle doctor --json
    """
    found = list(findings())
    if as_json:
        echo_json({"ok": not broken(found), "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            colour = {"ok": "green", "warning": "yellow", "error": "red"}[finding.state]
            click.echo(f"{click.style(f'{finding.state:<8}', fg=colour)}{finding.check:<12} {finding.found}")
            for title, sentence in (("why", finding.why), ("do", finding.way_out)):
                if sentence:
                    click.echo(f"{'':<21}{title}: {sentence}")
    return 2 if broken(found) else 0
