"""The text of a program: its claims, what is replayed or stays indeterminate, what its key keeps.

A wrong claim or output behind a discontinuity is indeterminate, never rejected. So the text lists
the discontinuities with the share of the arithmetic behind them, and the outputs; `warn` warns of a
large share, and of any output: a device may answer there as it likes.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax

from verifiable.check.analysis.partition import Analysis, Frame
from verifiable.check.outputs import Output
from verifiable.errors import IndeterminateWarning, NoInputs
from verifiable.jaxpr.blocks import Function, Var
from verifiable.report.formatting import shortlist, table

_SHOWN = 8  # largest values that the key keeps, and names in a warning
_VISIBLE = 0.1  # share of the arithmetic behind discontinuities that is worth a warning
_NO_CLAIM = "no product is a claim, so that verifying costs what the model costs"
_MEANINGS = {  # of a kind of claim, by `Form.mismatch`
    "claim-mismatch": "product, tested with random vectors against its replayed operands",
    "rounding-mismatch": "committed rounding, of a value within the slack of the verifier's own",
    "table-mismatch": "committed value of parameters and constants, as other libraries round it",
    "cut-mismatch": "cut, what a layer passes on, within the slack of the verifier's own",
    "decision-mismatch": "committed decision, bits, indices or trips: right, or close to a tie",
    "lookup-mismatch": "row of a parameter table, of which the key holds a fingerprint",
}


def text(
    program_id: bytes, found: Analysis, outputs: Sequence[Output], kept: Mapping[str, int]
) -> str:
    """The claims and what each kind is, what discontinuities precede, and what the key keeps.

    Args:
      program_id: 32 bytes.
      found: analysis of the program.
      outputs: of the program.
      kept: bytes by name, from the function `kept`.
    """
    total = max(found.checked + found.replayed, 1)
    columns = ("claim", "primitive", "shape", "dtype", "share", "discontinuities")
    rows: list[tuple[str, ...]] = [columns]
    for c in found.by_equation.values():
        shape = "x".join(map(str, c.shape))
        saved = f"{c.work / total:.1%}" if c.work else ""  # only products save arithmetic
        before = ", ".join(sorted(c.discontinuities))
        rows.append((c.name, c.primitive, shape, c.dtype.name, saved, before))
    rows.append(("(replayed)", "", "", "", f"{found.replayed / total:.1%}", ""))
    shown = len(columns) if found.discontinuities else len(columns) - 1
    parts = [f"program {program_id.hex()}", table([row[:shown] for row in rows])]
    for code, meaning in _MEANINGS.items():
        of_kind = {c.primitive for c in found.by_equation.values() if c.form.mismatch == code}
        if of_kind:
            parts.append(f"{', '.join(sorted(of_kind))}: a {meaning}")
    if not found.checked:
        parts.append(_NO_CLAIM)
    if found.products:
        lines = [("replayed product", "share", "because")]
        lines += [(name, f"{n / total:.1%}", why) for name, (n, why) in found.products.items()]
        parts.append(table(lines))
    if found.discontinuities:
        lines = [("discontinuity", "arithmetic behind it", "outputs behind it")]
        for name in found.discontinuities:
            behind = ", ".join(o.name for o in outputs if name in o.discontinuities)
            lines.append((name, f"{share(found, {name}):.1%}", behind))
        parts.append(table(lines))
    else:
        parts.append("discontinuities: none")
    largest = sorted(kept.items(), key=lambda item: -item[1])
    if largest:
        lines = [(name, f"{nbytes:,}") for name, nbytes in largest[:_SHOWN]]
        if largest[_SHOWN:]:
            rest = sum(nbytes for _, nbytes in largest[_SHOWN:])
            lines.append((f"({len(largest) - _SHOWN} smaller)", f"{rest:,}"))
        parts.append(table([("kept in the key", "bytes"), *lines]))
    return "\n".join(parts)


def share(found: Analysis, names: Collection[str]) -> float:
    """The share of a program's arithmetic in claims behind any of some discontinuities."""
    total = max(found.checked + found.replayed, 1)
    claims = found.by_equation.values()
    return sum(c.work for c in claims if c.discontinuities.intersection(names)) / total


def warn(found: Analysis, outputs: Sequence[Output], *, inputs: bool) -> None:
    """Warn the caller's caller if a check would show little.

    That is so if much arithmetic, or an output, is behind discontinuities, or nothing is claimed
    because there are no `inputs`.
    """
    if not (inputs or found.checked):
        warnings.warn(
            "the program has parameters and no inputs, so no product is a claim: pass what differs "
            "from job to job after the parameters, as in compile(fn, params, x)",
            NoInputs,
            stacklevel=3,
        )
    behind = share(found, found.discontinuities)
    open_outputs = [o for o in outputs if o.discontinuities]
    names = {n for n in found.discontinuities if behind > _VISIBLE and share(found, {n})}
    names.update(*(o.discontinuities for o in open_outputs))
    if not names:
        return
    parts = [f"{behind:.0%} of the arithmetic"] if behind > _VISIBLE else []
    parts += [shortlist([o.name for o in open_outputs], _SHOWN)] if open_outputs else []
    verb = "is" if len(open_outputs) + (behind > _VISIBLE) == 1 else "are"
    costs = f"; {_NO_CLAIM}" if open_outputs and not found.checked else ""
    listed = shortlist(sorted(names), _SHOWN)
    how = "Write them" if open_outputs else "Compute them after the last product, or write them"
    warnings.warn(
        f"{' and '.join(parts)} {verb} behind discontinuities, where a wrong result is "
        f"indeterminate and never rejected: {listed}; print(program) lists them"
        f"{costs}. {how} with arithmetic, comparisons and roundings, which are checked",
        IndeterminateWarning,
        stacklevel=3,
    )


def kept(function: Function, params: Any, found: Analysis) -> dict[str, int]:
    """Bytes of the values that the key keeps because replayed equations read them, by name."""
    names = _names(function, params)
    nbytes: dict[str, int] = {}

    def visit(frame: Frame, trips: int) -> None:
        for v in frame.kept:
            name = names.get(v, "value")
            nbytes[name] = nbytes.get(name, 0) + v.nbytes * trips
        for equation, child in frame.children.items():
            visit(child, trips * equation.params["length"])

    visit(found.frame, 1)
    return nbytes


def _names(function: Function, params: Any) -> dict[Var, str]:
    """The constant or parameter that each variable comes from, or else its equation."""
    block = function.block
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
    labels = [f"constant {i}" for i in range(len(function.constants))]
    labels += ["params" + path for path in paths]
    names = dict(zip(block.inputs, labels, strict=False))
    for equation in block.walk():
        sources = {names[a] for a in equation.inputs if isinstance(a, Var) and a in names}
        name = sources.pop() if len(sources) == 1 else equation.name
        names |= dict.fromkeys(equation.outputs, name)
        if equation.kind == "scan":
            for v, atom in zip(equation.bodies[0].inputs, equation.inputs, strict=True):
                if isinstance(atom, Var) and atom in names:
                    names[v] = names[atom]
    return names
