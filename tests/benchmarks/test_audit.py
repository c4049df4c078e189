"""The cheats of the benchmark of audits are wrong where they say."""

import functools

import pytest

from benchmarks import audit
from verifiable import program
from verifiable.jaxpr.effects import CUT
from verifiable.report import Detection


@functools.cache
def forging(cuts: bool) -> audit.Forging:
    model = audit.small_decoder()
    compiled = program.compile(model.fn, model.params, *model.inputs, cuts=cuts)
    return audit.Forging(compiled=compiled)


def test_a_cheat_is_wrong_in_the_layers_that_it_says():
    found = {c.name: forging(True).places(c) for c in audit.CHEATS}
    trips = {name: [trip for _, trip in places] for name, places in found.items()}
    assert trips == {
        "one unit": [1],
        "a token's values in one layer": [1],
        "a token's values in all layers": [0, 1, 2],
        "one unit in half of the layers": [0],
        "a cut": [1],
    }
    assert {c.primitive for c, _ in found["a cut"]} == {CUT}
    assert {c.output.shape for c, _ in found["a token's values in all layers"]} == {(32, 64)}
    assert [c for c in audit.CHEATS if not forging(False).places(c)] == [audit.CHEATS[-1]]


def test_the_probabilities_are_those_of_a_report():
    stated = [c.met(Detection(layers=3, audited=2)) for c in audit.CHEATS]
    assert stated == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3, 2 / 3])
