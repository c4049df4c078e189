"""Another submission: an honest run in which a claim, the answer or the commitment was replaced.

`with_claim` makes a device of a change to one claim; the changes follow it. The other cheats are
devices by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from protocols.demo.cheats.computations import Array, another_user, int4, with_kernels
from protocols.demo.devices import DemoJob, Run
from verifiable.claims.product import Product
from verifiable.claims.rounding import Rounding
from verifiable.program import Program
from verifiable.submission import Submission
from verifiable.trace import Trace


def with_claim(
    change: Callable[[Array], Array], name: str = "mlp/up", *, rounding: bool = False
) -> Run:
    """Return a device that changes one claim in the middle of the model.

    Args:
      change: from a copy of the claim to the value that is sent in its place.
      name: scope of the claim's product, within its layer.
      rounding: change the rounding before that product instead.
    """

    def run(job: DemoJob) -> Submission:
        honest = job.run()
        scope = f"layer{job.model.layers // 2}/{name}"
        index = find_claim(job.program, scope, rounding=rounding)
        values = list(honest.trace.values)
        values[index] = change(np.array(values[index]))
        return job.submit(honest.y, Trace(values=tuple(values)))

    return run


def find_claim(compiled: Program, scope: str, *, rounding: bool = False) -> int:
    """Return the index of a scope's product among the claims, or of the rounding before it.

    Raises:
      ValueError: the scope has no product, or several.
    """
    products = [
        i
        for i, c in enumerate(compiled.claims)
        if f"{c.name}/".startswith(f"{scope}/") and isinstance(c.form, Product)
    ]
    if len(products) != 1:
        raise ValueError(f"expected one product in the scope {scope}, found {len(products)}")
    if not rounding:
        return products[0]
    before = compiled.claims[: products[0]]
    return max(i for i, c in enumerate(before) if isinstance(c.form, Rounding))


def one_element(claim: Array) -> Array:
    """Change one number by a hundredth of its row."""
    claim[0, 1, 7] += _step(claim)
    return claim


def equal_and_opposite(claim: Array) -> Array:
    """Change two numbers of one row and keep their sum: random signs miss it half the time."""
    claim[0, 1, 3] += _step(claim)
    claim[0, 1, 11] -= _step(claim)
    return claim


def _step(claim: Array) -> Any:
    norm = np.linalg.norm(claim[0, 1].astype(np.float64))
    return np.asarray(max(1.0, 0.01 * norm) if claim.dtype.kind == "i" else 0.01 * norm).astype(
        claim.dtype
    )


def not_a_number(claim: Array) -> Array:
    """Put NaN, for which comparisons with a tolerance are false in both directions."""
    return _with_float(claim, np.nan)


def infinity(claim: Array) -> Array:
    """Put an infinity, which makes every norm of its row infinite."""
    return _with_float(claim, np.inf)


def _with_float(claim: Array, value: float) -> Array:
    # Integers have no such values: a device that wants to send one must send floats.
    if claim.dtype.kind == "i":
        claim = claim.astype(np.float32)
    claim[0, 1, 7] = value
    return claim


def overflow(claim: Array) -> Array:
    """Fill a row with finite floats whose squares overflow, or with the largest integer."""
    claim[0, 1] = np.iinfo(claim.dtype).max if claim.dtype.kind == "i" else 3e38
    return claim


def flipped_signs(claim: Array) -> Array:
    """Flip the sign of the smaller half of all numbers."""
    small = np.abs(claim) < np.median(np.abs(claim))
    claim[small] *= -1
    return claim


def only_the_largest(claim: Array) -> Array:
    """Keep one number in ten, the largest, and send zeros for the others."""
    claim[np.abs(claim) < np.quantile(np.abs(claim), 0.9)] = 0
    return claim


def wrapped(claim: Array) -> Array:
    """Add 2^31 to one accumulator: arithmetic modulo 2^32 misses it half the time."""
    claim[0, 1, 7] = (np.int64(claim[0, 1, 7]) + 2**31).astype(claim.dtype)
    return claim


def one_level(claim: Array) -> Array:
    """Move one element: int8 by one level, float16 and bfloat16 by 32 units in the last place."""
    bits = claim.view(np.int16 if claim.dtype.itemsize == 2 else np.int8)
    bits[0, 1, 7] += np.int8(32 if bits.dtype == np.int16 else 1 if bits[0, 1, 7] < 100 else -1)
    return claim


def halved(claim: Array) -> Array:
    """Halve all values, as if the scale had been doubled."""
    return (claim // 2 if claim.dtype.kind == "i" else claim * claim.dtype.type(0.5)).astype(
        claim.dtype
    )


def rounded_down(claim: Array) -> Array:
    """Lower every other element, always in the cheat's favour: int8 by one, floats by 1/32."""
    other = claim[..., ::2]
    lower = other - 1 if claim.dtype.kind == "i" else other.astype(np.float32) * (1 - 2.0**-5)
    claim[..., ::2] = lower.astype(claim.dtype)
    return claim


def along_the_gradient(job: DemoJob) -> Submission:
    """Shift every claim to lower the answer, 1.2 times as far as shifts may pass.

    Smaller shifts may pass: `Program.corridor` says how far they move an answer.
    """
    bound = job.program.bound
    kappa = 1.2 * (bound.kappa() if bound else 1.0)
    y, values = job.program.attack(
        job.model.params, *job.inputs, answer=lambda y: y[0, 0].astype(jnp.float32), kappa=kappa
    )
    return job.submit(y, values)


def false_output(job: DemoJob) -> Submission:
    """Send the trace of an honest run beside the answer to another input."""
    return job.submit(job.run(inputs=another_user(job)).y, job.run().trace)


def nan_output(job: DemoJob) -> Submission:
    """Send an answer of NaN, to which no comparison applies."""
    honest = job.run()
    return job.submit(jnp.full_like(honest.y, jnp.nan), honest.trace)


def missing_claim(job: DemoJob) -> Submission:
    """Leave out the last claim."""
    honest = job.run()
    return job.submit(honest.y, Trace(values=honest.trace.values[:-1]))


def changed_after_commitment(job: DemoJob) -> Submission:
    """Commit to the trace of a cheaper model, then send the right trace."""
    cheap = with_kernels(int4)(job)
    return dataclasses.replace(job.run(), commitment=cheap.commitment)
