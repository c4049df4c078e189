"""The command `verifiable`: watch a coordinator tell honest devices from cheats.

    verifiable demo [--text TEXT ...] [--json]
    verifiable --version

Results go to standard output; progress, notes and errors to standard error. Exit status: 0 if
every verdict is right, 1 if an honest device was not accepted or a cheat was, 2 for wrong usage.
Needs the extra `cli` (typer and rich); without it `main` says so.
"""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# theirs name imports that are local, so that this module loads without the extra.

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from verifiable import __version__

if TYPE_CHECKING:
    import typer
    from rich.console import Console, RenderableType
    from rich.text import Text

    from protocols.demo import Outcome, Step, Summary
    from protocols.models import Model

HOW_TO_INSTALL = "verifiable: the command line needs typer and rich: pip install 'verifiable[cli]'"


def main() -> None:
    """Run the command line; the entry point of the console script."""
    if any(importlib.util.find_spec(name) is None for name in ("typer", "rich")):
        print(HOW_TO_INSTALL, file=sys.stderr)
        sys.exit(2)
    build_app()()


def build_app() -> "typer.Typer":
    """Return the typer application."""
    import typer  # noqa: PLC0415 - an optional dependency

    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

    def version(asked: bool) -> None:
        if asked:
            print(f"verifiable {__version__}")
            raise typer.Exit

    @app.callback()
    def root(
        _: Annotated[
            bool,
            typer.Option("--version", callback=version, is_eager=True, help="Print the version."),
        ] = False,
    ) -> None:
        """Verify AI inference that untrusted devices ran in JAX."""

    @app.command()
    def demo(
        text: Annotated[
            list[str] | None,
            typer.Option(help="A text to encode; repeat for several. Default: eight sentences."),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object instead of tables.")
        ] = False,
    ) -> None:
        """Encode texts on honest devices and on cheats, and tell one from the other."""
        raise typer.Exit(run_demo(text, as_json=as_json))

    del root, demo
    return app


def run_demo(texts: list[str] | None, *, as_json: bool) -> int:
    """Play the demo, print what was found, and return the exit status."""
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    notes = Console(stderr=True)
    with progress(notes, hidden=as_json or not notes.is_terminal) as advance:
        from protocols import demo  # noqa: PLC0415 - loads JAX, which takes a while

        model, chosen = load_model(), texts or demo.TEXTS
        try:
            demo.tokenize(model, chosen)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        summary: demo.Summary | None = None
        for event in demo.play(model, chosen):
            if isinstance(event, demo.Step):
                advance(event)
            elif isinstance(event, demo.Summary):
                summary = event
    if summary is None:
        raise RuntimeError("the demo ended without a summary")
    if as_json:
        print(json.dumps(as_dict(summary), allow_nan=False))
    else:
        stdout = Console()
        console = stdout if stdout.is_terminal else Console(width=100)
        for part in render(summary):
            console.print(part)
    return 0 if summary.right else 1


def load_model() -> "Model":
    """Return MiniLM, or a random transformer and a note on standard error where it is absent."""
    from protocols import models  # noqa: PLC0415 - loads JAX

    try:
        return models.minilm()
    except ImportError as error:
        print(f"note: {error}. Running on a small random transformer instead.", file=sys.stderr)
        return models.small_transformer()


