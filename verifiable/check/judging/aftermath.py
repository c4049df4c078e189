"""What another number of trips changes after its loop: whether a second look may allow it.

A loop whose tolerance is below rounding stands still a trip sooner or later on each device, or
never. With c what is read after the loop with n trips, and d with the verifier's own number, n is
allowed iff c is within the slack of d, and no further from it than a device's rounding moves c
(specs/decision.md, section 8).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from verifiable.check.judging.spread import DEVICE, Rows, distances, moved, norms_of
from verifiable.check.replay import operands
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Deviation
from verifiable.jaxpr.blocks import Array


def effects(
    claim: Claim,
    measured: Callable[..., tuple[Any, dict[int, Any]]],
    noise: Callable[..., Any],
    losses: Mapping[str, float],
) -> tuple[Callable[[Any], Deviation], Callable[..., Array]]:
    """What the committed numbers of a loop lead to, compiled: as it is, and in a perturbed replay.

    Args:
      claim: of the numbers.
      measured: `(given, measure, *how) -> _, found by index of the claim`.
      noise: `(*draw, product) -> how` to evaluate, with what products lose.
      losses: `Policy.losses`; a device rounds a product once.
    """
    least = np.float32(losses["arithmetic"])

    def effect(given: Any, *how: Any) -> Deviation:
        found = measured(given, operands.effect, *how)[1]
        return operands.flattened(found[claim.index], claim)

    def perturbed(given: Any, *draw: Any) -> Array:
        return effect(given, *noise(*draw, product=least)).expected

    return jax.jit(effect), jax.jit(perturbed)


def changes_nothing(
    plain: Callable[[Any], Deviation], noisy: Callable[..., Array], given: Any
) -> bool:
    """Whether no number of trips changes more after its loop than a device's rounding does.

    Args:
      plain: from `effects`.
      noisy: from `effects`.
      given: values of a run, which both take.
    """
    after = Deviation(*(np.asarray(x) for x in plain(given)))
    if distances(after, after.expected).any():
        return False
    unit = (after.high - after.low) / 2

    def norms(change: Rows) -> Rows:
        return norms_of(np.divide(change, unit, out=np.zeros_like(unit), where=unit > 0))

    off = norms(after.expected - (after.high + after.low) / 2)
    most = np.full_like(off, 2.0**-20)  # that a centre loses in float64
    for _, value in moved(functools.partial(noisy, given), every=DEVICE):
        most = np.fmax(most, norms(value - after.expected))
        if (off <= most).all():
            return True
    return False
