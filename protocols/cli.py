"""The command `verifiable`: play the demo, judge its evidence, and plan replication and audits.

    verifiable demo [--text TEXT ...] [--precision f32|bf16|f16|w8a8] [--evidence FILE] [--json]
    verifiable evidence FILE [--job MODULE:FUNCTION] [--json]
    verifiable plan --bad FRACTION --error PROBABILITY [--stake AMOUNT ...] [--json]
    verifiable --version

Results go to standard output; progress, notes and errors to standard error. Exit status: 0 if every
verdict is right, 1 if an honest device was not accepted, a cheat was, or the vote, a judgement or
the settlement ended wrongly, 2 for wrong usage. `evidence` has 0 if a run is shown to be wrong, 1
if it is not shown, 2 for wrong usage and for a file that is no evidence about the model at hand.
The demo is in `protocols.demo`. Needs typer and rich, the extra `cli`; `main` says how to install
them where they are absent.
"""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from verifiable import __version__
from verifiable.audits.planning import Economy, NoOption, Plan
from verifiable.audits.planning import plan as make_plan
from verifiable.errors import VerificationError
from verifiable.voting import bad_among_answers

if TYPE_CHECKING:
    import typer
    from rich.console import RenderableType

    from protocols.demo.models import Encoder

HOW_TO_INSTALL = "verifiable: the command line needs typer and rich: pip install typer rich"
_DEFAULT = Economy()


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
    as_json = typer.Option("--json", help="Print one JSON object instead of tables.")

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
        precision: Annotated[
            str, typer.Option(help="Precision of the model: f32, bf16, f16 or w8a8.")
        ] = "f32",
        evidence: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="Write the evidence of one cheat to this file."),
        ] = None,
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Check honest devices and cheats, vote on one job, judge evidence, settle the verdicts."""
        raise typer.Exit(run_demo(text, precision=precision, evidence=evidence, as_json=json_))

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

    @app.command()
    def plan(
        *,
        bad: Annotated[float, typer.Option(help="Bad fraction of the registered workers, 0 to 1.")],
        error: Annotated[
            float, typer.Option(help="Largest acceptable probability of a wrong answer.")
        ],
        availability: Annotated[
            float,
            typer.Option(
                help="Probability that an honest worker answers; bad workers always answer."
            ),
        ] = 1.0,
        run_cost: Annotated[
            float, typer.Option(help="Cost of one run, in any unit of account.")
        ] = _DEFAULT.run_cost,
        audit_cost: Annotated[
            float, typer.Option(help="Cost of one audit, in the same unit.")
        ] = _DEFAULT.audit_cost,
        detection: Annotated[
            float, typer.Option(help="Probability that the audit of a wrong answer fails, 0 to 1.")
        ] = _DEFAULT.detection,
        stake: Annotated[
            float, typer.Option(help="Stake that a detected cheat loses, in the same unit.")
        ] = _DEFAULT.stake,
        gain: Annotated[
            float, typer.Option(help="Gain of a worker from one cheat, in the same unit.")
        ] = _DEFAULT.gain,
        reward: Annotated[
            float, typer.Option(help="Reward for a result, in the same unit.")
        ] = _DEFAULT.reward,
        false_reject: Annotated[
            float,
            typer.Option(
                help="Measured probability that the audit of an honest answer fails, 0 to 1."
            ),
        ] = _DEFAULT.false_reject,
        outstanding: Annotated[
            int, typer.Option(help="Most unsettled results on one stake.")
        ] = _DEFAULT.outstanding,
        window: Annotated[
            int, typer.Option(help="Most results of a trusted worker that wait for audits.")
        ] = _DEFAULT.window,
        probation: Annotated[
            int, typer.Option(help="Checks that a worker must pass before it is trusted.")
        ] = _DEFAULT.probation,
        lifetime: Annotated[
            float, typer.Option(help="Average number of results from an honest identity.")
        ] = _DEFAULT.lifetime,
        rational: Annotated[
            bool,
            typer.Option(
                "--rational",
                help="Include deterrence, which assumes that workers avoid losing a stake.",
            ),
        ] = False,
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Find the cheapest mix of replication and audits that reaches an error."""
        prices: dict[str, Any] = {
            "run_cost": run_cost,
            "audit_cost": audit_cost,
            "detection": detection,
            "stake": stake,
            "gain": gain,
            "reward": reward,
            "false_reject": false_reject,
            "outstanding": outstanding,
            "window": window,
            "probation": probation,
            "lifetime": lifetime,
        }
        raise typer.Exit(
            run_plan(bad, availability, error, prices, rational=rational, as_json=json_)
        )

    del root, demo, evidence, plan
    return app


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