@contextmanager
def progress(console: "Console", *, hidden: bool) -> "Generator[Callable[[Step], None]]":
    """Show a progress bar while the block runs, and remove it afterwards."""
    from rich.progress import (  # noqa: PLC0415 - an optional dependency
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    columns = (BarColumn(32), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("load the model", total=None)

        def advance(step: "Step") -> None:
            bar.update(task, completed=step.done, total=step.total, description=step.what)

        yield advance


def as_dict(summary: "Summary") -> dict[str, Any]:
    """Return the JSON object: numbers that JSON cannot write are null."""
    return {
        "model": summary.model,
        "devices": [
            {
                "name": outcome.device.name,
                "honest": outcome.device.honest,
                "verdict": outcome.verdict,
                "reason": outcome.reason,
                "claim": outcome.claim,
                "worst": finite(outcome.worst),
            }
            for outcome in summary.outcomes
        ],
        "seconds": {"run": summary.seconds_run, "check": summary.seconds_check},
        "bytes": {
            "params": summary.bytes_params,
            "key": summary.bytes_key,
            "trace": summary.bytes_trace,
        },
        "root": summary.root.hex(),
    }


def render(summary: "Summary") -> "Iterator[RenderableType]":
    """Return what is printed: the table of devices, the figures, and one line that sums up."""
    from rich import box  # noqa: PLC0415 - an optional dependency
    from rich.table import Table  # noqa: PLC0415 - an optional dependency
    from rich.text import Text  # noqa: PLC0415 - an optional dependency

    table = Table(box=box.SIMPLE_HEAD, title=f"Devices that ran {summary.model}", pad_edge=False)
    table.add_column("device", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("first claim that failed", overflow="fold")
    table.add_column("worst", justify="right", no_wrap=True)
    before: bool | None = None
    for outcome in summary.outcomes:
        if before not in (None, outcome.device.honest):
            table.add_section()
        before = outcome.device.honest
        table.add_row(
            outcome.device.name,
            verdict_cell(outcome),
            outcome.reason,
            (outcome.claim or "-").removesuffix("/dot_general"),
            ratio_text(outcome.worst),
        )
    yield table
    yield Text("worst: largest statistic over its limit; a run passes at 1 or less\n", style="dim")

    ratio = summary.seconds_run / summary.seconds_check
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim")
    figures.add_column(justify="right")
    figures.add_column(style="dim")
    figures.add_row("run", milliseconds(summary.seconds_run), "the compiled model, warm median")
    figures.add_row(
        "check",
        milliseconds(summary.seconds_check),
        f"run / check = {ratio:.1f}, warm median, same machine",
    )
    figures.add_row("hash", milliseconds(summary.seconds_root), "the trace against its root")
    figures.add_row(
        "parameters",
        megabytes(summary.bytes_params),
        "the coordinator needs them once, for the key",
    )
    name, kept = summary.kept
    figures.add_row("key", megabytes(summary.bytes_key), f"{megabytes(kept)} of it {name}")
    figures.add_row("trace", megabytes(summary.bytes_trace), "sent by each device, with its answer")
    yield figures
    yield Text.assemble(("receipt root ", "dim"), summary.root.hex())

    honest = [outcome for outcome in summary.outcomes if outcome.device.honest]
    cheats = [outcome for outcome in summary.outcomes if not outcome.device.honest]
    yield Text(
        f"\n{sum(o.right for o in honest)} of {len(honest)} honest devices accepted, "
        f"{sum(o.right for o in cheats)} of {len(cheats)} cheats caught.",
        style="bold green" if summary.right else "bold red",
    )


def verdict_cell(outcome: "Outcome") -> "Text":
    """Return the verdict, green where it is right and marked where it is wrong."""
    from rich.text import Text  # noqa: PLC0415 - an optional dependency

    if outcome.right:
        return Text(outcome.verdict, style="green")
    return Text(f"{outcome.verdict} (wrong)", style="bold red")


def ratio_text(worst: float | None) -> str:
    """Return a ratio with three significant digits, in full below a million."""
    if worst is None:
        return "-"
    return f"{worst:,.0f}" if 100 <= worst < 1e6 else f"{worst:.3g}"


def finite(value: float | None) -> float | None:
    """Return a finite number, or None."""
    return value if value is not None and math.isfinite(value) else None


def milliseconds(seconds: float) -> str:
    """Return a duration as text."""
    return f"{seconds * 1e3:,.1f} ms"


def megabytes(count: int) -> str:
    """Return a size as text, in units of 10^6 bytes."""
    return f"{count / 1e6:,.1f} MB"
