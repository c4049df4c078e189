"""Every way to be wrong, by name, with the reason that it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.runs import (
    ACCEPT,
    FUNCTIONS,
    INDETERMINATE,
    REJECT,
    WIDTH,
    Run,
    W,
    honest,
    one_step,
    put,
)
from verifiable.errors import Rejected, Undecided, VerificationError
from verifiable.report import REASONS, Report, Verdict
from verifiable.trace import Trace


@pytest.mark.parametrize("name", FUNCTIONS)
def test_honest_runs_are_accepted(name: str):
    run = honest(name)
    assert len(run.claims) >= 1
    report = run.check(run.y, Trace(values=run.claims))
    assert (report.verdict, report.reason, report.claim) == (ACCEPT, "ok", None), report
    assert report.worst <= 1
    assert all(r.verdict is ACCEPT and r.reason == "ok" for r in report.results)
    assert [r.name for r in report.results][: len(run.claims)] == [
        c.name for c in run.program.claims
    ]
    # The canonical answer is the verifier's own.
    for mine, theirs in zip(jax.tree.leaves(report.y), jax.tree.leaves(run.y), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    report.require()


# ------------------------------------------------------------------------------------ the cheats

Answer = tuple[Any, Any]  # y and trace


@dataclass(frozen=True)
class Cheat:
    """A dishonest run by name: what is sent in place of an honest one, and what comes of it."""

    name: str
    of: str
    reason: str
    tamper: Callable[[Run], Answer | tuple[Any, Any, Any]]
    verdict: Verdict = REJECT
    claim: str | None = None


def claim(index: int, position: Any, value: Any) -> Callable[[Run], Answer]:
    """One element of one claim."""

    def tamper(run: Run) -> Answer:
        claims = list(run.claims)
        claims[index] = put(claims[index], position, value)
        return run.y, claims

    return tamper


def claims(change: Callable[[tuple[Any, ...]], Any]) -> Callable[[Run], Answer]:
    return lambda run: (run.y, change(run.claims))


def output(change: Callable[[Any], Any]) -> Callable[[Run], Answer]:
    return lambda run: (change(run.y), run.claims)


def branch_not_taken(run: Run) -> Answer:
    """Values where the other branch's claim should be zero."""
    taken = [bool(np.any(c)) for c in run.claims]
    assert sorted(taken) == [False, True]
    return run.y, [
        c if t else put(c, (3, 5), 1e-30) for c, t in zip(run.claims, taken, strict=True)
    ]


def other_branch(run: Run) -> Answer:
    """The claims of the wrong branch, and its output."""
    p, x = FUNCTIONS["branching"][1], run.inputs[0]
    wrong = np.asarray((x + 1) @ p.T if run.claims[0].any() else x @ p)
    return wrong, [np.zeros_like(c) if c.any() else wrong for c in run.claims]


def nonfinite_input(run: Run) -> tuple[Any, Any, Any]:
    """Honest on a job whose input is not finite: nobody's fault, so nothing is shown."""
    inputs = (run.inputs[0].at[3, 7].set(jnp.inf), *run.inputs[1:])
    y, trace = jax.jit(run.program.execute)(FUNCTIONS["dense"][1], *inputs)
    return y, trace, inputs


def nonfinite_logarithm(run: Run) -> tuple[Any, Any, Any]:
    inputs = (run.inputs[0].at[0, 0].set(2e3),)
    y, trace = jax.jit(run.program.execute)(FUNCTIONS["logarithm"][1], *inputs)
    assert np.isnan(y).any()
    return y, trace, inputs


def trips(number: int, *, honest: bool) -> Callable[[Run], tuple[Any, Any, Any]]:
    def tamper(run: Run) -> tuple[Any, Any, Any]:
        inputs = (run.inputs[0], jnp.int32(number))
        if number > 1000:  # a device that sends something instead of running for ever
            return run.y, run.claims, inputs
        y, trace = jax.device_get(jax.jit(run.program.execute)(W, *inputs))
        if honest:
            return y, trace, inputs
        return one_step(y), [one_step(trace.values[0])], inputs

    return tamper


