"""Command line, the entry.

One file a command group; each prints and decides nothing. Whatever goes wrong ends as one line on
stderr that begins with `fastbridge:`, and an exit status: 2 for a wrong request, 1 for one that failed.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from importlib import import_module
from typing import TextIO

import rich_click as click

from fastbridge.errors import FastbridgeError
from fastbridge.version import __version__

from .streams import StreamBox, open_missing

# The first line of each command's help is here too: --help must not wait for what the commands import.
_COMMANDS = {
    "demo": "Show how pods find each other, frame by frame.",
    "run": "Forward frames between interfaces until Ctrl-C or SIGTERM.",
    "lab": "Make pods that stay, in named network namespaces.",
    "compare": "Measure fastbridge against the Linux bridge and other switches on this machine.",
    "report": "Show saved results, or draw them as a page, Markdown or pictures.",
    "track": "Show how the speed of every benchmark changes over commits.",
}
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_errors = StreamBox("stderr", "fastbridge: {:,} lines of this log are lost: nobody read them in time")


class _Commands(click.RichGroup):
    """Loads a command's file when that command is run: `run` must not wait for what the bench imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Enough of a command to list it, without its file."""
        return click.Command(cmd_name, help=_COMMANDS[cmd_name]) if cmd_name in _COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments ask for, with its file."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = getattr(import_module(f".{name}", __name__), str(name))
        return name, command, rest


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"fastbridge {__version__}")
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
    open_missing()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal without Unicode is no reason to fail
    logging.getLogger("fastbridge").addHandler(_Handler())
    status = _run()
    for stream in (sys.stdout, sys.stderr):
        status = _finish(stream, status)
    _errors.close()
    sys.exit(status)


def _finish(stream: TextIO, status: int) -> int:
    """Flush the stream. A reader that closed it has seen enough; any other error is a failure."""
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # or Python tries once more at its end, complains, and exits with 120
        os.close(nowhere)
        status = status or 1
        if error.errno != errno.EPIPE:
            _complain(f"cannot write the output: {error.strerror}", status)
    return status


class _Handler(logging.Handler):
    """Log lines on stderr. Logging never waits for the reader."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(OneLine("fastbridge: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the line to the writer."""
        _errors.put(self.format(record))


def _run() -> int:
    try:
        return int(group.main(prog_name="fastbridge", standalone_mode=False) or 0)
    except SystemExit as left:  # how click and rich leave where a reader has gone, and after the help of no command
        return left.code if isinstance(left.code, int) else 1
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fastbridge"
        return _complain(f"{error.format_message().rstrip('.')} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except FastbridgeError as error:
        return _complain(str(error), error.exit_status)
    except ImportError as error:
        if error.name != "fastbridge.core":
            raise
        return _complain(str(error), 1)
    except BrokenPipeError:
        return 1  # nobody reads any more, so nobody is told
    except OSError as error:
        if error.filename is None and (status := _finish(sys.stdout, 0)):
            return status  # it was the output, and that has been said
        return _complain(": ".join(filter(None, (error.filename, error.strerror or str(error)))), 1)
    except click.Abort:  # Ctrl-C
        return _INTERRUPTED


def visible(text: str) -> str:
    """Control characters of a name or a file, written out, so that they cannot steer the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class OneLine(logging.Formatter):
    """The log as the commands show it; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Called by format(), once the message is there."""
        record.message = visible(record.message)
        return super().formatMessage(record)


def _complain(text: str, status: int) -> int:
    line = visible(" ".join(text.split()))
    _errors.put(f"fastbridge: {line[:1].lower() + line[1:] if line[1:2].islower() else line}", always=True)
    return status
