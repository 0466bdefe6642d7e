"""Writes share/man/man1/fastbridge.1, the manual page, from what the commands say of themselves by --help.

After a change of a command or an option: `python share/make_manual.py`. A test says when it is time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import click

from fastbridge.cli import group

PAGE = Path(__file__).parent / "man/man1/fastbridge.1"
HEAD = """\
.\\" Written by share/make_manual.py.
.TH FASTBRIDGE 1 "" fastbridge "User Commands"
.SH NAME
fastbridge \\- a learning software switch for Linux pods, and the bench that measures it
.SH SYNOPSIS
.B fastbridge
.RI [ OPTION ]... " COMMAND " [ ARGUMENT ]...
.SH DESCRIPTION
fastbridge joins network namespaces, or any Ethernet interfaces, by a learning switch that runs as a program.
Its commands make pods, run switches, ask and change those that run, emulate links, capture frames, and measure
switches against each other.
Try \\fBfastbridge demo\\fR: it needs no root and leaves nothing behind.
"""
TAIL = """\
.SH EXIT STATUS
0 when all went well, 1 for a request that failed, 2 for a wrong request, 130 after Ctrl\\-C.
\\fBfastbridge track\\fR ends with 3 for a regression.
An error is one line on standard error that begins with \\fIfastbridge:\\fR.
.SH FILES
.TP
\\fI/run/fastbridge/NAME.sock\\fR, \\fI$XDG_RUNTIME_DIR/fastbridge/NAME.sock\\fR
The control socket of a running switch, of root and of another user.
Without a runtime directory it is in \\fI/tmp/fastbridge\\-UID\\fR.
.SH SEE ALSO
.BR bridge (8),
.BR ip (8),
.BR network_namespaces (7),
.BR packet (7)
"""


def page() -> str:
    """The whole page."""
    top = click.Context(group, info_name="fastbridge", help_option_names=["-h", "--help"])
    options = "".join(f".TP\n{names}\n{about}\n" for names, about in _options(group.get_params(top), top))
    commands = [_section(command, context) for command, context in _commands(group, top)]
    return f"{HEAD}.SH OPTIONS\n{options}.SH COMMANDS\n{''.join(commands)}{TAIL}"


def _commands(of: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands of a group, each before its own."""
    for name in of.list_commands(context):
        found = getattr(import_module(f"fastbridge.cli.{name}"), name) if of is group else of.get_command(context, name)
        if found.hidden:
            continue
        below = click.Context(found, info_name=name, parent=context)
        yield found, below
        if isinstance(found, click.Group):
            yield from _commands(found, below)


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f".SS {_quoted(usage)}", *_paragraphs(command.help or "")]
    for names, about in _options(command.params, context):
        lines += [".TP", names, about]
    if command.epilog:
        lines += [".PP", _text(command.epilog)]
    return "\n".join(lines) + "\n"


def _options(parameters: Sequence[click.Parameter], context: click.Context) -> Iterator[tuple[str, str]]:
    for option in parameters:
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            yield f"\\fB{_escaped(record[0])}\\fR", _text(record[1])


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _text(paragraph)


def _text(text: str) -> str:
    """One paragraph, a sentence a line; what is between ` is bold."""
    line = _escaped(" ".join(text.split()))
    line = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", line)
    sentences = re.sub(r"(?<=[.:]) (?=[A-Z])", "\n", line).split("\n")
    return "\n".join(f"\\&{sentence}" if sentence[:1] in ".'" else sentence for sentence in sentences)


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def _escaped(text: str) -> str:
    return (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