CHEATS = [
    # The trace as a whole
    Cheat("no trace", "dense", "trace-structure", claims(lambda _: None)),
    Cheat("a trace of text", "dense", "trace-structure", claims(lambda _: "claims")),
    Cheat("a trace by name", "dense", "trace-structure", claims(lambda c: dict(enumerate(c)))),
    Cheat("one array for all", "dense", "trace-structure", claims(lambda c: c[0])),
    Cheat(
        "a claim that is no array",
        "dense",
        "trace-structure",
        claims(lambda c: (c[0], c[1].tolist())),
        claim="dot_general.2",
    ),
    Cheat(
        "a claim that is missing within",
        "dense",
        "trace-structure",
        claims(lambda c: (None, c[1])),
        claim="dot_general",
    ),
    Cheat("an empty trace", "dense", "claim-missing", claims(lambda _: ())),
    Cheat("the last claim missing", "dense", "claim-missing", claims(lambda c: c[:-1])),
    Cheat("the first claim missing", "dense", "claim-missing", claims(lambda c: c[1:])),
    Cheat("one claim more", "dense", "claim-extra", claims(lambda c: (*c, c[-1]))),
    Cheat("every claim twice", "dense", "claim-extra", claims(lambda c: c * 2)),
    Cheat(
        "claims in another order",
        "dense",
        "claim-reordered",
        claims(lambda c: c[::-1]),
        claim="dot_general",
    ),
    Cheat(
        "a claim transposed",
        "dense",
        "claim-shape",
        claims(lambda c: (c[0], c[1].T)),
        claim="dot_general.2",
    ),
    Cheat("a claim cut short", "dense", "claim-shape", claims(lambda c: (c[0][:-1], c[1]))),
    Cheat("a claim of one more axis", "dense", "claim-shape", claims(lambda c: (c[0][None], c[1]))),
    Cheat(
        "a claim of another type",
        "dense",
        "claim-dtype",
        claims(lambda c: (c[0], c[1].astype(np.float64))),
        claim="dot_general.2",
    ),
    Cheat(
        "the same bytes as integers",
        "dense",
        "claim-dtype",
        claims(lambda c: (c[0].view(np.int32), c[1])),
    ),
    Cheat(
        "another byte order",
        "dense",
        "claim-dtype",
        claims(lambda c: (c[0].astype(">f4"), c[1])),
    ),
    Cheat(
        "a claim of objects",
        "dense",
        "claim-dtype",
        claims(lambda c: (c[0].astype(object), c[1])),
    ),
    # Its values
    Cheat(
        "one NaN",
        "dense",
        "claim-nonfinite",
        claim(1, (7, 9), np.nan),
        claim="dot_general.2",
    ),
    Cheat("one infinity", "dense", "claim-nonfinite", claim(0, (31, 0), -np.inf), REJECT),
    Cheat("all NaN", "dense", "claim-nonfinite", claims(lambda c: [x * np.nan for x in c])),
    Cheat(
        "one element",
        "dense",
        "claim-mismatch",
        claim(0, (5, 5), 3.0),
        claim="dot_general",
    ),
    Cheat(
        "the last claim only",
        "dense",
        "claim-mismatch",
        claims(lambda c: (c[0], one_step(c[1]))),
        claim="dot_general.2",
    ),
    Cheat("scaled", "dense", "claim-mismatch", claims(lambda c: [x * 1.01 for x in c])),
    Cheat("all zero", "dense", "claim-mismatch", claims(lambda c: [x * 0 for x in c])),
    Cheat("signs flipped", "dense", "claim-mismatch", claims(lambda c: [-x for x in c])),
    Cheat("rows permuted", "dense", "claim-mismatch", claims(lambda c: [x[::-1] for x in c])),
    Cheat(
        "one trip of a scan",
        "scanned",
        "claim-mismatch",
        claims(lambda c: (put(c[0], (1, 4, 4), 3.0),)),
    ),
    Cheat("trips in another order", "scanned", "claim-mismatch", claims(lambda c: (c[0][::-1],))),
    Cheat("one more, exactly", "quantised", "claim-mismatch", claims(lambda c: (one_step(c[0]),))),
    Cheat(
        "an accumulator that cannot be",
        "quantised",
        "claim-range",
        claim(0, (3, 3), WIDTH * 2**14 + 1),
    ),
    Cheat("the smallest integer", "quantised", "claim-range", claim(0, (0, 0), -(2**31))),
    Cheat("something in the other branch", "branching", "claim-untaken", branch_not_taken),
    Cheat(
        "not a number in the other branch",
        "branching",
        "claim-untaken",
        claims(lambda c: [x if x.any() else x * np.nan for x in c]),
    ),
    Cheat("the wrong branch", "branching", "claim-untaken", other_branch),
    Cheat(
        "a rounding off by one",
        "rounding",
        "rounding-mismatch",
        claims(lambda c: (put(c[0], (3, 5), c[0][3, 5] + (1 if c[0][3, 5] < 100 else -1)), c[1])),
        claim="convert_element_type",
    ),
    Cheat(
        "a rounding beyond the clip",
        "rounding",
        "rounding-mismatch",
        claims(lambda c: (put(c[0], (3, 5), -128), c[1])),
        claim="convert_element_type",
    ),
    # The output
    Cheat("no output", "dense", "output-structure", output(lambda _: None)),
    Cheat("an output of text", "dense", "output-structure", output(lambda _: "answer")),
    Cheat(
        "an output more",
        "dense",
        "output-structure",
        output(lambda y: y | {"c": np.zeros(1)}),
    ),
    Cheat("an output fewer", "dense", "output-structure", output(lambda y: {"a": y["a"]})),
    Cheat(
        "a tuple for a list",
        "dense",
        "output-structure",
        output(lambda y: y | {"b": tuple(y["b"])}),
    ),
    Cheat(
        "an output that is no array",
        "dense",
        "output-structure",
        output(lambda y: y | {"b": [y["b"][0], "3"]}),
        claim="output['b'][1]",
    ),
    Cheat(
        "an output of another shape",
        "dense",
        "output-shape",
        output(lambda y: y | {"a": y["a"].T}),
        claim="output['a']",
    ),
    Cheat(
        "an output of another type",
        "dense",
        "output-dtype",
        output(lambda y: y | {"a": y["a"].astype(np.float16)}),
        claim="output['a']",
    ),
    Cheat(
        "an output that is not finite",
        "dense",
        "output-nonfinite",
        output(lambda y: y | {"a": put(y["a"], (2, 2), np.nan)}),
        claim="output['a']",
    ),
    Cheat(
        "a false output with an honest trace",
        "dense",
        "output-mismatch",
        output(lambda y: y | {"a": one_step(y["a"])}),
        claim="output['a']",
    ),
    Cheat(
        "a false sum",
        "dense",
        "output-mismatch",
        output(lambda y: y | {"b": [y["b"][0], y["b"][1] * np.float32(1.01)]}),
        claim="output['b'][1]",
    ),
    Cheat(
        "a false integer",
        "dense",
        "output-mismatch",
        output(lambda y: y | {"b": [put(y["b"][0], 2, 5), y["b"][1]]}),
        claim="output['b'][0]",
    ),
    Cheat(
        "a decision turned round",
        "deciding",
        "decision-mismatch",
        claims(lambda c: [c[0] ^ np.uint8(0xFF), *c[1:]]),
        claim="gt",
    ),
    # What shows nothing
    Cheat(
        "a failure after a choice",
        "choosing",
        "discontinuous-glue",
        lambda run: (one_step(run.y), [one_step(run.claims[0])]),
        INDETERMINATE,
        claim="dot_general",
    ),
    Cheat(
        "an input that is not finite", "dense", "nonfinite-operand", nonfinite_input, INDETERMINATE
    ),
    Cheat(
        "an answer that is not finite",
        "logarithm",
        "nonfinite-output",
        nonfinite_logarithm,
        INDETERMINATE,
        claim="output",
    ),
    Cheat(
        "a loop that is too long",
        "looping",
        "trip-limit",
        trips(60, honest=True),
        INDETERMINATE,
        claim="dot_general",
    ),
    Cheat(
        "a loop that never ends",
        "looping",
        "trip-limit",
        trips(2**31 - 1, honest=True),
        INDETERMINATE,
    ),
    Cheat("a loop just short enough", "looping", "claim-mismatch", trips(50, honest=False)),
    Cheat(
        "the output only, after a choice",
        "choosing",
        "output-mismatch",
        output(one_step),
        claim="output",
    ),
]


