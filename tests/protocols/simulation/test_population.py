"""Populations: who answers what, and draws without replacement."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from protocols.simulation import (
    Kind,
    Population,
    drawing,
)


def test_what_a_population_assumes_of_its_bad_fraction():
    assert Population(colluders=0.1).bad == pytest.approx(0.1)
    assert Population(colluders=0.1, offline=0.5).bad == pytest.approx(2 / 11)
    assert Population(colluders=0.1, copycats=0.2).bad == pytest.approx(0.125)
    assert Population(colluders=0.05, erring=0.05, stallers=0.5).bad == pytest.approx(0.2)


def test_workers_are_drawn_without_replacement():
    population = Population(size=10, colluders=0.4)
    draw = drawing(population, 50, np.random.default_rng(0))
    kinds = np.stack([draw(np.arange(50)) for _ in range(10)])
    assert ((kinds == Kind.COLLUDER).sum(axis=0) == 4).all()
    assert ((kinds == Kind.HONEST).sum(axis=0) == 6).all()
    with pytest.raises(ValueError, match="exhausted"):
        draw(np.arange(50))


@pytest.mark.parametrize(
    "change",
    [
        {"colluders": 1.1},
        {"colluders": math.nan},
        {"colluders": 0.6, "erring": 0.6},
        {"stallers": 1.0},
        {"copycats": 1.0},
        {"offline": 1.0},
        {"size": 0},
    ],
    ids=str,
)
def test_a_population_that_could_not_be_is_refused(change: dict[str, Any]):
    with pytest.raises(ValueError, match=r"fraction|at least one worker"):
        Population(**change)
