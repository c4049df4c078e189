"""What the command line shows: one renderer and one JSON object a scene of the demo.

`SCENES` is the list: each names the module that plays it (`play` yields `Step`s, outcomes, and last
a summary with `right`), how its summary is drawn on a terminal, and what it adds to the JSON
object. A new scene is a module and a line there. Needs `rich`, from the extra `cli`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from protocols.demo.devices import Job
    from protocols.demo.scenes.check import Step
    from protocols.demo.scenes.check import Summary as CheckSummary
    from protocols.demo.scenes.settlement import Summary as SettlementSummary
    from protocols.demo.scenes.vote import Summary as VoteSummary
    from protocols.settlement.verdicts import VerdictRecord
    from verifiable.audits.planning import Plan


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene of the demo.

    Attributes:
      module: what plays it; loaded when it is played, because that loads JAX.
      render: from its summary to what is printed.
      as_dict: from its summary to its part of the JSON object.
      takes: from the job and the summaries of earlier scenes to what it is played on.
    """

    module: str
    render: Callable[[Any], Iterator[RenderableType]]
    as_dict: Callable[[Any], dict[str, Any]]
    takes: Callable[[Job, Sequence[Any]], Any] = lambda job, _: job

    def play(self, job: Job, earlier: Sequence[Any], advance: Callable[[Step], None]) -> Any:
        """Play the scene, report its steps, and return its summary.

        Raises ImportError, which says what to install, where it needs a missing extra.
        """
        from protocols.demo.scenes.check import Step  # noqa: PLC0415 - loads JAX

        last: Any = None
        for last in importlib.import_module(self.module).play(self.takes(job, earlier)):
            if isinstance(last, Step):
                advance(last)
        return last