def judged(cheat: Cheat) -> Report:
    run = honest(cheat.of)
    return run.check(*cheat.tamper(run))


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_cheats(cheat: Cheat):
    report = judged(cheat)
    assert (report.verdict, report.reason) == (cheat.verdict, cheat.reason), report
    assert cheat.claim is None or report.claim == cheat.claim
    assert not report.worst <= 1 or cheat.verdict is INDETERMINATE
    text = str(report)
    assert text.startswith(f"{cheat.verdict.value}: {cheat.reason}")
    assert len(text) < 5000
    expected = Rejected if cheat.verdict is REJECT else Undecided
    with pytest.raises(expected) as caught:
        report.require()
    assert caught.value.reason == cheat.reason
    assert isinstance(caught.value, VerificationError)


def test_every_reason_is_produced():
    # `test_submission` has cheats with the reasons that `verify` adds to those of `check`, and
    # `test_second_look` has what is ill-conditioned, `test_flips` too many ties, `test_coverage`
    # sizes of groups that the operation does not define, `test_tables` other tables, `test_lookup`
    # other rows, `partial/test_audit` openings and cuts.
    elsewhere = {"commitment-mismatch", "other-program", "other-parameters", "ill-conditioned"}
    elsewhere |= {"decision-ties", "lookup-mismatch", "table-mismatch", "undefined-operand"}
    elsewhere |= {"cut-mismatch", *(r for r in REASONS if r.startswith("opening-"))}
    assert {c.reason for c in CHEATS} | {"ok"} | elsewhere == set(REASONS)
