"""Audits of a part: what they look at is judged as in a whole check, and nothing else is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from tests.helpers.runs import ACCEPT, REJECT, put
from verifiable import challenge, trace
from verifiable.policy import Policy
from verifiable.report import AuditCoverage, Report, Verdict
from verifiable.trace import AuditOpening, AuditPlan

LAYERS, ROWS, WIDTH = 4, 256, 64  # a leaf for each claim and iteration
POLICY = Policy(draws=4)
RNG = np.random.default_rng(5)
P = jnp.asarray(RNG.standard_normal((LAYERS, 2, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)


def scaled(x: Any) -> Any:
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def block(p: Any, x: Any) -> Any:
    return x + jnp.tanh(scaled(x) @ p[0]) @ p[1]


def residual(p: Any, x: Any) -> Any:
    """A residual stream over the iterations of a scan, and a product after them."""
    carry = lax.scan(lambda c, w: (block(w, c), None), x, p)[0]
    return (scaled(carry) @ p[0, 0])[:, :8]


def scopes(p: Any, x: Any) -> Any:
    """The same layers without a scan, by the names of their scopes."""
    for i in range(LAYERS):
        with jax.named_scope(f"block_{i}"):
            x = block(p[i], x)
    return scaled(x)


@dataclass(frozen=True)
class Honest:
    """A program with its key, and the run of an honest device."""

    program: vf.Program
    key: vf.VerifierKey
    y: Any
    values: tuple[np.ndarray, ...]

    def plan(self, *layers: int) -> AuditPlan:
        """A plan that chose these layers."""
        for i in range(1000):
            plan = self.program.audit_plan(seed(i), layers=len(layers))
            if plan.layers == layers:
                return plan
        raise AssertionError("no seed chooses these layers")

    def audit(self, plan: AuditPlan, y: Any = None, values: Any = None, **how: Any) -> Report:
        """The report on a run of a device that opens what it is asked for."""
        y = self.y if y is None else y
        values = self.values if values is None else values
        committed = trace.commit(y, trace.Trace(values=tuple(values)))
        given = {"commitment": committed.commitment, "opening": committed.open(plan)} | how
        return self.program.audit(self.key, X, plan=plan, **given)


def seed(i: int) -> bytes:
    return i.to_bytes(32, "little")


@functools.cache
def honest(name: str) -> Honest:
    fn = {"residual": residual, "cuts": residual, "scopes": scopes}[name]
    program = vf.compile(fn, P, X, policy=POLICY, cuts=name == "cuts")
    submission = jax.device_get(program.prove(P, X))
    key = program.setup(P, challenge.secret(bytes(32)))
    return Honest(program, key, submission.y, submission.trace.values)


@pytest.mark.optimised
@pytest.mark.parametrize("name", ["residual", "cuts", "scopes"])
def test_honest_runs_are_accepted(name: str):
    run = honest(name)
    names = [*(c.name for c in run.program.claims), "output"]
    worst = dict.fromkeys(names, 1.0)
    if name == "cuts":
        whole = run.program.check(run.key, X, y=run.y, trace=trace.Trace(values=run.values))
        worst = {r.name: r.worst * 1.01 for r in whole.results}
    for layers in [(0,), (1, 2)] if name == "scopes" else [(0,), (LAYERS - 1,), (1, 2)]:
        plan = run.plan(*layers)
        report = run.audit(plan)
        assert (report.verdict, report.reason) == (ACCEPT, "ok"), report
        np.testing.assert_allclose(report.y, run.y, rtol=1e-4, atol=1e-5)
        assert all(r.worst <= worst[r.name] for r in report.results)
        if name != "scopes":
            inside = [c.name for c in run.program.claims if c.trips]
            assert {r.trip for r in report.results if r.name in inside} <= set(layers)
        assert isinstance(report.coverage, AuditCoverage)
        assert report.coverage.layers == plan.names
        assert (len(report.results) < len(names)) == (name == "scopes")
        assert report.detection is not None
        assert report.detection.choosing == len(layers) / LAYERS
        assert report.detection.lazy(1.0) == 1.0
        assert f"audited {', '.join(plan.names)}" in str(report)
        assert report.to_dict()["detection"]["audited"] == len(layers)


def test_one_compiled_audit_serves_all_plans_of_a_size():
    run = honest("cuts")
    compiled = run.program._compiled_audit
    for layers in range(1, 3):
        before = compiled._base._cache_size()
        for i in range(3):
            assert run.audit(run.program.audit_plan(seed(i), layers=layers)).verdict is ACCEPT
        assert compiled._base._cache_size() <= before + 1


def test_a_cut_in_place_of_all_claims_before():
    """Without cuts, the claims that enter the stream are opened in every iteration."""
    plain, cut = honest("residual"), honest("cuts")
    assert plain.program.id != cut.program.id
    tensors = [
        {run.program.layout.rows_of(i).tensor for i in plan.leaves}
        for run, plan in ((plain, plain.plan(3)), (cut, cut.plan(3)))
    ]
    assert tensors == [{0, 1, 2, 3}, {0, 1, 2, 3, 4}]
    # Two claims of the layer, the second one of all others; a head and the output of one leaf each.
    assert len(plain.plan(0).leaves) == len(plain.plan(3).leaves) == 2 + 3 + 2
    # The claims and the cut of a layer, the cut before it and the last; the same.
    assert len(cut.plan(0).leaves) == 3 + 1 + 2
    assert len(cut.plan(2).leaves) == 3 + 2 + 2
    assert len(cut.plan(3).leaves) == 3 + 1 + 2
    # The first carry is the verifier's own.
    assert cut.program.layout.leaf(2, 0) not in cut.plan(3).leaves


# ------------------------------------------------------------------------------------ the cheats


@dataclass(frozen=True)
class AuditCheat:
    """A run that differs from an honest one in one place, and what an audit of a layer says."""

    name: str
    of: str
    tensor: int  # -1 is the output
    place: tuple[int, ...]
    audited: tuple[int, ...]
    reason: str
    claim: str | None = None
    trip: int = 0


CHEATS = [
    AuditCheat(
        "a unit of an audited layer",
        "residual",
        0,
        (2, 9, 3),
        (2,),
        "claim-mismatch",
        "dot_general",
        2,
    ),
    AuditCheat("a unit of another layer", "residual", 0, (2, 9, 3), (1,), "ok"),
    AuditCheat(
        "a unit of an audited layer, with cuts", "cuts", 1, (1, 0, 0), (1, 3), "claim-mismatch"
    ),
    AuditCheat("a unit of another layer, with cuts", "cuts", 1, (1, 0, 0), (0, 2), "ok"),
    AuditCheat(
        "the cut that an audited layer passes on",
        "cuts",
        2,
        (1, 5, 5),
        (1,),
        "cut-mismatch",
        None,
        1,
    ),
    AuditCheat(
        "the cut that an audited layer begins with",
        "cuts",
        2,
        (1, 5, 5),
        (2,),
        "claim-mismatch",
        None,
        2,
    ),
    AuditCheat("the cut between two other layers", "cuts", 2, (1, 5, 5), (0, 3), "ok"),
    AuditCheat(
        "the last cut, which the answer follows", "cuts", 2, (3, 5, 5), (0,), "claim-mismatch"
    ),
    AuditCheat("a claim of no layer", "cuts", 3, (7, 7), (0,), "claim-mismatch"),
    AuditCheat("the answer", "cuts", -1, (7, 7), (0,), "output-mismatch", "output"),
    AuditCheat("a unit of an audited scope", "scopes", 4, (9, 3), (2,), "claim-mismatch"),
    AuditCheat("a unit of another scope", "scopes", 4, (9, 3), (1,), "ok"),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_cheats_are_met_where_the_audit_looks(cheat: AuditCheat):
    run = honest(cheat.of)
    values = [*run.values, run.y]
    at = values[cheat.tensor][cheat.place]
    values[cheat.tensor] = put(values[cheat.tensor], cheat.place, at + 3)
    report = run.audit(run.plan(*cheat.audited), values[-1], values[:-1])
    assert (report.verdict, report.reason) == (
        (ACCEPT, "ok") if cheat.reason == "ok" else (REJECT, cheat.reason)
    ), report
    failed = [r for r in report.results if r.verdict is REJECT]
    if cheat.claim is not None:
        assert report.claim == cheat.claim
    if cheat.reason != "ok":
        assert failed[0].trip == cheat.trip or cheat.claim is None


def test_one_wrong_unit_is_met_as_often_as_its_layer_is_drawn():
    run = honest("cuts")
    values = [put(run.values[0], (2, 1, 1), 9.0), *run.values[1:]]
    for i in range(12):
        plan = run.program.audit_plan(seed(i), layers=2)
        report = run.audit(plan, values=values)
        assert (report.verdict is REJECT) == (2 in plan.layers)


# ------------------------------------------------------------------------------- bad openings


def change(
    **fields: Callable[[AuditOpening], Any],
) -> Callable[[Honest, AuditPlan, AuditOpening], Any]:
    def changed(_: Honest, __: AuditPlan, opening: AuditOpening) -> Any:
        return replace(opening, **{name: make(opening) for name, make in fields.items()})

    return changed


def of_other_plan(run: Honest, plan: AuditPlan, *, named: bool) -> AuditOpening:
    """What another seed asks for, as the answer to this one."""
    committed = trace.commit(run.y, trace.Trace(values=run.values))
    other = committed.open(run.plan(1))
    return other if named else replace(other, plan=plan.id)


def of_other_leaves(run: Honest, plan: AuditPlan, opening: AuditOpening) -> AuditOpening:
    """Layer 1, whose leaves have the same sizes, in place of layer 2."""
    del opening
    committed = trace.commit(run.y, trace.Trace(values=run.values))
    layout, leaves = run.program.layout, list(plan.leaves)
    place = leaves.index(layout.leaf(0, 2 * ROWS))
    leaves[place] = layout.leaf(0, ROWS)
    other = committed.open(leaves)
    return AuditOpening(plan=plan.id, leaves=other.leaves, proof=other.proof)


def of_other_tree(run: Honest, plan: AuditPlan, opening: AuditOpening) -> AuditOpening:
    del opening
    values = [one + 1 for one in run.values]
    return trace.commit(run.y, trace.Trace(values=tuple(values))).open(plan)


BAD: dict[str, tuple[str, Callable[[Honest, AuditPlan, AuditOpening], Any]]] = {
    "leaves by index": ("opening-structure", change(leaves=lambda o: dict(enumerate(o.leaves)))),
    "a leaf that is no bytes": (
        "opening-structure",
        change(leaves=lambda o: (None, *o.leaves[1:])),
    ),
    "bytes cut short": ("opening-structure", lambda _, __, o: o.encode()[:-1]),
    "bytes with another header": ("opening-structure", lambda _, __, o: b"x" + o.encode()[1:]),
    "another seed": ("opening-plan", lambda r, p, _: of_other_plan(r, p, named=True)),
    "another seed under this plan": (
        "opening-mismatch",
        lambda r, p, _: of_other_plan(r, p, named=False),
    ),
    "a plan that is no bytes": ("opening-plan", change(plan=lambda _: 7)),
    "a leaf missing": ("opening-missing", change(leaves=lambda o: o.leaves[1:])),
    "a leaf too many": ("opening-extra", change(leaves=lambda o: (*o.leaves, o.leaves[0]))),
    "leaves reordered": ("opening-reordered", change(leaves=lambda o: o.leaves[::-1])),
    "equal leaves swapped": (
        "opening-mismatch",
        change(leaves=lambda o: (o.leaves[1], o.leaves[0], *o.leaves[2:])),
    ),
    "a short leaf": ("opening-leaf", change(leaves=lambda o: (o.leaves[0][:-4], *o.leaves[1:]))),
    "a digest missing": ("opening-proof", change(proof=lambda o: o.proof[1:])),
    "a digest too many": ("opening-proof", change(proof=lambda o: (*o.proof, bytes(32)))),
    "a digest cut short": (
        "opening-proof",
        change(proof=lambda o: (o.proof[0][:31], *o.proof[1:])),
    ),
    "another layer's leaf": ("opening-mismatch", of_other_leaves),
    "another tree": ("opening-mismatch", of_other_tree),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_openings_have_their_reasons(name: str):
    run = honest("cuts")
    plan = run.plan(2)
    committed = trace.commit(run.y, trace.Trace(values=run.values))
    reason, tamper = BAD[name]
    report = run.audit(plan, opening=tamper(run, plan, committed.open(plan)))
    assert (report.verdict, report.reason) == (REJECT, reason), report.message
    assert (report.y, report.results, report.detection) == (None, (), None)


@pytest.mark.parametrize("opening", [None, "text", (), trace.Opening(leaves=(), proof=())])
def test_what_is_no_opening_is_never_held_against_the_device(opening: Any):
    run = honest("cuts")
    with pytest.raises(TypeError, match=r"opening must be .* leave the run undecided"):
        run.audit(run.plan(2), opening=opening)


def test_a_commitment_of_another_size_is_refused():
    run = honest("cuts")
    plan = run.plan(2)
    committed = trace.commit(run.y, trace.Trace(values=run.values))
    other = replace(committed.commitment, size=committed.commitment.size + 1)
    assert run.audit(plan, commitment=other).reason == "opening-mismatch"


def test_bytes_are_the_opening():
    run = honest("cuts")
    plan = run.plan(2)
    opening = trace.commit(run.y, trace.Trace(values=run.values)).open(plan)
    data = opening.encode()
    assert len(data) == plan.nbytes
    assert AuditOpening.decode(data, plan) == opening
    assert run.audit(plan, opening=data).verdict is Verdict.ACCEPT


def test_mistakes_of_the_caller_are_errors():
    run, other = honest("cuts"), honest("residual")
    plan = run.plan(2)
    committed = trace.commit(run.y, trace.Trace(values=run.values))
    for layers in (0, LAYERS + 1, True, 1.0):
        with pytest.raises(ValueError, match="can be audited"):
            run.program.audit_plan(seed(0), layers=layers)
    with pytest.raises(ValueError, match="32 bytes"):
        run.program.audit_plan(bytes(31), layers=1)
    with pytest.raises(ValueError, match="not of this program"):
        run.audit(replace(plan, names=plan.names, layers=(1,)), opening=committed.open(plan))
    with pytest.raises(ValueError, match="not of this program"):
        run.program.audit(
            run.key, X, plan=other.plan(2), commitment=committed.commitment, opening=b""
        )
    with pytest.raises(ValueError, match="another layout"):
        committed.open(other.plan(2))
    with pytest.raises(ValueError, match="the key"):
        run.program.audit(other.key, X, plan=plan, commitment=committed.commitment, opening=b"")
    with pytest.raises(TypeError, match="plan must be"):
        run.program.audit(run.key, X, plan=2, commitment=committed.commitment, opening=b"")  # pyright: ignore[reportArgumentType]
