"""The catalogue of cheats: what a dishonest device sends, by name, with the verdict it must get.

A cheat is a function from a `Workload` to a submission. It works on any program that it applies to:

    PARAMETERS     a full run of other weights; its trace is consistent with itself
    INPUTS         a full run of another input
    CLAIMS         an honest run in which one claim is another array
    FORGED         one claim or decision is forged, and the rest of the run follows it
    ANSWERS        an honest trace beside another answer
    STRUCTURE      a submission of another form than the program's
    COMMITMENTS    what is sent is not what was committed to, or names something else

The verdict on the last two is certain (`cheat`). A new cheat is a function, in `changes`,
`parameters` or `tampering`, and a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from verifiable.claims.claim import Claim
from verifiable.program import Program
from verifiable.testing import changes, parameters
from verifiable.testing import tampering as t
from verifiable.testing.changes import Value
from verifiable.testing.cheat import MISMATCHES, Cheat, Run


def _row(name: str, run: Run, does: str, *reasons: str, **more: Any) -> Cheat:
    return Cheat(name=name, run=run, does=does, reasons=frozenset(reasons) or MISMATCHES, **more)


def _first(run: Callable[..., Any]) -> str:
    """The first sentence of a docstring."""
    return (run.__doc__ or "").split("\n")[0].rstrip(".")


def _params(name: str, change: Callable[[Any], Any]) -> Cheat:
    return _row(name, t.with_params(change), _first(change))


def _claim(
    name: str, change: Callable[[Value], Value], suits: Callable[[Claim], bool] = t.float_product
) -> Cheat:
    return _row(name, t.with_claim(change, suits), _first(change), applies=t.has(suits))


def _form(name: str, run: Run, does: str, reason: str, **more: Any) -> Cheat:
    return _row(name, run, does, reason, certain=True, **({"applies": t.has(t.any_claim)} | more))


PARAMETERS: Final = (
    _params("another model", parameters.another_model),
    _params("int8 weights", parameters.int8),
    _params("int4 weights", parameters.int4),
    _params("float16 weights", parameters.float16),
    _params("float8 weights", parameters.float8),
    _params("weights before fine-tuning", parameters.before_fine_tuning),
    _params("skipped layers", parameters.skipped_layers),
    _params("last matrix left out", parameters.last_matrix_zero),
    _params("activations scaled by 1000", parameters.scaled),
    _params("one weight changed", parameters.one_weight),
)
"""A full run of other weights."""

INPUTS: Final = (
    _row("another input", t.another_input, _first(t.another_input)),
    _row("input moved by a row", t.with_inputs(changes.moved_rows), _first(changes.moved_rows)),
    _row("input truncated", t.with_inputs(t.truncated), "Read the first half of the input only"),
)
"""A full run of another input."""

CLAIMS: Final = (
    _claim("one element changed", changes.one_element),
    _claim("two opposite changes in a row", changes.equal_and_opposite),
    _claim("signs of small values flipped", changes.flipped_signs),
    _claim("small values set to zero", changes.only_the_largest),
    _claim("rows moved by one", changes.moved_rows),
    _claim("norm overflowed", changes.overflow),
    _claim("NaN in a product", changes.not_a_number),
    _claim("infinity in a product", changes.infinity),
    _claim("one integer changed", changes.one_element, t.integer_product),
    _claim("accumulator off by 2^31", changes.wrapped, t.integer_product),
    _claim("rounding off by one level", changes.one_level, t.rounding),
    _claim("roundings halved", changes.halved, t.rounding),
    _claim("rounded in the cheat's favour", changes.rounded_down, t.rounding),
    _claim("every decision inverted", changes.every_bit, t.decision),
    _claim("rows of a table moved by one", changes.moved_rows, t.lookup),
    _row(
        "two claims exchanged", t.exchanged, _first(t.exchanged), applies=lambda p: bool(t.twins(p))
    ),
    _row(
        "a claim of another run",
        t.of_another_run,
        _first(t.of_another_run),
        applies=t.has(t.any_claim),
    ),
)
"""An honest run in which one claim is another array."""

FORGED: Final = (
    _row(
        "one unit wrong by 16 sigma",
        t.one_unit,
        _first(t.one_unit),
        applies=t.has(t.float_product),
        compiles=True,
    ),
    _row(
        "near-ties taken the other way",
        t.near_ties,
        _first(t.near_ties),
        applies=lambda program: t.has(t.decision)(program) or t.chooses(program),
        compiles=True,
    ),
    _row("another choice", t.one_choice, _first(t.one_choice), applies=t.chooses, compiles=True),
    _row(
        "a trip more",
        t.other_trips,
        _first(t.other_trips),
        applies=t.has(t.trips),
        compiles=True,
    ),
    _row(
        "shifts along the gradient",
        t.along_the_gradient,
        _first(t.along_the_gradient),
        applies=t.has_slopes,
        compiles=True,
    ),
)
"""A claim or decision is forged, and the rest of the run follows it."""

ANSWERS: Final = (
    _row("another answer, honest trace", t.another_answer, _first(t.another_answer)),
    _row(
        "false answer, honest trace",
        t.with_answer(t.far_answer),
        _first(t.far_answer),
        applies=t.has_output,
    ),
    _row(
        "NaN answer, honest trace",
        t.with_answer(t.nan_answer, floats=True),
        "Send an answer of NaN, to which no comparison applies",
        applies=t.float_output,
    ),
)
"""An honest trace beside another answer."""

STRUCTURE: Final = (
    _form("one claim left out", t.with_trace(lambda v: v[:-1]), "Leave it out", "claim-missing"),
    _form("one claim too many", t.with_trace(lambda v: (*v, v[0])), "Repeat one", "claim-extra"),
    _form(
        "claims in reverse order",
        t.with_trace(lambda v: v[::-1]),
        "Send the last claim first",
        "claim-reordered",
        applies=t.unlike_reversed,
    ),
    _form(
        "claim of another shape",
        t.with_trace(lambda v: (np.asarray(v[0])[None], *v[1:])),
        "Put a dimension before the first claim",
        "claim-shape",
    ),
    _form(
        "claim of another dtype",
        t.with_trace(lambda v: (t.widened(np.asarray(v[0])), *v[1:])),
        "Send the first claim in another precision",
        "claim-dtype",
    ),
    _form("no trace", t.replaced(trace=lambda work: None), "Hand in no trace", "trace-structure"),
    _form("no answer", t.replaced(y=lambda work: None), "Hand in no answer", "output-structure"),
    _form(
        "answer of another shape",
        t.with_answer(lambda y: y[None]),
        "Put a dimension before the answer",
        "output-shape",
        applies=t.has_output,
    ),
    _form(
        "answer of another dtype",
        t.with_answer(t.widened),
        "Send the answer in another precision",
        "output-dtype",
        applies=t.has_output,
    ),
)
"""A submission of another form than the program's."""

