"""Command line, the entry.

One file a command group; each prints and decides nothing. Whatever goes wrong ends as one line on
stderr that begins with `fastbridge:`, and an exit status: 2 for a wrong request, 1 for one that failed.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module, metadata

import rich_click as click

from fastbridge.errors import FastbridgeError

from .streams import StreamBox

# The first line of each command's help is here too: --help shall not wait for what the commands import.
_COMMANDS = {
    "demo": "Show how pods find each other, frame by frame.",
    "run": "Forward frames between interfaces until Ctrl-C or SIGTERM.",
    "lab": "Make pods that stay, in named network namespaces.",
    "compare": "Measure fastbridge against the Linux bridge and other switches on this machine.",
    "report": "Show the results in FILES again, or draw them: as a page, Markdown or pictures.",
    "track": "Show the trend of every benchmark in STORAGE over commits, and where it makes a step or drifts.",
}
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_errors = StreamBox("stderr", "fastbridge: {:,} lines of this log are lost: nobody read them in time")


class _Commands(click.RichGroup):
    """Loads a command's file when that command is run: `run` shall not wait for what the bench imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What is known of a command without its file: enough to list it."""
        return click.Command(cmd_name, help=_COMMANDS[cmd_name]) if cmd_name in _COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments ask for, itself."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = getattr(import_module(f".{name}", __name__), str(name))
        return name, command, rest


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    try:
        version = metadata.version("fastbridge")
    except metadata.PackageNotFoundError:
        version = "(source tree)"
    click.echo(f"fastbridge {version}")
    context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.rich_config({"max_width": 100})
def group() -> None:
    """A learning software switch for Linux pods, and the bench that measures it.

    Try `fastbridge demo`: it needs no root and leaves nothing behind.
    """


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal without Unicode is no reason to fail
    logging.getLogger("fastbridge").addHandler(_Handler())
    status = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        status = status or _complain(f"cannot write the output: {error.strerror}", 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
    _errors.close()
    sys.exit(status)


class _Handler(logging.Handler):
    """Log lines on stderr; whoever logs never waits for its reader."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("fastbridge: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Have it written."""
        _errors.put(self.format(record))


def _run() -> int:
    try:
        return int(group.main(prog_name="fastbridge", standalone_mode=False) or 0)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fastbridge"
        return _complain(f"{error.format_message().rstrip('.')} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except FastbridgeError as error:
        return _complain(str(error), error.exit_status)
    except OSError as error:
        return _complain(": ".join(filter(None, (error.filename, error.strerror or str(error)))), 1)
    except click.Abort:  # Ctrl-C
        return _INTERRUPTED


def _complain(text: str, status: int) -> int:
    line = " ".join(text.split())
    _errors.put(f"fastbridge: {line[:1].lower() + line[1:] if line[1:2].islower() else line}", always=True)
    return status
