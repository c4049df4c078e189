"""Another submission: an honest run in which a claim, the answer or the commitment was replaced.

`with_claim` makes a device of a change to one claim, such as those of `verifiable.testing.changes`.
The other cheats are devices by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from protocols.demo.cheats.computations import another_user, int4, with_kernels
from protocols.demo.devices import DemoJob, Run
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.rounding import Rounding
from verifiable.program import Program
from verifiable.submission import Submission
from verifiable.testing.changes import Value
from verifiable.trace import Trace


def with_claim(
    change: Callable[[Value], Value], name: str = "mlp/up", *, rounding: bool = False
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