COMMITMENTS: Final = (
    _form(
        "commitment to another run",
        t.replaced(commitment=lambda work: work.run(inputs=work.other_inputs).commitment),
        "Commit to the run of another input, then send the right one",
        "commitment-mismatch",
    ),
    _form(
        "commitment of another size",
        t.replaced(commitment=t.one_leaf_more),
        "Commit to a leaf more",
        "commitment-mismatch",
    ),
    _form(
        "one bit of a claim after the commitment",
        t.replaced(trace=t.bit_of_a_claim),
        "Flip a bit of the first claim after committing",
        "commitment-mismatch",
    ),
    _form(
        "one bit of the answer after the commitment",
        t.replaced(y=t.bit_of_the_answer),
        "Flip a bit of the answer after committing",
        "commitment-mismatch",
        applies=t.has_output,
    ),
    _form(
        "another program named",
        t.replaced(program=lambda work: t.inverted(work.program.id)),
        "Name another program",
        "other-program",
    ),
    _form(
        "other parameters named",
        t.replaced(parameters=lambda work: t.inverted(work.parameters)),
        "Name other parameters",
        "other-parameters",
    ),
)
"""What is sent is not what was committed to, or names something else."""

CATALOGUE: Final = (
    *PARAMETERS,
    *INPUTS,
    *CLAIMS,
    *FORGED,
    *ANSWERS,
    *STRUCTURE,
    *COMMITMENTS,
)
"""Every cheat."""


def applicable(program: Program, *, compiling: bool = False) -> tuple[Cheat, ...]:
    """The cheats of the catalogue that can be tried on a program.

    Args:
      program: the program.
      compiling: those too that compile a program of their own, which takes seconds each.
    """
    return tuple(c for c in CATALOGUE if c.applies(program) and (compiling or not c.compiles))
