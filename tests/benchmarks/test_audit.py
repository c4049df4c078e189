"""The cheats of the benchmark of audits are wrong where they say."""

import functools

import numpy as np
import pytest

from benchmarks import audit
from benchmarks.layer_cheats import CHEATS, STEERING, Forging
from verifiable import program
from verifiable.jaxpr.effects import CUT
from verifiable.report import Detection
from verifiable.trace import Trace


@functools.cache
def forging(cuts: bool) -> Forging:
    model = audit.small_decoder()
    compiled = program.compile(model.fn, model.params, *model.inputs, cuts=cuts)
    zeros = tuple(np.zeros(c.shape, c.dtype) for c in compiled.claims)
    return Forging(compiled=compiled, honest=Trace(values=zeros))


def test_a_cheat_is_wrong_in_the_layers_that_it_says():
    found = {c.name: forging(True).places(c) for c in (*CHEATS, STEERING)}
    trips = {name: [trip for _, trip in places] for name, places in found.items()}
    assert trips == {
        "one unit": [1],
        "a token's keys and values in one layer": [1, 1],
        "a token's keys and values in all layers": [0, 0, 1, 1, 2, 2],
        "half of the layers": [0],
        "a cut": [1],
        "a value row that steers the next token": [1],
    }
    assert {c.primitive for c, _ in found["a cut"]} == {CUT}
    tokens = found["a token's keys and values in all layers"]
    assert {c.output.shape for c, _ in tokens} == {(32, 64)}
    assert len({c.index for c, _ in tokens}) == 2
    assert [c for c in CHEATS if not forging(False).places(c)] == [CHEATS[-1]]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_a_cheat_adds_to_the_first_row_or_to_all(cheat):
    added = forging(True).added(cheat)
    assert added.keys() == {c.index for c, _ in forging(True).places(cheat)}
    for more in added.values():
        wrong = [trip for trip in range(3) if more[trip].any()]
        assert wrong == list(cheat.layers(3))
        rows = more[wrong[0]].any(-1)
        assert rows.all() if cheat.rows else rows.sum() == rows.ravel()[0] == 1


def test_the_probabilities_are_those_of_a_report():
    layers = Detection(layers=3, audited=2)
    assert [c.met(layers) for c in CHEATS] == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3, 2 / 3])
    rows = Detection(layers=3, audited=2, rows=32, audited_rows=8, block=4)
    one = 2 / 3 / 4
    assert [c.met(rows) for c in CHEATS] == pytest.approx([one, one, 7 / 16, 2 / 3, one])


def test_cases_are_known_by_name():
    with pytest.raises(ValueError, match="no cases"):
        next(audit.rows(True, only=["GPT"]))