def run_plan(
    bad: float,
    availability: float,
    error: float,
    prices: dict[str, Any],
    *,
    rational: bool,
    as_json: bool,
) -> int:
    """Print all options, cheapest first, and return the exit status.

    An error names the options of the command line, whichever they are.
    """
    probabilities = {"bad": bad, "error": error, "availability": availability}
    for name, value in probabilities.items():
        always = name == "availability"
        if not 0.0 < value <= 1.0 or (value == 1.0 and not always):
            what = "above 0 and at most 1" if always else "above 0 and below 1"
            return fail(ValueError(f"--{name} must be {what}, got {value!r}"))
    given = f"--bad {bad:g} and --availability {availability:g}"
    answering = bad_among_answers(bad, honest_availability=availability)
    if answering >= 1.0:
        return fail(ValueError(f"with {given}, practically all answers are bad, and no plan helps"))
    try:
        economy = Economy(**prices)
        plan = make_plan(bad=answering, error=error, economy=economy, rational=rational)
    except NoOption:
        detection = prices["detection"]
        return fail(
            ValueError(
                f"no option reaches --error {error:g} with {given}, where {answering:g} of all "
                f"answers are bad, and audits of --detection {detection:g}"
            )
        )
    except ValueError as problem:
        name, _, rest = str(problem).partition(" ")
        return fail(ValueError(f"--{name.replace('_', '-')} {rest}") if name in prices else problem)
    show(plan_dict(plan), plan_table(plan), as_json=as_json)
    return 0


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Return the JSON object of a plan."""
    return {
        "bad": plan.bad,
        "error": plan.error,
        "assumes": plan.assumes,
        "options": [
            {
                "name": option.name,
                "how": option.how,
                "cost": option.cost,
                "runs": option.runs,
                "audits": option.audits,
                "audit_rate": option.audit_rate,
                "error": option.error,
                "deters": option.deters,
            }
            for option in plan.options
        ],
    }


def plan_table(plan: Plan) -> "Iterator[RenderableType]":
    """Draw the options of a plan, cheapest first, and what all of them assume."""
    from rich import box  # noqa: PLC0415 - an optional dependency
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("option", no_wrap=True)
    for column in ("cost", "runs", "audits", "error at most"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("how", overflow="fold")
    for option in plan.options:
        table.add_row(
            option.name,
            f"{option.cost:.4g}",
            f"{option.runs:.4g}",
            f"{option.audits:.3g}",
            f"{option.error:.2g}",
            option.how,
            style="bold" if option is plan.best else "",
        )
    yield table
    best = plan.best
    yield Text(f"Cheapest: {best.name}, {best.cost:.4g} a job: {best.how}.", style="bold green")
    yield Text(f"Assumes: {plan.assumes}.")
    if best.deters:
        yield Text(
            "It deters workers that avoid losing their stake; if a bad fraction of "
            f"{plan.bad:g} does not, the error is up to {best.error:.2g}.",
            style="yellow",
        )


def show(found: dict[str, Any], parts: "Iterable[RenderableType]", *, as_json: bool) -> None:
    """Print a result: one JSON object, or tables and text."""
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    if as_json:
        print(json.dumps(found, allow_nan=False))
        return
    stdout = Console()
    console = stdout if stdout.is_terminal else Console(width=100)
    for part in parts:
        console.print(part)


def fail(error: Exception) -> int:
    """Print an error about the arguments in one line, and return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def load_model() -> "Encoder":
    """Return MiniLM; where its weights are absent, print a note and return a random transformer."""
    from protocols.demo import models  # noqa: PLC0415 - loads JAX

    try:
        return models.minilm()
    except ImportError as error:
        print(f"note: {error}. Running on a small random transformer instead.", file=sys.stderr)
        return models.small_transformer()
