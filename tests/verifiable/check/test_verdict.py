"""Every way to be wrong, by name, with the reason that it is given; and nothing else accepted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from verifiable import challenge, program
from verifiable.check.outputs import Output, OutputStatistic
from verifiable.check.replay import Findings
from verifiable.check.verdict import judge
from verifiable.claims.statistic import Statistic
from verifiable.errors import Rejected, Undecided, VerificationError
from verifiable.policy import Policy
from verifiable.report import REASONS, Coverage, Report, Verdict
from verifiable.trace import Trace

ACCEPT, REJECT, INDETERMINATE = Verdict.ACCEPT, Verdict.REJECT, Verdict.INDETERMINATE
ROWS, WIDTH = 32, 128
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.standard_normal((WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
SMALL = jnp.asarray(RNG.integers(-128, 128, (WIDTH, WIDTH)), jnp.int8)
# With few draws, products of this size are worth a claim.
POLICY = Policy(draws=4, trip_limit=50)


@dataclass(frozen=True)
class Run:
    """An honest run, as the device sends it."""

    program: program.Program
    key: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    y: Any = field(repr=False)
    claims: tuple[np.ndarray, ...] = field(repr=False)

    def check(self, y: Any, trace: Any, inputs: Any = None) -> Report:
        return self.program.check(
            self.key, *(self.inputs if inputs is None else inputs), y=y, trace=trace
        )


def dense(p: Any, x: Any, n: Any) -> Any:
    """Two claims of different shapes, float outputs and an integer one."""
    hidden = jnp.tanh(x @ p)
    return {"a": hidden @ p[:, :64], "b": [n * 2, hidden.sum()]}


def quantised(p: Any, x: Any) -> Any:
    return lax.dot_general(x, p, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)


def branching(p: Any, x: Any) -> Any:
    return lax.cond(x[0, 0] > 0, lambda: x @ p, lambda: (x + 1) @ p.T)


def choosing(p: Any, x: Any) -> Any:
    return jnp.where(jnp.tanh(x) > 0.3, x, -1.0) @ p


def rounding(p: Any, x: Any) -> Any:
    return quantised(p, jnp.clip(jnp.round(jnp.tanh(x) * 127), -127, 127).astype(jnp.int8))


def looping(p: Any, x: Any, n: Any) -> Any:
    """As many trips as the input says; the policy allows fifty."""
    y = lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 1.01), (0, x))[1]
    return y @ p


def logarithm(p: Any, x: Any) -> Any:
    """Not finite on some inputs, after all claims."""
    return jnp.log((x @ p) - 1e6 * (x[0, 0] > 1e3))


def scanned(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, p)[0]


FUNCTIONS: dict[str, tuple[Callable[..., Any], Any, tuple[Any, ...]]] = {
    "dense": (dense, W, (X, jnp.arange(5))),
    "quantised": (quantised, SMALL, (SMALL[:ROWS],)),
    "branching": (branching, W, (X,)),
    "choosing": (choosing, W, (X,)),
    "rounding": (rounding, SMALL, (X,)),
    "looping": (looping, W, (X, jnp.int32(5))),
    "logarithm": (logarithm, jnp.abs(W), (jnp.abs(X),)),
    "scanned": (scanned, jnp.stack([W, W.T, -W]), (X,)),
}


@functools.cache
def honest(name: str) -> Run:
    fn, params, inputs = FUNCTIONS[name]
    compiled = program.compile(fn, params, *inputs, policy=POLICY)
    y, trace = jax.device_get(jax.jit(compiled.execute)(params, *inputs))
    key = compiled.setup(params, challenge.secret(bytes(range(32))))
    return Run(compiled, key, inputs, y, trace.values)


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


def put(array: Any, position: Any, value: Any) -> np.ndarray:
    changed = np.array(array)
    changed[position] = value
    return changed


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


def one_step(array: Any) -> np.ndarray:
    """Another value than any tolerance allows, in one element."""
    return put(array, (4, 4), np.asarray(array)[4, 4] + 1)


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
    # `test_submission` has cheats with the reasons that `verify` adds to those of `check`.
    verify = {"commitment-mismatch", "other-program", "other-parameters"}
    assert {c.reason for c in CHEATS} | {"ok"} | verify == set(REASONS)


HOSTILE: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "not a number": np.nan,
    "text": "x" * 10_000,
    "bytes": b"\0" * 100,
    "a set": {1, 2},
    "keys that cannot be sorted": {1: np.zeros(1), "a": np.zeros(1)},
    "a function": len,
    "a class": np.ndarray,
    "an object": object(),
    "a generator": (i for i in range(3)),
    "an array": np.zeros((ROWS, WIDTH), np.float32),
    "a scalar": np.float32(1),
    "a masked array": np.ma.masked_array(np.zeros((ROWS, WIDTH), np.float32), True),
    "objects": np.array([None, "a"], object),
    "text as an array": np.array(["a"]),
    "records": np.zeros(2, [("a", "f4"), ("b", "i8")]),
    "times": np.zeros(2, "datetime64[s]"),
    "an empty array": np.zeros((0, WIDTH), np.float32),
    "a list of lists": [[np.zeros(1)]],
    "a long list": [np.zeros((), np.float32)] * 10_000,
    "a key": jax.random.key(0),
    "a shape": jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32),
    "a trace of nothing": Trace(values=None),  # type: ignore[arg-type]
    "a trace of a trace": Trace(values=(Trace(values=()), Trace(values=()))),
}


@pytest.mark.parametrize("thing", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("place", ["trace", "claim", "output", "leaf"])
def test_whatever_a_device_sends_is_a_rejection_and_never_an_exception(place: str, thing: Any):
    run = honest("dense")
    y, trace = run.y, run.claims
    if place == "trace":
        trace = thing
    elif place == "claim":
        trace = (run.claims[0], thing)
    elif place == "output":
        y = thing
    else:
        y = run.y | {"a": thing}
    report = run.check(y, trace)
    assert report.verdict is REJECT, report
    kind = "output-" if place in ("output", "leaf") else ("trace-", "claim-")
    assert report.reason.startswith(kind)
    assert report.y is None
    assert len(str(report)) < 5000


@pytest.mark.parametrize("depth", [100, 5_000, 50_000])
def test_a_nest_is_no_way_to_crash_the_verifier(depth: int):
    run = honest("dense")
    nest: Any = run.y["a"]
    for _ in range(depth):
        nest = [nest]
    for y, trace in ((nest, run.claims), (run.y, nest), (run.y | {"a": nest}, run.claims)):
        report = run.check(y, trace)
        assert report.verdict is REJECT
        assert report.reason in ("output-structure", "trace-structure", "claim-missing")
        assert len(str(report)) < 5000


def test_layouts_of_memory_do_not_matter():
    """Fortran order and strides are no part of a value."""
    run = honest("dense")
    strided = [np.repeat(c, 2, axis=0)[::2] for c in run.claims]
    for trace in (
        strided,
        [np.asfortranarray(c) for c in run.claims],
        list(map(jnp.asarray, strided)),
    ):
        assert run.check(run.y, trace).verdict is ACCEPT


def test_a_trace_may_be_read_from_a_file(tmp_path: Path):
    """How a coordinator holds a large trace is no fault of the device."""
    run = honest("dense")
    trace = []
    for i, c in enumerate(run.claims):
        c.tofile(tmp_path / str(i))
        trace.append(np.memmap(tmp_path / str(i), c.dtype, "r", shape=c.shape))
    assert run.check(run.y, trace).verdict is ACCEPT


def test_the_callers_mistakes_are_not_the_devices():
    run = honest("dense")
    x, n = run.inputs
    for inputs in ((x,), (x, n, n), (n, x), (x[1:], n), (x.astype(jnp.bfloat16), n), (x, n[None])):
        with pytest.raises(ValueError, match="inputs"):
            run.check(run.y, run.claims, inputs)
    for inputs in (([x], n), ({"x": x}, n)):
        with pytest.raises((TypeError, ValueError), match="inputs"):
            run.check(run.y, run.claims, inputs)


def test_a_deleted_array_is_no_array():
    run = honest("dense")
    gone = jnp.asarray(run.claims[0])
    gone.delete()
    report = run.check(run.y, (gone, run.claims[1]))
    assert (report.verdict, report.reason) == (REJECT, "trace-structure")


# ---------------------------------------------------------- what discontinuous glue may explain


def test_a_rejection_before_the_glue_stands():
    """A cheat cannot hide behind a rounding that comes later, nor behind one beside it."""

    def fn(p: Any, x: Any) -> Any:
        first = x @ p
        return jnp.where(jnp.tanh(first) > 0.3, x, -1.0) @ p

    compiled = program.compile(fn, W, X, policy=POLICY)
    assert [bool(c.discontinuities) for c in compiled.claims] == [False, True]
    y, trace = jax.device_get(jax.jit(compiled.execute)(W, X))
    key = compiled.setup(W, challenge.secret(bytes(range(32))))
    report = compiled.check(key, X, y=y, trace=[one_step(trace.values[0]), trace.values[1]])
    assert (report.verdict, report.reason) == (REJECT, "claim-mismatch")
    assert report.claim == compiled.claims[0].name


def test_no_glue_explains_what_no_accumulator_can_reach():
    """Not even an operand that stands behind a choice."""

    def fn(p: Any, x: Any) -> Any:
        return quantised(p, jnp.where(jnp.tanh(x) > 0.3, jnp.int8(100), jnp.int8(-7)))

    compiled = program.compile(fn, SMALL, X, policy=POLICY)
    [only] = compiled.claims
    assert only.discontinuities
    y, _ = jax.device_get(jax.jit(compiled.execute)(SMALL, X))
    key = compiled.setup(SMALL, challenge.secret(bytes(range(32))))
    for change, expected in (
        (0, (ACCEPT, "ok")),
        (1, (INDETERMINATE, "discontinuous-glue")),
        (2**30, (REJECT, "claim-range")),
    ):
        wrong = put(y, (3, 3), y[3, 3] + change)
        report = compiled.check(key, X, y=wrong, trace=[wrong])
        assert (report.verdict, report.reason) == expected


@pytest.mark.parametrize(
    ("before", "glue"),
    [
        (lambda x: jnp.sign(x * 3), {"sign"}),
        (lambda x: jnp.round(x * 3), set()),  # a claim of its own
        (jnp.round, set()),  # the input has the same bits everywhere
        (lambda x: jnp.sign(lax.atan2(x, -x) * 1.0), {"atan2", "sign"}),
        (lambda x: lax.atan2(x, -x), {"atan2"}),
        (lambda x: (lax.linalg.lu(x[:, :ROWS])[0][:, :1] > 0) * x, {"lu"}),
        (lambda x: x[jnp.argsort(jnp.sin(x[:, 0]))], {"sort"}),
        (lambda x: jnp.sin(x) * (jnp.cos(x) > 0.5), {"gt"}),
        (lambda x: jnp.tanh(x).astype(jnp.bfloat16).astype(jnp.float32), set()),
        (lambda x: jax.nn.one_hot(jnp.argmax(jnp.sin(x), -1), WIDTH), {"argmax"}),
        (lambda x: lax.cond(jnp.sin(x).sum() > 0, lambda: x, lambda: -x), {"gt"}),
        (lambda x: jax.nn.softmax(jnp.sin(x)), set()),
        (lambda x: jnp.maximum(jnp.sin(x), 0), set()),
    ],
    ids=lambda v: "+".join(sorted(v)) or "none" if isinstance(v, set) else "",
)
def test_taint(before: Callable[[Any], Any], glue: set[str]):
    """What honest devices may compute differently is marked, and nothing else."""
    compiled = program.compile(lambda p, x: before(x) @ p, W, X, policy=POLICY)
    only = compiled.claims[-1]
    found = {name.rpartition("/")[2] for name in only.discontinuities}
    assert found >= glue
    assert bool(found) == bool(glue)
    assert set(only.discontinuities) <= set(compiled.coverage.discontinuities)


# ------------------------------------------------------------------------- the judge by himself


def statistic(**changes: Any) -> Statistic:
    fine: dict[str, Any] = {
        "worst": 0.5,
        "row": 0,
        "passed": True,
        "finite_claim": True,
        "in_range": True,
        "finite_operands": True,
    }
    return Statistic(**{k: np.asarray(v) for k, v in (fine | changes).items()})


def measured(**changes: Any) -> OutputStatistic:
    fine: dict[str, Any] = {"worst": 0.5, "row": 0, "finite": True, "own_finite": True}
    return OutputStatistic(**{k: np.asarray(v) for k, v in (fine | changes).items()})


def a_claim(index: int, glue: Sequence[str] = (), loops: Sequence[str] = ()) -> Any:
    return SimpleNamespace(
        index=index,
        name=f"c{index}",
        discontinuities=frozenset(glue),
        loops=frozenset(loops),
        group=index,
        form=SimpleNamespace(mismatch="claim-mismatch"),
    )


NONE: frozenset[str] = frozenset()
NOTHING = Coverage(checked=0, replayed=0)
bits = st.booleans()
worst = st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 5.0, np.inf, np.nan])
statistics = st.builds(
    statistic, worst=worst, passed=bits, finite_claim=bits, in_range=bits, finite_operands=bits
)


@given(
    st.lists(st.tuples(statistics, bits, bits, bits), max_size=3),
    st.lists(st.tuples(st.builds(measured, worst=worst, finite=bits, own_finite=bits), bits)),
    bits,
)
@settings(max_examples=300, deadline=None)
def test_only_a_run_that_passed_everything_is_accepted(
    found: list[Any], outputs: list[Any], stopped: bool
):
    claims = [
        a_claim(i, ["round"] * glue, ["while"] * loop) for i, (_, _, glue, loop) in enumerate(found)
    ]
    findings = Findings(
        statistics={i: s for i, (s, *_) in enumerate(found)},
        taken={i: np.asarray(taken) for i, (_, taken, *_) in enumerate(found)},
        stopped={"while": np.asarray(stopped)},
        outputs={i: s for i, (s, _) in enumerate(outputs)},
    )
    leaves = [
        Output(
            name=f"o{i}", eps_types=NONE, discontinuities=frozenset(["round"] * glue), loops=NONE
        )
        for i, (_, glue) in enumerate(outputs)
    ]
    report = judge(findings, claims, leaves, coverage=NOTHING, bound=None)
    verdict, reason, name, results = report.verdict, report.reason, report.claim, report.results
    everything = [
        s.passed & s.finite_claim & s.in_range & s.finite_operands & (s.worst <= 1)
        for s, *_ in found
    ] + [o.finite & o.own_finite & (o.worst <= 1) for o, _ in outputs]
    assert (verdict is ACCEPT) == (all(everything) and not stopped)
    assert reason in REASONS
    assert (reason == "ok") == (verdict is ACCEPT)
    assert [r.name for r in results] == [c.name for c in claims] + [leaf.name for leaf in leaves]
    for result, passed in zip(results, everything, strict=True):
        assert (result.verdict is ACCEPT) == bool(passed)
    if verdict is REJECT:
        assert any(r.verdict is REJECT and (r.name, r.reason) == (name, reason) for r in results)
    elif verdict is INDETERMINATE:
        assert not any(r.verdict is REJECT for r in results)


def test_a_rejection_counts_more_than_what_is_open():
    claims = [a_claim(0, ["round"]), a_claim(1), a_claim(2)]
    findings = Findings(
        statistics={
            0: statistic(passed=False),
            1: statistic(finite_operands=False),
            2: statistic(finite_claim=False),
        },
        taken=dict.fromkeys(range(3), np.True_),
        stopped={},
        outputs={},
    )
    report = judge(findings, claims, [], coverage=NOTHING, bound=None)
    assert (report.verdict, report.reason, report.claim) == (REJECT, "claim-nonfinite", "c2")
    assert [(r.verdict, r.reason) for r in report.results[:2]] == [
        (INDETERMINATE, "discontinuous-glue"),
        (INDETERMINATE, "nonfinite-operand"),
    ]


def test_the_failing_trip_and_row_are_named():
    stacked = statistic(
        worst=[0.1, 7.0, 0.2],
        row=[4, 5, 6],
        passed=[True, False, True],
        finite_claim=[True] * 3,
        in_range=[True] * 3,
        finite_operands=[True] * 3,
    )
    findings = Findings({0: stacked}, {0: np.ones(3, bool)}, {}, {})
    [result] = judge(findings, [a_claim(0)], [], coverage=NOTHING, bound=None).results
    assert (result.worst, result.row, result.trip) == (7.0, 5, 1)


def test_nothing_to_check_is_a_pass_of_nothing():
    report = judge(Findings({}, {}, {}, {}), [], [], coverage=NOTHING, bound=None)
    assert (report.verdict, report.reason, report.claim) == (ACCEPT, "ok", None)
    assert (report.results, report.worst) == ((), 0.0)