@contextmanager
def progress(console: Console, *, hidden: bool) -> Generator[Callable[[Step], None]]:
    """Show a progress bar while the block runs, and remove it afterwards."""
    columns = (BarColumn(32), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("load the model", total=None)

        def advance(step: Step) -> None:
            bar.update(task, completed=step.done, total=step.total, description=step.what)

        yield advance


# The first scene: devices and cheats.


def devices_dict(summary: CheckSummary) -> dict[str, Any]:
    """Return its part of the JSON object: numbers that JSON cannot write are null."""
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


def devices(summary: CheckSummary) -> Iterator[RenderableType]:
    """Return what is printed: the table of devices, the figures, and one line that sums up."""
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
            marked(outcome.verdict, right=outcome.right),
            outcome.reason,
            scope(outcome.claim),
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


# The second scene: one job by vote.


def vote_dict(summary: VoteSummary) -> dict[str, Any]:
    """Return its part of the JSON object."""
    decision = summary.decision
    return {
        "vote": {
            "outcome": decision.outcome.value,
            "reason": decision.reason.value,
            "answer": None if decision.answer is None else decision.answer.hex(),
            "honest_answer": summary.honest_answer,
            "requested": decision.requested,
            "quorum": summary.policy.quorum,
            "audits": summary.audits,
            "bytes": summary.received,
            "workers": [
                {
                    "name": outcome.voter.device.name,
                    "worker": outcome.worker.hex(),
                    "role": outcome.voter.role,
                    "did": outcome.voter.did,
                    "outcome": outcome.outcome,
                    "reason": outcome.reason,
                    "claim": outcome.claim,
                }
                for outcome in summary.outcomes
            ],
        }
    }


def vote(summary: VoteSummary) -> Iterator[RenderableType]:
    """Return what is printed: the table of workers, and how the vote ended."""
    table = Table(box=box.SIMPLE_HEAD, title="One job by vote", pad_edge=False)
    for column in ("worker", "role", "what it did", "outcome", "reason", "first claim that failed"):
        table.add_column(column, overflow="fold", no_wrap=column == "outcome")
    for outcome in summary.outcomes:
        table.add_row(
            outcome.voter.device.name,
            outcome.voter.role,
            outcome.voter.did,
            marked(outcome.outcome, right=outcome.right),
            outcome.reason,
            scope(outcome.claim),
        )
    yield Text()
    yield table
    decision = summary.decision
    yield Text(
        f"{decision.requested} ballots requested, {summary.policy.quorum} must agree; "
        f"{summary.audits} traces audited because ballots differ; "
        f"{megabytes(summary.received)} of signed messages",
        style="dim",
    )
    answer = "" if decision.answer is None else f", answer {decision.answer.hex()[:16]}"
    verdict = f"{decision.outcome.value}: {decision.reason.value}{answer}"
    blamed = sum(o.outcome == "blamed" for o in summary.outcomes)
    yield Text(
        f"\nVote {verdict}; {blamed} blamed by their audits, nobody by a vote.",
        style="bold green" if summary.right else "bold red",
    )


# The third scene: the verdicts go on chain.


def verdict_records(job: Job, earlier: Sequence[Any]) -> Sequence[VerdictRecord]:
    """Return the verdicts of the first scene as records of an epoch."""
    from protocols.demo.scenes.settlement import records  # noqa: PLC0415 - loads JAX

    compiled = job.program
    return records(
        earlier[0].outcomes, job=earlier[0].root, program=compiled.id, policy=compiled.policy.id
    )


def settlement_dict(summary: SettlementSummary) -> dict[str, Any]:
    """Return its part of the JSON object."""
    statement = summary.submission.statement
    return {
        "settlement": {
            "settled": summary.settled,
            "root": statement.root.hex(),
            "verdicts": statement.size,
            "weight": summary.weight,
            "total": summary.total,
            "gas": summary.gas,
            "inclusion_digests": summary.path,
            "refused": [
                {"name": outcome.name, "reason": outcome.reason, "expected": outcome.expected}
                for outcome in summary.outcomes
            ],
        }
    }


def settlement(summary: SettlementSummary) -> Iterator[RenderableType]:
    """Return what is printed: the submission and its gas, and what the contract refused."""
    statement = summary.submission.statement
    table = Table(box=box.SIMPLE_HEAD, title="Settled on chain", pad_edge=False)
    table.add_column("submission", overflow="fold")
    table.add_column("contract", no_wrap=True)
    table.add_column("reason", overflow="fold")
    state = "accepted" if summary.settled else "refused"
    table.add_row(
        f"{statement.size} verdicts, signed by {summary.weight} of {summary.total} by weight",
        marked(state, right=summary.settled),
        "-",
    )
    table.add_section()
    for outcome in summary.outcomes:
        table.add_row(
            outcome.name,
            marked("accepted" if outcome.reason is None else "refused", right=outcome.right),
            outcome.reason or "-",
        )
    yield Text()
    yield table
    gas = summary.gas
    yield Text(
        f"gas of execution: register {summary.members} members {gas['register']:,}, activate "
        f"{gas['activate']:,}, settle {gas['settle']:,}, show one verdict by {summary.path} "
        f"digests {gas['show']:,}; {len(summary.refused)} forged vote turned away before",
        style="dim",
    )
    right = sum(outcome.right for outcome in summary.outcomes)
    yield Text(
        f"\nEpoch {state} with root {statement.root.hex()[:16]}; {right} of "
        f"{len(summary.outcomes)} tampered submissions refused.",
        style="bold green" if summary.right else "bold red",
    )


SCENES = (
    Scene("protocols.demo.scenes.check", devices, devices_dict),
    Scene("protocols.demo.scenes.vote", vote, vote_dict),
    Scene("protocols.demo.scenes.settlement", settlement, settlement_dict, verdict_records),
)


# Plans.


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


def plan(found: Plan) -> Iterator[RenderableType]:
    """Return what is printed: the options, cheapest first, and what all of them assume."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("option", no_wrap=True)
    for column in ("cost", "runs", "audits", "error at most"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("how", overflow="fold")
    for option in found.options:
        table.add_row(
            option.name,
            f"{option.cost:.4g}",
            f"{option.runs:.4g}",
            f"{option.audits:.3g}",
            f"{option.error:.2g}",
            option.how,
            style="bold" if option is found.best else "",
        )
    yield table
    best = found.best
    yield Text(f"Cheapest: {best.name}, {best.cost:.4g} a job: {best.how}.", style="bold green")
    yield Text(f"Assumes: {found.assumes}.")
    if best.deters:
        yield Text(
            f"It deters workers that will not lose their stake; a bad fraction of {found.bad:g} "
            f"that does not mind reaches an error of {best.error:.2g}.",
            style="yellow",
        )


# Numbers.


def marked(text: str, *, right: bool) -> Text:
    """Return a verdict, green where it is right and marked where it is wrong."""
    return Text(text, style="green") if right else Text(f"{text} (wrong)", style="bold red")


def scope(claim: str | None) -> str:
    """Return where a claim stands, without the primitive at its end."""
    return "-" if claim is None else claim.rpartition("/")[0] or claim


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
