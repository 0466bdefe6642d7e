"""`fastbridge completion`, for a shell's Tab key."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class


@click.command(epilog='Example: eval "$(fastbridge completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what lets a shell complete these commands.

    Its Tab key then completes commands, options, and the names of running switches and their ports.

    For bash put eval "$(fastbridge completion bash)" into ~/.bashrc, for zsh the same with zsh into ~/.zshrc.

    For fish: fastbridge completion fish > ~/.config/fish/completions/fastbridge.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # click has all of the choice
    click.echo(found(context.find_root().command, {}, "fastbridge", "_FASTBRIDGE_COMPLETE").source())
