"""`loracle completion`: the shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_LORACLE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands and options of `loracle`.

    bash (4.4 or newer): put `eval "$(loracle completion bash)"` into ~/.bashrc. zsh: put `eval "$(loracle completion
    zsh)"` into ~/.zshrc, after compinit. fish: put `loracle completion fish | source` into
    ~/.config/fish/config.fish.

    \b
    Example:
      loracle completion bash
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    click.echo(found(ctx.find_root().command, {}, "loracle", VARIABLE).source())
