"""What `verifiable demo` shows: tables, and its JSON object.

`SCENES` lists the scenes in order. Each names the module that plays it, the function that draws its
summary on a terminal, and the function that returns its part of the JSON object. A new scene is a
module and a row in this list. Needs `rich`, from the extra `cli`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich import progress as bars
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from protocols.demo import receipts_table
from protocols.demo.cells import finite, marked, megabytes, milliseconds, ratio_text, scope

if TYPE_CHECKING:
    from protocols.demo.devices import DemoJob
    from protocols.demo.scenes.check import CheckSummary
    from protocols.demo.scenes.evidence import EvidenceSummary
    from protocols.demo.scenes.scene import Progress
    from protocols.demo.scenes.settlement import SettlementSummary
    from protocols.demo.scenes.vote import VoteSummary
    from protocols.judging import Judged
    from protocols.settlement.verdicts import VerdictRecord


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene of the demo.

    Attributes:
      module: the module that plays it; imported when it is played, because it loads JAX.
      render: from its summary to what is printed.
      as_dict: from its summary to its part of the JSON object.
      takes: from the job and the summaries of earlier scenes to the argument of `play`.
    """

    module: str
    render: Callable[[Any], Iterator[RenderableType]]
    as_dict: Callable[[Any], dict[str, Any]]
    takes: Callable[[DemoJob, Sequence[Any]], Any] = lambda job, _: job

    def play(
        self, job: DemoJob, earlier: Sequence[Any], advance: Callable[[Progress], None]
    ) -> Any:
        """Play the scene, report its progress, and return its summary.

        Raises:
          ImportError: an optional package is missing; the message says which to install.
        """
        from protocols.demo.scenes.scene import Progress  # noqa: PLC0415 - loads JAX

        last: Any = None
        for last in importlib.import_module(self.module).play(self.takes(job, earlier)):
            if isinstance(last, Progress):
                advance(last)
        return last


@contextmanager
def progress_bar(console: Console, *, hidden: bool) -> Generator[Callable[[Progress], None]]:
    """Show a progress bar while the block runs, and remove it afterwards."""
    columns = (bars.BarColumn(32), bars.MofNCompleteColumn(), bars.TextColumn("{task.description}"))
    with bars.Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("load the model", total=None)

        def advance(step: Progress) -> None:
            bar.update(task, completed=step.done, total=step.total, description=step.what)

        yield advance


# The first scene: devices and cheats.


def check_dict(summary: CheckSummary) -> dict[str, Any]:
    """Return the first scene's part of the JSON object; numbers that are not finite are null."""
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


def check(summary: CheckSummary) -> Iterator[RenderableType]:
    """Draw the first scene: the table of devices, the figures, and the count of right verdicts."""
    yield _devices(summary)
    yield Text("worst: largest statistic over its limit; a run passes at 1 or less\n", style="dim")
    yield _figures(summary)
    yield Text.assemble(("receipt root ", "dim"), summary.root.hex())
    honest = [outcome for outcome in summary.outcomes if outcome.device.honest]
    cheats = [outcome for outcome in summary.outcomes if not outcome.device.honest]
    yield Text(
        f"\n{sum(o.right for o in honest)} of {len(honest)} honest devices accepted, "
        f"{sum(o.right for o in cheats)} of {len(cheats)} cheats caught.",
        style="bold green" if summary.right else "bold red",
    )


def _devices(summary: CheckSummary) -> Table:
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
    return table


def _figures(summary: CheckSummary) -> Table:
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
        "the coordinator uses them once, to make the key",
    )
    name, kept = summary.kept
    figures.add_row("key", megabytes(summary.bytes_key), f"{megabytes(kept)} of it {name}")
    figures.add_row("trace", megabytes(summary.bytes_trace), "sent by each device, with its answer")
    return figures


# The second scene: one job by vote.


def vote_dict(summary: VoteSummary) -> dict[str, Any]:
    """Return the second scene's part of the JSON object."""
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
    """Draw the second scene: the table of workers, and the decision."""
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
        f"\nVote {verdict}; {blamed} workers blamed, each by evidence of its own audit.",
        style="bold green" if summary.right else "bold red",
    )


