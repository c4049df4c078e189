"""Cuts: the function in which every layer also commits to what it passes on.

The layers are the iterations of the outermost scans that hold claims. The carries that are floats
and not exact become claims at the end of the body (`claims.cut`), so that an audit of one iteration
replays it from the committed carry before it, instead of from claims of all iterations before. The
carry that enters the first iteration is no cut: the verifier computes it. Where layers are written
out, the user names what they pass on, by `jax.ad_checkpoint.checkpoint_name`: such a value becomes
a claim where it stands, on the same conditions.

Cuts are part of the program, and of its id: a device commits to more.
"""

from __future__ import annotations

from verifiable.check.analysis import partition, tables
from verifiable.check.analysis.partition import Analysis
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Atom, Equation, Function, Var
from verifiable.jaxpr.effects import CUT, FLOATS


def analyse(function: Function, known_inputs: int, draws: int, *, cuts: bool) -> Analysis:
    """Analyse a flattened function, after its tables and cuts have become equations of their own.

    Args:
      function: it is changed in place.
      known_inputs: how many of its leading inputs are constants or parameters.
      draws: random vectors of the check.
      cuts: whether layers commit to what they pass on.
    """
    found = tables.analyse(function, known_inputs, draws)
    if not cuts:
        return found
    for equation in layered(function, found):
        _cut(equation, found)
    from_jax.tidy(function.block)
    return partition.analyse(function.block, known_inputs, draws)


def layered(function: Function, found: Analysis) -> list[Equation]:
    """The scans of the outermost block whose iterations are layers: those that hold claims."""
    return [
        e
        for e in function.block.equations
        if e.kind == "scan" and e.params["length"] > 1 and found.claims_in(e.bodies[0])
    ]


def _cut(equation: Equation, found: Analysis) -> None:
    """Add the cuts of a scan to its body, in place of the carries that it returns."""
    [body] = equation.bodies
    made: dict[Atom, Atom] = {}
    for i, atom in enumerate(body.outputs[: equation.params["num_carry"]]):
        if not isinstance(atom, Var) or atom in made or not atom.size:
            continue
        fact = found.fact(atom)
        if atom.dtype.name in FLOATS and not (fact.known or fact.exact):
            cut = from_jax.identity(atom, CUT, f"{equation.name}/{CUT}.{i}")
            body.equations.append(cut)
            [made[atom]] = cut.outputs
    body.outputs = tuple(made.get(atom, atom) for atom in body.outputs)
