"""`verifiable demo`: play all scenes, and say what each verdict is."""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from protocols.cli.output import AS_JSON, fail, show

if TYPE_CHECKING:
    import typer
    from rich.console import RenderableType

    from protocols.demo.models import Encoder


def add(app: "typer.Typer") -> None:
    """Add the command to an application."""
    import typer  # noqa: PLC0415 - an optional dependency

    as_json = typer.Option("--json", help=AS_JSON)

    @app.command()
    def demo(
        text: Annotated[
            list[str] | None,
            typer.Option(help="A text to encode; repeat for several. Default: eight sentences."),
        ] = None,
        precision: Annotated[
            str, typer.Option(help="Precision of the model: f32, bf16, f16 or w8a8.")
        ] = "f32",
        evidence: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="Write the evidence of one cheat to this file."),
        ] = None,
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Check devices and cheats, vote on a job, judge evidence, audit in part, settle."""
        raise typer.Exit(run_demo(text, precision=precision, evidence=evidence, as_json=json_))

    del demo


def run_demo(
    texts: list[str] | None,
    *,
    precision: str = "f32",
    evidence: Path | None = None,
    as_json: bool,
) -> int:
    """Play all scenes of the demo, print their summaries, and return the exit status.

    Args:
      texts: what the model encodes; by default eight sentences.
      precision: of the model.
      evidence: the file that gets the evidence of one cheat, if any.
      as_json: print one JSON object instead of tables.
    """
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    from protocols.demo import display  # noqa: PLC0415 - needs rich

    if evidence is not None and (evidence.is_dir() or not evidence.parent.is_dir()):
        return fail(OSError(f"no evidence can be written to {evidence}: name a file in a folder"))
    notes = Console(stderr=True)
    with display.progress_bar(notes, hidden=as_json or not notes.is_terminal) as advance:
        from protocols.demo.models import in_precision  # noqa: PLC0415 - loads JAX
        from protocols.demo.scenes.scene import TEXTS, prepare  # noqa: PLC0415 - loads JAX

        model = load_model()
        try:
            job = prepare(in_precision(model, precision), texts or TEXTS)
        except ValueError as error:
            return fail(error)
        summaries: list[Any] = []
        for scene in display.SCENES:
            try:
                summaries.append(scene.play(job, summaries, advance))
            except ImportError as error:
                print(f"note: {error}. That scene is left out.", file=sys.stderr)
                break
    found: dict[str, Any] = {}
    parts: list[RenderableType] = []
    for scene, summary in zip(display.SCENES, summaries, strict=False):
        found |= scene.as_dict(summary)
        parts += scene.render(summary)
    show(found, parts, as_json=as_json)
    if evidence is not None:
        from protocols.demo.scenes.evidence import EvidenceSummary  # noqa: PLC0415 - loads JAX

        note = "no evidence was written: no cheat was rejected"
        for summary in summaries:
            if isinstance(summary, EvidenceSummary) and summary.file:
                try:
                    evidence.write_bytes(summary.file)
                except OSError as error:
                    return fail(error)
                note = f"judge the evidence with `verifiable evidence {evidence}`"
        print(f"note: {note}", file=sys.stderr)
    return 0 if summaries and all(summary.right for summary in summaries) else 1


def load_model() -> "Encoder":
    """Return MiniLM; where its weights are absent, print a note and return a random transformer."""
    from protocols.demo import models  # noqa: PLC0415 - loads JAX

    try:
        return models.minilm()
    except ImportError as error:
        print(f"note: {error}. Running on a small random transformer instead.", file=sys.stderr)
        return models.small_transformer()