# The third scene: evidence, and its judge.


def judged_dict(judged: Judged) -> dict[str, Any]:
    """Return the JSON object of a judgement; an excess that is not finite is null."""
    return {
        "root": judged.root.hex(),
        "claim": judged.claim,
        "trip": judged.trip,
        "row": judged.row,
        "guilty": judged.judgement.guilty,
        "excess": finite(judged.judgement.excess),
        "message": judged.judgement.message,
    }


def judged_text(judged: Judged) -> Iterator[RenderableType]:
    """Draw one judgement."""
    yield Text.assemble(("accused trace ", "dim"), judged.root.hex())
    yield Text.assemble(("accused value ", "dim"), judged.claim)
    guilty = judged.judgement.guilty
    who = "guilty is who signed this root for this job" if guilty else "nobody is guilty"
    yield Text(
        f"{judged.judgement.message}: {who}.", style="bold green" if guilty else "bold yellow"
    )


def evidence_dict(summary: EvidenceSummary) -> dict[str, Any]:
    """Return the third scene's part of the JSON object."""
    judged = [
        {"name": o.device.name, "honest": o.device.honest} | judged_dict(o.judged)
        for o in summary.outcomes
    ]
    return {"evidence": {"bytes": len(summary.file), "judged": judged}}


def evidence(summary: EvidenceSummary) -> Iterator[RenderableType]:
    """Draw the third scene: what a judge finds about the cheat and the honest device."""
    table = Table(box=box.SIMPLE_HEAD, title="Evidence before a judge", pad_edge=False)
    for column in ("accused", "judgement", "claim", "row", "excess"):
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column == "judgement",
            justify="right" if column in ("row", "excess") else "left",
        )
    for outcome in summary.outcomes:
        judged = outcome.judged
        table.add_row(
            outcome.device.name,
            marked("guilty" if judged.judgement.guilty else "not guilty", right=outcome.right),
            scope(judged.claim),
            str(judged.row),
            ratio_text(judged.judgement.excess),
        )
    yield Text()
    yield table
    yield Text("excess: distance of the row over what honest rounding explains", style="dim")
    right = sum(outcome.right for outcome in summary.outcomes)
    yield Text(
        f"\n{right} of {len(summary.outcomes)} judgements right, by a judge with the model and "
        f"{len(summary.file) / 1e3:,.0f} kB of evidence, and without the key.",
        style="bold green" if summary.right else "bold red",
    )


# The fifth scene: the verdicts go on chain.


def verdict_records(job: DemoJob, earlier: Sequence[Any]) -> Sequence[VerdictRecord]:
    """Return the verdicts of the first scene as records of an epoch."""
    from protocols.demo.scenes.settlement import records  # noqa: PLC0415 - loads JAX

    compiled = job.program
    return records(
        earlier[0].outcomes, job=earlier[0].root, program=compiled.id, policy=compiled.policy.id
    )


def settlement_dict(summary: SettlementSummary) -> dict[str, Any]:
    """Return the fifth scene's part of the JSON object."""
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
    """Draw the fifth scene: the submission and its gas, and the forgeries."""
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
        f"digests {gas['show']:,}; {len(summary.refused)} forged vote refused before",
        style="dim",
    )
    right = sum(outcome.right for outcome in summary.outcomes)
    yield Text(
        f"\nEpoch {state} with root {statement.root.hex()[:16]}; {right} of "
        f"{len(summary.outcomes)} forgeries refused.",
        style="bold green" if summary.right else "bold red",
    )


SCENES = (
    Scene("protocols.demo.scenes.check", check, check_dict),
    Scene("protocols.demo.scenes.vote", vote, vote_dict),
    Scene("protocols.demo.scenes.evidence", evidence, evidence_dict),
    Scene("protocols.demo.scenes.receipts", receipts_table.render, receipts_table.as_dict),
    Scene("protocols.demo.scenes.settlement", settlement, settlement_dict, verdict_records),
)
