"""A fleet against a sample coordinator: right, and with each of many bugs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import verifiable as vf
from protocols.testing import CoordinatorAdapter, Fleet, LawBroken, Scenario, fleet
from protocols.testing import strategies as pst
from tests.helpers import sample_coordinator as sample
from verifiable.testing import cheats
from verifiable.testing import strategies as vst

RNG = np.random.default_rng(0)
PARAMS = [jnp.asarray(RNG.standard_normal((32, 32)) / 6, jnp.float32) for _ in range(2)]
X = jnp.asarray(RNG.standard_normal((8, 32)), jnp.float32)


def model(params: Any, x: Any) -> Any:
    return jax.nn.gelu(x @ params[0]) @ params[1]


# A few of each kind: the runs of all cheats would take most of the time.
FEW = (
    *cheats.PARAMETERS[:1],
    *cheats.CLAIMS[:2],
    *cheats.ANSWERS[1:],
    *cheats.STRUCTURE[:1],
    *cheats.COMMITMENTS[:2],
)


@functools.cache
def workers() -> Fleet:
    compiled = vf.compile(model, PARAMS, X, policy=vst.FEW, self_test=False)
    return fleet(compiled, PARAMS, (X,), cheats=FEW)


def law_broken(make: Callable[[], CoordinatorAdapter]) -> tuple[str, int]:
    """The law that the kit says is broken, and after how many examples; nothing if it says none."""
    count = 0

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(pst.scenarios(workers()))
    def laws(scenario: Scenario) -> None:
        nonlocal count
        count += 1
        workers().play(make, scenario, paying=True)

    try:
        laws()
    except LawBroken as broken:
        return broken.law, count
    return "", count


def test_nothing_is_found_in_the_right_coordinator():
    assert law_broken(sample.Right) == ("", 200)


@pytest.mark.parametrize("bug", sample.BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_found_within_200_examples(bug: type[sample.Right]):
    law, count = law_broken(bug)
    assert law in bug.law.split()
    assert count <= 201  # the failing example is run once more
