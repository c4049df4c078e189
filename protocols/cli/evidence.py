"""`verifiable evidence FILE`: judge evidence with nothing but the model."""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from protocols.cli.output import AS_JSON, fail, show
from verifiable.errors import VerificationError

if TYPE_CHECKING:
    import typer


def add(app: "typer.Typer") -> None:
    """Add the command to an application."""
    import typer  # noqa: PLC0415 - an optional dependency

    as_json = typer.Option("--json", help=AS_JSON)

    @app.command()
    def evidence(
        file: Annotated[
            Path,
            typer.Argument(help="What `Evidence.encode` returned, or `verifiable demo` wrote."),
        ],
        job: Annotated[
            str | None,
            typer.Option(
                metavar="MODULE:FUNCTION",
                help="Your function that returns the job: (program, params, inputs). The file of "
                "the demo names its own.",
            ),
        ] = None,
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Judge evidence with nothing but the model: status 0 if a run is shown to be wrong."""
        raise typer.Exit(run_evidence(file, job=job, as_json=json_))

    del evidence


def run_evidence(file: Path, *, job: str | None = None, as_json: bool) -> int:
    """Judge a file of evidence, print the judgement, and return the exit status.

    Args:
      file: encoded evidence, or an accusation of the demo, which names its own job.
      job: `MODULE:FUNCTION` of the job that encoded evidence is about.
      as_json: print one JSON object instead of text.
    """
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    from protocols.demo import display  # noqa: PLC0415 - needs rich

    notes = Console(stderr=True)
    with display.progress_bar(notes, hidden=as_json or not notes.is_terminal) as advance:
        from protocols.demo.accusation import judge_file  # noqa: PLC0415 - loads JAX

        try:
            about, judged = judge_file(file, job, advance)
        except (OSError, ImportError, TypeError, ValueError, VerificationError) as error:
            return fail(error)
    show(about | display.judged_dict(judged), display.judged_text(judged), as_json=as_json)
    return 0 if judged.judgement.guilty else 1
