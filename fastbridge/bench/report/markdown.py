"""The report in Markdown.

The same sections as the page's, for an issue or a repository (GitHub's dialect). Charts are pictures beside it, or
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from fastbridge.bench.results.results import Results

from .drawn import pictures
from .evidence import sources_of
from .parts import Facts, Figure, Fold, Lines, Part, Table, Text
from .sections import foot_of, sections_of, title_of, warnings_of

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
_PICTURES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "verdict": ("verdict",),
        "throughput": ("throughput", "ndr-pdr", "tcp"),
        "loss": ("loss",),
        "latency": ("latency",),
        "cpu": ("cpu",),
        "scaling": ("scaling",),
        "rfc2889": ("forwarding-rate",),
    }
)


def render(results: Sequence[tuple[str, Results]], beside: str | None = None) -> str:
    """The report of one or more runs; `beside`: the directory with `pictures.PICTURES` as SVG, if there is one."""
    sections, subtitle = sections_of(results)
    blocks = [f"# {escaped(title_of(results))}", escaped(subtitle)]
    blocks += [f"**{escaped(text)}**" for text in warnings_of(results)]
    missing = []
    for section in sections:
        body = [] if beside is None else [*_images(results, _PICTURES.get(section.name, ()), beside)]
        body += _blocks(section.parts)
        if body:
            blocks += [f"## {escaped(section.title)}", *([escaped(section.lead)] if section.lead else ()), *body]
        else:
            why = "nothing but charts, which are on the page and in pictures" if section.parts else section.missing
            missing.append(f"- {escaped(f'{section.title}: {why}')}")
    if missing:
        blocks += ["### Left out", "\n".join(missing)]
    blocks += ["---", *(escaped(text) for text in foot_of(results))]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Plain text that stays plain, in one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def _images(results: Sequence[tuple[str, Results]], names: Sequence[str], beside: str) -> Iterator[str]:
    sources = sources_of(results)
    for name in names:
        if pictures.picture(name, sources) is not None:
            yield f"![{name}]({beside}/{name}.svg)"


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
