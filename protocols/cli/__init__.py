"""The command `verifiable`: the demo and its evidence, verified answers, plans of audits.

    verifiable demo [--text TEXT ...] [--precision f32|bf16|f16|w8a8] [--evidence FILE] [--json]
    verifiable evidence FILE [--job MODULE:FUNCTION] [--json]
    verifiable plan --bad FRACTION --error PROBABILITY [--stake AMOUNT ...] [--json]
    verifiable chat [--prompt TEXT] [--limit N] [--temperature T] [--out FILE] [--json]
    verifiable verify FILE [--after FILE] [--seed HEX] [--json]
    verifiable --version

Results go to standard output; progress, notes and errors to standard error. Exit status: 0 if every
verdict is right, 1 if an honest device was not accepted, a cheat was, or the vote, a judgement or
the settlement ended wrongly, 2 for wrong usage. `evidence` has 0 if a run is shown to be wrong, 1
if it is not shown, 2 for wrong usage and for a file that is no evidence about the model at hand.
`chat` has 0 if every answer is accepted, 1 if one is not, 2 for wrong usage. `verify` has 0 if the
answer is accepted, 1 if it is rejected, 2 for wrong usage and for a file that is no answer, and 3
if nothing is shown: the verdict is indeterminate, or the model's weights are absent. The demo is in
`protocols.demo`. Needs typer and rich, the extra `cli`; `main` says how to install them where they
are absent.
"""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

import importlib.util
import sys
from typing import TYPE_CHECKING, Annotated

from protocols.cli import chat, demo, evidence, plan
from verifiable import __version__

if TYPE_CHECKING:
    import typer

HOW_TO_INSTALL = "verifiable: the command line needs typer and rich: pip install typer rich"


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

    del root
    for command in (demo, evidence, plan, chat):
        command.add(app)
    return app
