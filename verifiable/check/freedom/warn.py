"""Warnings about what the tolerances of a program leave to a cheat; one of each kind at most."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TypeVar

from verifiable.check.freedom.leeway import heads
from verifiable.check.freedom.steering import steering
from verifiable.check.specification import Specification
from verifiable.claims.contraction import BLOCK
from verifiable.claims.decisions.choice import COARSE
from verifiable.claims.products.product import CHOICES, CONTRACTIONS
from verifiable.errors import CoarseTolerance, SteerableChoice, UnlistedChoice
from verifiable.jaxpr.graph import Graph
from verifiable.report.formatting import shortlist

PASSES_INT4 = 2.0**-5  # an eps above it lets weights pass that were rounded to 4 bits
_SHOWN = 3  # names

P = TypeVar("P", bound=Specification)


def warned(program: P) -> P:
    """The program, after warnings to the caller's caller."""
    steered, coarse = list(_steerable(program)), list(_coarse(program))
    if steered:
        warnings.warn(
            f"{shortlist(steered, _SHOWN)}: a device can turn most choices that are made from "
            "there. Compute in float32 what is chosen from (preferred_element_type=jnp.float32), "
            "and what is rounded just before; print(report) counts the near-ties of a run",
            SteerableChoice,
            stacklevel=3,
        )
    unlisted = [f"{name} ({why})" for name, why in steering(program).unlisted.items()]
    if unlisted:
        warnings.warn(
            f"{shortlist(unlisted, _SHOWN)}: a device can steer what is chosen there within its "
            "tolerances, and no report lists near-ties of it. Choose from the result of a product, "
            "or of arithmetic on it, outside of loops and branches",
            UnlistedChoice,
            stacklevel=3,
        )
    if coarse:
        warnings.warn(
            f"{shortlist(coarse, _SHOWN)}: such a tolerance passes weights that were rounded to 8 "
            "bits, and above 0.05 to 4 bits too. Ask for sums in float32 "
            "(preferred_element_type=jnp.float32), and round the result",
            CoarseTolerance,
            stacklevel=3,
        )
    return program


def _steerable(program: Specification) -> Iterator[str]:
    """The wide products that lead to a choice, and the roundings before them, with coarse eps."""
    reaching = Graph.of(program.function.block).reaching(CHOICES, CONTRACTIONS)
    eps = program.tolerances
    for head in heads(program):
        claim = head.claim
        if head.form.columns <= BLOCK or claim.output not in reaching:
            continue
        before = [c for c, _ in head.roundings if eps[c.name] > COARSE]
        for c in [*([claim] if eps[claim.name] > COARSE else []), *before]:
            what = "is" if c is claim else f"rounds the operand of {claim.name},"
            yield f"{c.name} {what} {c.dtype.name}[{c.shape[-1]}] with tolerance {eps[c.name]:.2g}"


def _coarse(program: Specification) -> Iterator[str]:
    """The products with coarse eps."""
    for claim in program.claims:
        eps = program.tolerances[claim.name]
        if claim.form.contraction is not None and eps > PASSES_INT4:
            yield f"{claim.name} is {claim.dtype.name} with tolerance {eps:.2g}"
