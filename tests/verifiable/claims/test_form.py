"""The interface of a kind of claim: a kind that needs no randomness and no far operand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.contractions import equation_of
from verifiable.claims.form import Form, Yardstick
from verifiable.claims.statistic import Statistic, judge
from verifiable.report import Verdict


@dataclass(frozen=True)
class Equal(Form):
    """A committed value that must equal its operand."""

    mismatch: ClassVar[str] = "claim-mismatch"

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        return frozenset()

    def test(self, operands: list[Any], claim: Any, yardstick: Yardstick) -> Statistic:
        equal = jnp.all(operands[0] == claim)
        true = jnp.ones((), bool)
        worst = jnp.where(equal, 0.0, jnp.inf)
        return Statistic(worst, jnp.int32(0), equal, true, true, true)


FORM, X = Equal(), np.arange(4.0, dtype=np.float32)


@pytest.mark.parametrize(("claim", "verdict"), [(X, Verdict.ACCEPT), (X + 1, Verdict.REJECT)])
def test_three_definitions_make_a_kind(claim: Any, verdict: Verdict):
    found = FORM.test([X], claim, Yardstick(eps=0.0))
    statistic = Statistic(*map(np.asarray, found))
    assert judge(statistic, FORM.mismatch)[0] is verdict


def test_the_defaults_are_those_of_a_kind_without_randomness():
    assert (FORM.near, FORM.projected, FORM.vectors, FORM.tests, FORM.work) == (
        0,
        False,
        None,
        0,
        0,
    )
    assert (FORM.contraction, FORM.check_cost(16), FORM.unit(2.0, 16)) == (None, 0, 1.0)
    with pytest.raises(NotImplementedError, match="far operand"):
        FORM.project(X, Yardstick(eps=0.0))
    with pytest.raises(NotImplementedError, match="tolerance"):
        FORM.deviate([X], X, Yardstick(eps=0.0))
    with pytest.raises(NotImplementedError, match="observes"):
        FORM.apart([X], [X])
    assert FORM.projects is FORM
    assert not np.any(FORM.unfounded([X], X, Yardstick(eps=0.0)))


def test_by_default_a_claim_leaves_nothing_to_a_cheat():
    room = FORM.room([X], None, X, 0.0)
    assert jax.tree.leaves(room) == []
    assert float(FORM.reach(room, X, 5.0)) == 0.0
    assert not np.any(FORM.steepest(room, X, 5.0))
    assert FORM.shifted([X], X, X, 0.0, 5.0) is X
    equation = equation_of(jnp.sin, X)
    assert np.array_equal(FORM.smooth(equation, [X], [X]), jnp.sin(X))
