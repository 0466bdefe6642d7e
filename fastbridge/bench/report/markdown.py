"""The report in Markdown.

The same sections as the page's, for an issue or a repository (GitHub's dialect). Charts are pictures beside it, or
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from .evidence import Report
from .parts import Facts, Figure, Fold, Lines, Part, Table, Text
from .sections import foot_of, sections_of, subtitle_of, title_of, warnings_of

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
_PICTURES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "verdict": ("verdict",),
        "throughput": ("throughput", "ndr-pdr", "tcp", "requests"),
        "loss": ("loss",),
        "latency": ("latency",),
        "cpu": ("cpu",),
        "scaling": ("scaling",),
        "rfc2889": ("forwarding-rate",),
    }
)


def render(report: Report, beside: Mapping[str, str] = MappingProxyType({})) -> str:
    """A report as Markdown; `beside`: where pictures of `pictures.PICTURES` are, by name, for those that there are."""
    blocks = [f"# {escaped(title_of(report))}", escaped(subtitle_of(report))]
    blocks += [f"**{escaped(text)}**" for text in warnings_of(report)]
    missing = []
    for section in sections_of(report):
        names = [name for name in _PICTURES.get(section.name, ()) if name in beside]
        body = [f"![{name}]({beside[name]})" for name in names]
        body += _blocks(section.parts)
        if body:
            blocks += [f"## {escaped(section.title)}", *([escaped(section.lead)] if section.lead else ()), *body]
        else:
            why = "nothing but charts, which are on the page and in pictures" if section.parts else section.missing
            missing.append(f"- {escaped(f'{section.title}: {why}')}")
    if missing:
        blocks += ["### Left out", "\n".join(missing)]
    blocks += ["---", *(escaped(text) for text in foot_of(report))]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Plain text that stays plain, in one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def _blocks(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Figure):
            continue
        if isinstance(part, Fold):
            yield f"**{escaped(part.title)}**"
            yield from _blocks(part.parts)
        elif isinstance(part, Table):
            if part.title:
                yield f"**{escaped(part.title)}**"
            yield _table(part)
        elif isinstance(part, Facts):
            yield "\n".join(f"- {escaped(name)}: {escaped(value)}" for name, value in part.entries.items())
        elif isinstance(part, Lines):
            yield "\n".join(f"- {escaped(line)}" for line in part.lines)
        elif isinstance(part, Text):
            yield escaped(part.text)


def _table(table: Table) -> str:
    heads = [f"{column.name}, {column.unit}" if column.unit else column.name for column in table.columns]
    lines = [
        heads,
        ["---:" if column.number else "---" for column in table.columns],
        *([cell.text for cell in row] for row in table.rows),
    ]
    return "\n".join("| " + " | ".join(escaped(text) for text in line) + " |" for line in lines)
