"""Evidence against any run, made without a report, for judges to decide."""

from __future__ import annotations

from verifiable import trace
from verifiable.check.judging.accused import accused_of
from verifiable.check.judging.evidence import Evidence
from verifiable.check.specification import Target
from verifiable.program import Program
from verifiable.submission import Submission


def against(
    program: Program,
    run: Submission,
    *,
    index: int = 0,
    row: int = 0,
    output: bool = False,
    trip: int = 0,
) -> Evidence:
    """Evidence about one row of a claim or output of a run of a program."""
    committed = trace.commit(run.y, run.trace, layout=program.layout)
    return Evidence(
        program=program.id,
        parameters=run.parameters,
        commitment=run.commitment,
        output=output,
        index=index,
        trip=trip,
        row=row,
        opening=committed.open(accused_of(program, Target(output, index)).leaves),
    )
