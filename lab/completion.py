"""`cr3 completion`: what a shell must know to complete commands, options and their values with the Tab key.

The shell asks `cr3` itself (click's mechanism), so what it offers is always what this version has.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .options import ExampleCommand

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=ExampleCommand,
    examples=[
        ("cr3 completion bash > cr3-completion.bash", "Then add `source cr3-completion.bash` to ~/.bashrc."),
        ("cr3 completion fish > cr3.fish", "Belongs into ~/.config/fish/completions/."),
    ],
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that teaches a shell to complete cr3's commands, options and values."""
    how = get_completion_class(shell)
    assert how is not None and ctx.parent is not None
    click.echo(how(ctx.parent.command, {}, "cr3", "_CR3_COMPLETE").source())
