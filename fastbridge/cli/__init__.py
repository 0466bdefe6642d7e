"""Command line, the entry.

One file for each command group; those that ask a running switch share operate.py. They print, and decide nothing. Every
error ends as one line on stderr that begins with `fastbridge:`, and an exit status: 2 for a wrong request, 1 for a
request that failed.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, TextIO

import rich_click as click

from fastbridge.errors import FastbridgeError
from fastbridge.version import __version__

from .streams import ERRORS, open_missing

if TYPE_CHECKING:
    from .batch import Line

# The first line of each command's help is here too: --help must not wait for what the commands import.
_COMMANDS = {
    "demo": "Show how pods find each other, frame by frame.",
    "run": "Forward frames between interfaces until Ctrl-C or SIGTERM.",
    "state": "Write a running switch's state to its file.",
    "config": "Check, dump or reload a switch's configuration file.",
    "status": "Show what a running switch is and how it does.",
    "port": "List, add, remove or change the ports of a running switch.",
    "link": "Show or change the emulated links of a running switch: delay, loss, rate, failures.",
    "scenario": "Play files that say what happens to links, and when: failures, partitions, delays.",
    "fdb": "Show or change which port of a running switch a MAC address is behind.",
    "neigh": "Show or change which MAC address of a running switch an IP address has.",
    "policy": "Show or change what a running switch does with ARP and ND.",
    "stats": "Show what the ports of a running switch have received, sent and dropped.",
    "monitor": "Show what happens in a running switch as it happens.",
    "trace": "Show what a running switch would do with a frame, and why.",
    "top": "Watch the ports, rates and drops of a running switch, full screen.",
    "capture": "Capture the frames of a running switch, with what became of each.",
    "extcap": "Make running switches appear in Wireshark.",
    "metrics": "Print what Prometheus reads of a running switch.",
    "mininet": "Write a file by which Mininet's switches are fastbridge's, and print its path.",
    "lab": "Make pods that stay, in named network namespaces.",
    "compare": "Measure fastbridge against the Linux bridge and other switches on this machine.",
    "report": "Show saved results, or draw them as a page, Markdown or pictures.",
    "track": "Show how the speed of every benchmark changes over commits.",
    "schema": "Print the JSON Schema of all that a running switch can be asked.",
    "completion": "Print what lets a shell complete these commands.",
}
_INTERRUPTED = 130  # 128 + SIGINT, as in shells


class _Commands(click.RichGroup):
    """Imports a command's file when it is run: `run` must not wait for the bench's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Enough of a command to list it, without importing its file."""
        return click.Command(cmd_name, help=_COMMANDS[cmd_name]) if cmd_name in _COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments ask for, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = getattr(import_module(f".{name}", __name__), str(name))
        return name, command, rest


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"fastbridge {__version__}")
    context.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.option(
    "-b", "--batch", metavar="FILE", help="Run each line of FILE as a command on one running switch; -: stdin."
)
@click.option("--force", is_flag=True, help="With --batch: go on after a line that fails.")
@click.option("--switch", metavar="NAME", help="With --batch: the switch, if several run.")
@click.rich_config({"max_width": 100})
@click.pass_context
def group(context: click.Context, batch: str | None, force: bool, switch: str | None) -> int:
    """A learning software switch for Linux pods, and the bench that measures it.

    Try `fastbridge demo`: it needs no root and leaves nothing behind.
    """
    if batch is None:
        if force or switch is not None:
            raise click.UsageError("--force and --switch go before --batch; a command takes its own --switch")
        if context.invoked_subcommand is None:
            raise click.UsageError("missing command")
        return 0
    if context.invoked_subcommand is not None:
        raise click.UsageError(f"--batch takes its commands from {batch}; leave out {context.invoked_subcommand}")
    from .batch import run_batch

    return run_batch(batch, switch, force, _run)


def main() -> NoReturn:
    """Run the command line and exit."""
    open_missing()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal without Unicode is no reason to fail
    logging.getLogger("fastbridge").addHandler(_Handler())
    status = _run()
    for stream in (sys.stdout, sys.stderr):
        status = _finish(stream, status)
    ERRORS.close()
    sys.exit(status)


def _finish(stream: TextIO, status: int) -> int:
    """Flush the stream. A reader may close it; any other error is a failure."""
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else Python flushes again at its end, complains, and exits with 120
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
        ERRORS.put(self.format(record))


def _run(line: Line | None = None) -> int:
    """Run the command line, or one of a batch, whose errors begin with its place. Returns the exit status."""

    def complain(text: str, status: int) -> int:
        return _complain(text, status, f"{line.place}: " if line else "")

    try:
        words = line.words() if line else None
        if words == []:
            return 0
        return int(group.main(words, prog_name="fastbridge", standalone_mode=False, obj=line) or 0)
    except SystemExit as left:  # click and rich exit so when a reader is gone, and after the help of no command
        return left.code if isinstance(left.code, int) else 1
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fastbridge"
        return complain(f"{error.format_message().rstrip('.')} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except FastbridgeError as error:
        return complain(str(error), error.exit_status)
    except ImportError as error:
        if error.name != "fastbridge.core":
            raise
        return complain(str(error), 1)
    except BrokenPipeError:
        return 1  # nobody reads
    except OSError as error:
        if error.filename is None and (status := _finish(sys.stdout, 0)):
            return status  # the output failed, and _finish has said so
        return complain(": ".join(filter(None, (error.filename, error.strerror or str(error)))), 1)
    except click.Abort:  # Ctrl-C
        return _INTERRUPTED


def visible(text: str) -> str:
    """Write out the control characters in names and files, so that they cannot steer the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class OneLine(logging.Formatter):
    """Formats the log for the commands. A traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Called by format() when the message is there."""
        record.message = visible(record.message)
        return super().formatMessage(record)


def _complain(text: str, status: int, place: str = "") -> int:
    line = visible(" ".join(text.split()))
    line = line[:1].lower() + line[1:] if line[1:2].islower() else line
    ERRORS.put(f"fastbridge: {visible(place)}{line}", always=True)
    return status
