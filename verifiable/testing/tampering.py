"""What the cheats of the catalogue do: functions that make them, and those that are one.

    with_params, with_inputs             a full run of something else
    with_claim, exchanged, ...           an honest run in which one claim is another array
    one_unit, near_ties, ...             a claim or decision is forged, and the rest follows it
    with_trace, with_answer, replaced    other claims or another answer beside an honest rest

and which claims and programs each suits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check.freedom import corridor
from verifiable.claims.claim import Claim
from verifiable.claims.decisions.decision import DecisionForm
from verifiable.claims.decisions.trips import TripsForm
from verifiable.claims.lookup import Lookup
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.rounding import Rounding
from verifiable.program import Program
from verifiable.submission import Submission
from verifiable.testing import changes, forging
from verifiable.testing.changes import Value
from verifiable.testing.cheat import Run
from verifiable.testing.workload import Workload
from verifiable.trace import Commitment, Trace

# ------------------------------------------------------------------------ parameters and inputs


def with_params(change: Callable[[Any], Any]) -> Run:
    """A device that runs other parameters of the same shapes; None if they are the same."""

    def run(work: Workload) -> Submission | None:
        other = change(work.params)
        return None if _equal(other, work.params) else work.run(params=other)

    return run


def with_inputs(change: Callable[[Value], Value]) -> Run:
    """A device that changes every array of the input; None if nothing is changed."""

    def run(work: Workload) -> Submission | None:
        def leaf(x: Any) -> Any:
            return jnp.asarray(change(np.array(x)), x.dtype)

        other = jax.tree.map(leaf, work.inputs)
        return None if _equal(other, work.inputs) else work.run(inputs=other)

    return run


def another_input(work: Workload) -> Submission | None:
    """Answer another question, whose answer is already computed."""
    other = work.other_inputs
    return None if _equal(other, work.inputs) else work.run(inputs=other)


def truncated(x: Value) -> Value:
    """Set the second half of an array to zero."""
    if x.ndim:
        x[x.shape[0] // 2 :] = 0
    return x


def _equal(some: Any, others: Any) -> bool:
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


# ---------------------------------------------------------------------------------------- claims


def with_claim(change: Callable[[Value], Value], suits: Callable[[Claim], bool]) -> Run:
    """A device that changes the middle one of the claims that suit; None if it is the same then."""

    def run(work: Workload) -> Submission | None:
        found = [c.index for c in work.program.claims if suits(c) and np.prod(c.shape)]
        index = found[len(found) // 2]
        right = np.array(work.honest.trace.values[index])
        value = change(right.copy())
        if value.dtype == right.dtype and np.array_equal(value, right, equal_nan=True):
            return None
        return work.with_claim(index, value)

    return run


def any_claim(claim: Claim) -> bool:
    """Whether a claim is one: any is."""
    return True


def float_product(claim: Claim) -> bool:
    """Whether a claim is a product of floats, with a tolerance."""
    return isinstance(claim.form, Product) and bool(claim.eps_types)


def integer_product(claim: Claim) -> bool:
    """Whether a claim is a product of integers, in 32 bits."""
    return isinstance(claim.form, Product) and claim.dtype == np.int32


def rounding(claim: Claim) -> bool:
    """Whether a claim is a rounding to a narrow type."""
    return isinstance(claim.form, Rounding) and claim.dtype.itemsize <= 2


def lookup(claim: Claim) -> bool:
    """Whether a claim is rows of a table."""
    return isinstance(claim.form, Lookup)


def trips(claim: Claim) -> bool:
    """Whether a claim is how often a loop was run."""
    return isinstance(claim.form, TripsForm)


def decision(claim: Claim) -> bool:
    """Whether a claim is comparisons or signs of floats, as bits."""
    return isinstance(claim.form, DecisionForm) and claim.dtype == np.uint8


def has(suits: Callable[[Claim], bool]) -> Callable[[Program], bool]:
    """Whether a program has a claim that suits."""
    return lambda program: any(suits(c) and 0 not in c.shape for c in program.claims)


def exchanged(work: Workload) -> Submission | None:
    """Exchange two claims of one shape and dtype; None if all such claims are equal."""
    values = list(work.honest.trace.values)
    for i, j in twins(work.program):
        if not np.array_equal(np.asarray(values[i]), np.asarray(values[j])):
            values[i], values[j] = values[j], values[i]
            return work.submit(work.honest.y, Trace(values=tuple(values)))
    return None


def twins(program: Program) -> list[tuple[int, int]]:
    """Pairs of claims of one shape and dtype, by their indices."""
    kinds = _kinds(program)
    return [(i, j) for j in range(len(kinds)) for i in range(j) if kinds[i] == kinds[j]]


def _kinds(program: Program) -> list[tuple[tuple[int, ...], Any]]:
    return [(claim.shape, claim.dtype) for claim in program.claims]


def of_another_run(work: Workload) -> Submission | None:
    """Take one claim from the run of another input, and leave the others."""
    other = work.run(inputs=work.other_inputs).trace.values
    for index, (a, b) in enumerate(zip(other, work.honest.trace.values, strict=True)):
        if not np.array_equal(np.asarray(a), np.asarray(b)):
            return work.with_claim(index, a)
    return None


# ---------------------------------------------------------------------------------------- forged


def one_unit(work: Workload) -> Submission | None:
    """Be wrong by 16 sigma in one row of the middle product, and go on from there."""
    found = forging.one_unit(work.program)
    answer = found[len(found) // 2](work.params, work.inputs, 0)
    return None if answer is None else work.submit(*answer)


def near_ties(work: Workload) -> Submission | None:
    """Take every near-tie the other way, and go on from there."""
    return work.submit(*forging.TurnedTies(work.program)(work.params, work.inputs))


def one_choice(work: Workload) -> Submission | None:
    """Choose another element in one row, and go on from there."""
    cheat = forging.one_choice(work.program)
    return None if cheat is None else work.submit(*cheat(work.params, work.inputs, 1))


def other_trips(work: Workload) -> Submission | None:
    """Make a trip more in a loop that ends by a comparison, and go on from there."""
    cheat = forging.other_trips(work.program)
    if cheat is None:
        return None
    return work.submit(*cheat(work.params, work.inputs, 0, forging.TRIPS["a trip more"]))


def along_the_gradient(work: Workload) -> Submission | None:
    """Shift every claim to lower the answer, 1.2 times as far as shifts may pass.

    The answer is the first element of the first output of floats.
    """
    bound = work.program.bound
    kappa = 1.2 * (bound.kappa() if bound else 1.0)
    return work.submit(
        *work.program.attack(work.params, *work.inputs, answer=_first_float, kappa=kappa)
    )


def _first_float(y: Any) -> Any:
    floats = [x for x in jax.tree.leaves(y) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.ravel(floats[0])[0].astype(jnp.float32)


def has_slopes(program: Program) -> bool:
    """Whether an output of floats follows from products of floats, and has derivatives by them."""
    steered = has(float_product)(program) and float_output(program)
    return steered and corridor.differentiable(program)


def chooses(program: Program) -> bool:
    """Whether a choice is a claim."""
    return any(c.equation.kind in forging.CHOICES for c in program.claims)


def float_output(program: Program) -> bool:
    """Whether a program returns floats."""
    return any(
        jnp.issubdtype(x.dtype, jnp.floating) and np.prod(x.shape)
        for x in jax.tree.leaves(program.y)
    )


# ------------------------------------------------- structure, answers, commitments: always wrong


def with_trace(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Run:
    """A device that commits to other claims beside the honest answer."""

    def run(work: Workload) -> Submission:
        values = change(work.honest.trace.values)
        return work.submit(work.honest.y, Trace(values=values))

    return run


def with_answer(change: Callable[[Value], Value], *, floats: bool = False) -> Run:
    """A device that commits to an honest trace beside a changed answer.

    Args:
      change: of the first leaf that is not empty.
      floats: only leaves of floats are changed.
    """

    def run(work: Workload) -> Submission:
        leaves, tree = jax.tree.flatten(work.honest.y)
        index = next(
            i
            for i, x in enumerate(leaves)
            if np.size(x) and (not floats or jnp.issubdtype(x.dtype, jnp.floating))
        )
        leaves[index] = change(np.array(leaves[index]))
        return work.submit(jax.tree.unflatten(tree, leaves), work.honest.trace)

    return run


def far_answer(y: Value) -> Value:
    """An answer that no honest device gives: floats are doubled and moved, others are inverted."""
    if jnp.issubdtype(y.dtype, jnp.inexact):
        wide = y.astype(np.complex64 if np.iscomplexobj(y) else np.float32)
        return (2 * wide + 1 + np.abs(wide).max()).astype(y.dtype)
    return np.logical_not(y) if y.dtype == np.bool_ else y ^ 1


def nan_answer(y: Value) -> Value:
    """An answer of NaN, to which no comparison applies."""
    return np.full_like(y, np.nan)


def widened(y: Value) -> Value:
    """The same numbers in another dtype."""
    return y.astype(np.float16 if y.dtype == np.float32 else np.float32)


def another_answer(work: Workload) -> Submission | None:
    """Send the trace of an honest run beside the answer to another input."""
    other = work.run(inputs=work.other_inputs)
    if _equal(other.y, work.honest.y):
        return None
    return work.submit(other.y, work.honest.trace)


def replaced(**change: Callable[[Workload], Any]) -> Run:
    """A device that replaces fields of an honest submission, after it has committed."""

    def run(work: Workload) -> Submission:
        return replace(work.honest, **{name: make(work) for name, make in change.items()})

    return run


def bit_of_a_claim(work: Workload) -> Trace:
    """The honest trace, but for a bit of the first claim."""
    first, *others = work.honest.trace.values
    return Trace(values=(changes.one_bit(np.array(first)), *others))


def bit_of_the_answer(work: Workload) -> Any:
    """The honest answer, but for a bit."""
    leaves, tree = jax.tree.flatten(work.honest.y)
    index = next(i for i, x in enumerate(leaves) if np.size(x))
    leaves[index] = changes.one_bit(np.array(leaves[index]))
    return jax.tree.unflatten(tree, leaves)


def one_leaf_more(work: Workload) -> Commitment:
    """The honest commitment, of a leaf more."""
    own = work.honest.commitment
    return Commitment(root=own.root, size=own.size + 1)


def inverted(name: bytes) -> bytes:
    """Another name of the same length."""
    return bytes(255 - b for b in name)


def unlike_reversed(program: Program) -> bool:
    """Whether shapes and dtypes tell the claims from the same in reverse order."""
    kinds = _kinds(program)
    return kinds != kinds[::-1]


def has_output(program: Program) -> bool:
    """Whether a program returns a number."""
    return any(np.prod(x.shape) for x in jax.tree.leaves(program.y))
