"""Cheats in choices, ties and trips: a device commits to what is wrong, and goes on with it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from verifiable.testing import forging
from verifiable.testing.cheats import FORGED
from verifiable.testing.workload import Workload

ROWS, WIDTH = 8, 32
RNG = np.random.default_rng(8)
PARAMS = {n: RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 5 for n in ("first", "last")}
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
# Each second column is nearly the one before, so that every choice is near a tie; and so are the
# distances from some numbers.
PARAMS["first"][:, 1::2] = PARAMS["first"][:, ::2] * np.float32(1 + 2e-7)
CENTRE = np.tanh(X @ PARAMS["first"]) * np.float32(1 + 2e-7)
CENTRE[:, 4:] = 0
POLICY = vf.Policy(draws=4, trip_limit=40)


def halved(h: Any) -> Any:
    return lax.while_loop(lambda s: jnp.abs(s).max() > 0.5, lambda s: s * 0.75, h)


PROGRAMS: dict[str, Any] = {
    "signs": lambda h: (h, jnp.sign(h - CENTRE)),
    "largest": lambda h: (h, lax.top_k(h, 3)),
    "least": lambda h: (h, jnp.argmin(h, -1)),
    "each column": lambda h: (h, jnp.argmax(h, 0)),
    "compared": lambda h: (h, h[:, ::2] > h[:, 1::2]),
    "trips": lambda h: (halved(h), ()),
    "trips of each row": lambda h: (jax.vmap(halved)(h), ()),
}


@functools.cache
def work(name: str) -> Workload:
    def fn(p: Any, x: Any) -> Any:
        found, more = PROGRAMS[name](jnp.tanh(x @ p["first"]))
        return found @ p["last"], more

    return Workload.of(vf.compile(fn, PARAMS, X, policy=POLICY), PARAMS, X)


@functools.cache
def key(name: str) -> vf.VerifierKey:
    return work(name).program.setup(PARAMS, vf.challenge.secret(bytes(32)))


def verdict(name: str, answer: Any) -> tuple[vf.Verdict, str]:
    sent = work(name).submit(*answer)
    report = work(name).program.verify(key(name), X, sent, commitment=sent.commitment)
    return report.verdict, report.reason


def differ(name: str, answer: Any) -> set[str]:
    """Kinds of the claims that are not those of an honest run."""
    pairs = zip(
        work(name).program.claims, answer[1].values, work(name).honest.trace.values, strict=True
    )
    return {
        c.equation.kind for c, a, b in pairs if not np.array_equal(np.asarray(a), np.asarray(b))
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_forged_runs_get_the_verdicts_of_the_catalogue(name: str):
    found = [cheat for cheat in FORGED if cheat.applies(work(name).program)]
    assert {cheat.name for cheat in found} >= {"one unit wrong by 16 sigma"}
    for cheat in found:
        sent = cheat.run(work(name))
        assert sent is not None
        report = work(name).program.verify(key(name), X, sent, commitment=sent.commitment)
        assert cheat.problem(work(name), sent, report) is None


@pytest.mark.parametrize("name", ["largest", "least", "each column"])
@pytest.mark.parametrize("seed", [0, 1])
def test_another_element_is_chosen_and_rejected(name: str, seed: int):
    cheat = forging.one_choice(work(name).program)
    assert cheat is not None
    answer = cheat(PARAMS, (X,), seed)
    assert differ(name, answer) & forging.CHOICES
    assert verdict(name, answer) == (vf.Verdict.REJECT, "decision-mismatch")


@pytest.mark.parametrize("name", ["trips", "trips of each row"])
@pytest.mark.parametrize("change", forging.TRIPS)
def test_another_number_of_trips_is_committed_and_rejected(name: str, change: str):
    cheat = forging.other_trips(work(name).program)
    assert cheat is not None
    answer = cheat(PARAMS, (X,), 0, forging.TRIPS[change])
    assert "while" in differ(name, answer)
    assert verdict(name, answer) == (vf.Verdict.REJECT, "decision-mismatch")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_without_choices_or_loops_have_no_such_cheat(name: str):
    compiled = work(name).program
    assert (forging.one_choice(compiled) is None) == (
        name not in ("largest", "least", "each column")
    )
    assert (forging.other_trips(compiled) is None) == ("trips" not in name)


@pytest.mark.parametrize("name", ["signs", "largest", "least", "compared"])
def test_near_ties_are_turned_and_no_reject_follows(name: str):
    answer = forging.TurnedTies(work(name).program)(PARAMS, (X,))
    assert len(differ(name, answer)) == 1
    assert verdict(name, answer)[0] is not vf.Verdict.REJECT
