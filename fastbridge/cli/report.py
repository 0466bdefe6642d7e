"""`fastbridge report`, results read again.

Recomputes a saved comparison from its raw trials: on any machine, without measuring anything.
"""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

from fastbridge.errors import BenchError

from .output import make_console


def _print_schema(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from fastbridge.bench.schema import results_schema

        click.echo(json.dumps(results_schema(), indent=2, ensure_ascii=False))
        context.exit()


@click.command(epilog="Example: fastbridge report fastbridge-compare.json")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of results files instead: what every field means.",
)
def report(file: Path) -> None:
    """Show the results in FILE, recomputed from its raw trials.

    FILE is what `fastbridge compare` wrote, here or on another machine.
    """
    from fastbridge.bench.results import Results

    from .results import show_results

    results = Results.load(file)
    try:
        show_results(make_console(markup=False), results)
    except BenchError as error:
        raise BenchError(f"{file}: {error}") from None
