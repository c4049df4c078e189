"""Evidence: a judge without key or challenge convicts what is wrong, and nobody is framed."""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import verifiable as vf
from tests.helpers import accusations
from tests.helpers.runs import REJECT, SMALL, put, quantised, reinterpreted
from verifiable import challenge, trace
from verifiable.check import execute
from verifiable.check.judging import evidence
from verifiable.check.judging.accused import Accused, accused_of
from verifiable.check.judging.evidence import Evidence, evidence_of, verify_evidence
from verifiable.check.judging.spread import distances
from verifiable.check.specification import Target
from verifiable.claims.products import freivalds
from verifiable.claims.statistic import Deviation
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding, Misnamed, VerificationError
from verifiable.jaxpr import interpret
from verifiable.jaxpr.perturb import Noise, in_float64
from verifiable.policy import Policy
from verifiable.report import Verdict

WIDTH, ROWS = 64, 8
POLICY = Policy(draws=4)
RNG = np.random.default_rng(11)
W = jnp.asarray(RNG.standard_normal((3, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)


def normalized(x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def layers(w: Any, x: Any) -> Any:
    return normalized(jnp.tanh(normalized(x) @ w[0]) @ w[1])


def scanned(w: Any, x: Any) -> Any:
    return lax.scan(lambda c, u: (jnp.tanh(normalized(c) @ u), None), x, w)[0]


def rounded(w: Any, x: Any) -> Any:
    narrow = jnp.clip(jnp.round(jnp.tanh(x) * 127), -127, 127).astype(jnp.int8)
    return quantised(SMALL[:WIDTH, :WIDTH], narrow).astype(jnp.float32) + w[0, 0]


def dequantised(w: Any, x: Any) -> Any:
    """Weights that both sides compute from the parameters."""
    return jnp.sin(x) @ (jnp.exp(w[0]) - 1) @ w[1]


def branching(w: Any, x: Any) -> Any:
    return lax.cond(w[0, 0, 0] > 0, lambda: jnp.sin(x) @ w[0], lambda: jnp.cos(x) @ w[1])


PROGRAMS = {
    "layers": layers,
    "scanned": scanned,
    "rounded": rounded,
    "dequantised": dequantised,
    "branching": branching,
}


@functools.cache
def made(name: str) -> tuple[vf.Program, vf.VerifierKey, vf.Submission]:
    program = vf.compile(PROGRAMS[name], W, X, policy=POLICY)
    key = program.setup(W, challenge.secret(bytes(32)))
    return program, key, jax.device_get(program.prove(W, X))


@functools.cache
def judge_of(name: str) -> vf.Program:
    """The program as somebody else has compiled it."""
    return vf.compile(PROGRAMS[name], W, X, policy=POLICY)


def submitted(program: vf.Program, y: Any, values: Any) -> vf.Submission:
    """A cheat's submission: committed to as it is."""
    claimed = trace.Trace(values=tuple(values))
    return vf.Submission(
        y=y,
        trace=claimed,
        commitment=trace.commit(y, claimed).commitment,
        program=program.id,
        parameters=vf.parameter_root(W),
    )


def accused(name: str, output: bool, index: int, row: int, trip: int = 0) -> Evidence:
    """Evidence against an honest run, made without a report."""
    program, _, honest = made(name)
    return against(honest, index, row, program=program, output=output, trip=trip)


def against(
    run: vf.Submission,
    index: int,
    row: int,
    *,
    program: vf.Program | None = None,
    output: bool = False,
    trip: int = 0,
) -> Evidence:
    """Evidence against any run, by default of the program `layers`."""
    own = program or made("layers")[0]
    return accusations.against(own, run, index=index, row=row, output=output, trip=trip)


CHEATS = [  # program, index of the claim, or of the output if negative; position; change
    ("layers", 0, (3, 5), 0.05),
    ("layers", 1, (7, 0), 0.05),
    ("layers", -1, (2, 2), 0.1),
    ("scanned", 0, (2, 4, 1), 0.05),
    ("rounded", 0, (1, 1), 5),
    ("rounded", 1, (6, 9), 1),
    ("dequantised", 0, (0, 0), 0.05),
    ("branching", 0, (4, 4), 0.05),
]


@pytest.mark.parametrize(("name", "index", "position", "change"), CHEATS)
def test_what_was_rejected_is_convicted(name: str, index: int, position: Any, change: Any):
    program, key, honest = made(name)
    y, values = honest.y, list(honest.trace.values)
    if index < 0:
        y = put(y, position, y[position] + change)
    else:
        if name == "branching" and not np.any(values[index]):
            index += 1  # the branch that was taken
        values[index] = put(values[index], position, values[index][position] + change)
    cheat = submitted(program, y, values)
    report = program.verify(key, X, cheat, commitment=cheat.commitment)
    assert report.verdict is REJECT
    with pytest.raises(ValueError, match="not what its commitment binds"):
        evidence_of(program, report, replace(cheat, y=cheat.y + 1))
    sent = evidence_of(program, report, cheat).encode()
    judge = judge_of(name)
    received = Evidence.decode(sent, judge)
    assert received.encode() == sent
    found = verify_evidence(received, judge, W, X)
    assert found.guilty, found
    if index < 0:
        assert found == verify_evidence(received, judge, W, X)  # no randomness of its own
    assert (received.output, received.row) == (index < 0, position[-2])


@pytest.mark.parametrize(("output", "trip", "row"), [(False, 2, 5), (True, 0, 6)])
def test_a_judge_draws_from_what_the_evidence_binds_and_measures_the_whole_row(
    output: bool, trip: int, row: int, monkeypatch: pytest.MonkeyPatch
):
    """As specs/evidence.md says, section 3: all judges draw the same, and find as much."""
    drawn: list[tuple[Any, ...]] = []

    def recorded(*parts: Any) -> bytes:
        drawn.append(parts)
        return tagged_hash(*parts)

    perturbed, replays = Accused.perturbed.func, list[tuple[Any, ...]]()

    def replayed(self: Accused) -> Any:
        run = perturbed(self)

        def replay(arguments: Any, given: Any, vectors: Any, seed: Any, *sizes: Any) -> Any:
            found = np.asarray(run(arguments, given, vectors, seed, *sizes))
            replays.append((arguments, given, vectors, int(seed), float(max(sizes)), found))
            return found

        return replay

    monkeypatch.setattr(evidence, "tagged_hash", recorded)
    monkeypatch.setattr(Accused, "perturbed", property(replayed))
    program, _, honest = made("scanned")
    y, values = honest.y + (0.1 if output else 0), [v + 0.1 for v in honest.trace.values]
    run = submitted(program, y, values)
    found = against(run, 0, row, program=program, output=output, trip=trip)
    judgement = verify_evidence(found, program, W, X)
    assert judgement.guilty
    place = struct.pack(">IQQ", 0, trip, row)
    parts = ("evidence", run.commitment.root, program.id, bytes([output]), place)
    assert parts in drawn
    own = tagged_hash(*parts)
    [*_, plain], *noisy = replays
    first, seeds = int.from_bytes(own[:4], "big"), [seed for *_, seed, _, _ in noisy]
    assert seeds == [(first + m) % 2**32 for m in range(len(seeds))] != []
    arguments, given, vectors, *_ = replays[0]
    label = program.claims[0].vectors
    expected = {} if output else {label: freivalds.vectors(challenge.secret(own), str(label), 64)}
    jax.tree.map(np.testing.assert_array_equal, vectors, expected)
    at, accused = trip * ROWS + row, accused_of(program, Target(output, 0))
    moved = max(np.linalg.norm((x - plain)[at]) * 4 / size for *_, size, x in noisy)
    with jax.enable_x64(True):
        with jax.disable_jit():
            how = ((accused.measure, apply) for apply in (interpret.apply, in_float64))
            centres = [accused.deviation(arguments, given, *each) for each in how]
        third = accused.compiled(arguments, given)
        centres = [Deviation(*map(np.asarray, c)) for c in (*centres, third)]
    distance = min(distances(c, c.expected)[at] for c in centres)
    limit = 4 * max(c.limit[at] for c in centres[:2])
    spread = moved if output else moved / 8
    assert spread > limit / 1000
    assert judgement.excess == pytest.approx(distance / (limit + spread), rel=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
@given(data=st.data())
@settings(max_examples=4)
def test_the_honest_are_not_framed(name: str, data: st.DataObject):
    program, _, honest = made(name)
    output = data.draw(st.booleans())
    tensors = [honest.y] if output else honest.trace.values
    index = data.draw(st.integers(0, len(tensors) - 1))
    row = data.draw(st.integers(0, ROWS - 1))
    trip = data.draw(st.integers(0, 2)) if name == "scanned" and not output else 0
    found = verify_evidence(accused(name, output, index, row, trip), program, W, X)
    assert not found.guilty
    assert found.excess < 0.5


def respelled(w: Any, x: Any) -> Any:
    """`layers` with other scopes, calls and names."""

    @jax.jit
    def first(y: Any) -> Any:
        with jax.named_scope("first"):
            return jnp.tanh(normalized(y) @ w[0])

    @jax.checkpoint
    def then(y: Any) -> Any:
        return jax.named_scope("then")(lambda z: z @ w[1])(y)

    return jax.named_call(jax.jit(normalized), name="last")(then(first(x)))


@pytest.mark.compiled  # numpy, which stops after some replays, has other last bits
def test_a_judge_who_spells_the_program_otherwise_judges_alike():
    """Close to the limit, where every perturbed replay counts."""
    program, _, honest = made("layers")
    other = vf.compile(respelled, W, X, policy=POLICY)
    assert other.id == program.id
    assert not {c.name for c in other.claims} & {c.name for c in program.claims}
    for index, output in ((0, False), (1, False), (0, True)):
        y, values = honest.y, list(honest.trace.values)
        for change in (0.0, 1e-4, 0.1):
            if output:
                y = put(honest.y, (3, 3), honest.y[3, 3] + change)
            else:
                value = honest.trace.values[index]
                values[index] = put(value, (3, 3), value[3, 3] + change)
            e = against(submitted(program, y, values), index, 3, program=program, output=output)
            assert verify_evidence(e, program, W, X) == verify_evidence(e, other, W, X)


@functools.cache
def other_device() -> Any:
    """A device whose every inexact operation is off by what a device may lose, compiled."""
    program, _, _ = made("layers")
    losses = {"arithmetic": 1.0, "function": 2.0, "product": 4.0}

    def run(x: Any, seed: Any, independent: Any, coherent: Any) -> Any:
        noise = Noise(seed=seed, independent=independent, coherent=coherent, losses=losses)
        block, env = program.function.block, program.bind(W, (x,))
        [y], found = execute.execute(block, program.analysis, env, apply=noise)
        return y, [found[c.index] for c in program.claims]

    return jax.jit(run)


@pytest.mark.parametrize(("independent", "coherent"), [(1, 0), (0, 1)])
def test_a_device_with_other_rounding_is_not_framed(independent: int, coherent: int):
    """Rows that are all rounding noise."""
    program, _, _ = made("layers")
    x = np.array(X)
    x[::2] = 30.3
    sizes = np.float32(independent), np.float32(coherent)
    run = submitted(program, *jax.device_get(other_device()(x, np.uint32(5), *sizes)))
    for index, row in ((0, 0), (0, 1), (1, 2)):
        assert not verify_evidence(against(run, index, row), program, W, x).guilty


def test_evidence_about_something_else_is_refused():
    program, _, _ = made("layers")
    good, answer = accused("layers", False, 0, 3), accused("layers", True, 0, 3)
    other, _, _ = made("scanned")
    both = f"about program {program.id.hex()}, not {other.id.hex()}"
    with pytest.raises(Misnamed, match=both) as raised:
        verify_evidence(good, other, W, X)
    assert isinstance(raised.value, ValueError)  # it may be the caller's mistake
    assert (raised.value.name, raised.value.found) == ("program", program.id)
    with pytest.raises(Misnamed, match=both):
        Evidence.decode(good.encode(), other)
    theirs, mine = good.parameters.hex(), vf.parameter_root(W + 1).hex()
    with pytest.raises(Misnamed, match=f"about parameters {theirs}, not {mine}"):
        verify_evidence(good, program, W + 1, X)
    for tampered in (
        replace(good, commitment=replace(good.commitment, root=bytes(32))),
        replace(good, index=1),
        replace(good, index=9),
        replace(good, row=ROWS),
        replace(good, trip=1),
        replace(good, opening=trace.Opening(leaves=good.opening.leaves, proof=(bytes(32),))),
        replace(good, opening=trace.Opening(leaves=(), proof=())),
        replace(answer, row=ROWS),
        replace(answer, trip=1),
    ):
        with pytest.raises(VerificationError):
            verify_evidence(tampered, program, W, X)


def test_parameters_that_setup_refuses_are_refused_by_a_judge():
    """Subnormal numbers that are compared, which some devices flush to zero."""
    program, _, _ = made("branching")
    w = np.array(W)
    w[0, 0, 0] = 1e-40
    named = replace(accused("branching", False, 0, 3), parameters=vf.parameter_root(w))
    with pytest.raises(ValueError, match="below the smallest normal number"):
        verify_evidence(named, program, w, X)


@pytest.mark.parametrize(
    "change",
    [
        *({"program": b""}, {"parameters": bytearray(32)}, {"commitment": None}, {"opening": ()}),
        *({"output": 1}, {"index": -1}, {"index": 2**32}, {"trip": 2**64}, {"row": 0.0}),
        {"row": 2**64},
    ],
    ids=str,
)
def test_evidence_that_has_no_bytes_cannot_be_made(change: dict[str, Any]):
    with pytest.raises(MalformedEncoding):
        replace(accused("layers", False, 0, 3), **change)


def test_a_place_has_the_numbers_of_its_bytes():
    last = replace(accused("layers", False, 0, 3), index=2**32 - 1, trip=2**64 - 1, row=2**64 - 1)
    assert last.encode()[137:157] == b"\xff" * 20
    last = replace(last, index=0)
    assert Evidence.decode(last.encode(), made("layers")[0]) == last


def test_judges_agree_on_what_is_convicted_and_how_often_it_is_drawn():
    """Four times a tolerance, and 64 vectors: two judges with other numbers could disagree."""
    assert (evidence.KAPPA, evidence.DRAWS) == (4.0, 64)


def test_evidence_is_shown_without_what_it_opens():
    shown = repr(accused("layers", False, 0, 3))
    assert "row=3" in shown
    assert "opening" not in shown


def test_a_place_is_a_claim_or_an_output():
    program, _, _ = made("layers")
    sent = bytearray(accused("layers", True, 0, 3).encode())
    assert sent[136] == 1
    sent[136] = 2
    with pytest.raises(MalformedEncoding, match="first byte of a place"):
        Evidence.decode(bytes(sent), program)


FIELDS = {
    "header": (0, 31),
    "program": (32, 63),
    "parameters": (64, 95),
    "root": (96, 127),
    "size": (128, 135),
    "output": (136, 136),
    "index": (137, 140),
    "trip": (141, 148),
    "row": (149, 156),
    "opening": (157, -1),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_flipped_bit_in_any_field_is_an_error_of_verification(field: str):
    program, _, _ = made("layers")
    sent = accused("layers", True, 0, 3).encode()
    for place, bit in itertools.product(FIELDS[field], (0, 7)):
        changed = bytearray(sent)
        changed[place] ^= 1 << bit
        try:
            found = verify_evidence(Evidence.decode(changed, program), program, W, X)
        except VerificationError as error:
            assert isinstance(error, Misnamed) == (field in ("program", "parameters"))
        else:
            assert field == "row"
            assert not found.guilty


def test_a_proof_has_up_to_64_digests_for_each_leaf():
    """None where all leaves are opened."""
    program, _, _ = made("layers")
    sent = accused("layers", True, 0, 3)
    longest = replace(sent.opening, proof=(bytes(32),) * 64 * len(sent.opening.leaves))
    most = replace(sent, opening=longest).encode()
    assert Evidence.decode(most, program).opening == longest
    with pytest.raises(MalformedEncoding, match="cut or extended"):
        Evidence.decode(most + bytes(32), program)
    small = vf.compile(lambda w, x: jnp.tanh(x @ w[0]), W, X, policy=POLICY)
    whole = against(small.prove(W, X), 0, 3, program=small, output=True)
    assert whole.opening.proof == ()
    assert Evidence.decode(whole.encode(), small) == whole


@given(data=st.data())
@settings(max_examples=30)
def test_hostile_bytes_are_malformed_or_refused(data: st.DataObject):
    program, _, _ = made("layers")
    sent = bytearray(accused("layers", True, 0, 3).encode())
    kind = data.draw(st.sampled_from(["flip", "cut", "extend"]))
    if kind == "flip":
        sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del sent[data.draw(st.integers(0, len(sent) - 1)) :]
    else:
        sent += bytes(data.draw(st.integers(1, 70)))
    try:
        received = Evidence.decode(bytes(sent), program)
        assert received.encode() == bytes(sent)
        assert not verify_evidence(received, program, W, X).guilty
    except VerificationError:
        pass


def choices(w: Any, x: Any, mask: Any) -> Any:
    """Exact outputs, and a scan without iterations."""
    hidden = jnp.where(mask > 0, jnp.sin(x) @ w[0], 0.0)
    hidden, _ = lax.scan(lambda c, u: (jnp.tanh(c @ u), None), hidden, jnp.zeros((0, *w[0].shape)))
    return {"finite": jnp.isfinite(hidden), "hidden": jnp.sin(hidden) @ w[1], "mask": mask * 2}


def test_exact_outputs_are_judged_by_equality():
    mask = np.ones((ROWS, WIDTH), np.int64)  # JAX makes int32 of it
    program = vf.compile(choices, W, X, mask, policy=POLICY)
    run = jax.device_get(program.prove(W, X, mask))
    for index, name in ((0, "finite"), (2, "mask")):
        wrong = put(run.y[name], (2, 2), 0)
        cheat = submitted(program, run.y | {name: wrong}, run.trace.values)
        for case, row, guilty in ((run, 2, False), (cheat, 2, True), (cheat, 3, False)):
            e = against(case, index, row, program=program, output=True)
            assert verify_evidence(e, program, W, X, mask).guilty is guilty
    empty = next(c.index for c in program.claims if 0 in c.shape)
    with pytest.raises(MalformedEncoding, match="outside"):
        verify_evidence(against(run, empty, 0, program=program), program, W, X, mask)


def convicted(program: vf.Program, w: Any, place: tuple[int, int]) -> bool:
    """Whether a run whose first claim is changed in one place is shown wrong."""
    honest = jax.device_get(program.prove(w, X))
    values = [put(honest.trace.values[0], place, 9), *honest.trace.values[1:]]
    cheat = replace(submitted(program, honest.y, values), parameters=vf.parameter_root(w))
    e = against(cheat, 0, place[0], program=program)
    kept = against(honest, 0, place[0], program=program)
    assert not verify_evidence(kept, program, w, X).guilty
    return verify_evidence(e, program, w, X).guilty


def test_judgements_about_a_claim_share_what_is_compiled(monkeypatch: pytest.MonkeyPatch):
    """Colluders are judged one after the other; parameters and rows are not compiled in."""
    program, _, _ = made("layers")
    assert convicted(program, W, (3, 5))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(jax, "jit", never)
    assert convicted(program, W, (4, 1))
    assert convicted(program, 2 * W, (3, 5))


def test_what_no_judge_can_recompute_makes_no_evidence():
    program, key, honest = made("layers")
    report = program.verify(key, X, honest, commitment=honest.commitment)
    with pytest.raises(ValueError, match="rejected"):
        evidence_of(program, report, honest)
    named = program.claims[0].name
    unplaced = (replace(report.results[0], row=None),)
    for change in (
        {"verdict": Verdict.INDETERMINATE, "claim": named},
        {"verdict": Verdict.REJECT, "claim": None},
        {"verdict": Verdict.REJECT, "claim": named, "results": ()},
        {"verdict": Verdict.REJECT, "claim": "another program's"},
        {"verdict": Verdict.REJECT, "claim": named, "results": unplaced},
    ):
        with pytest.raises(ValueError, match="evidence needs a claim or output that was rejected"):
            evidence_of(program, replace(report, **change), honest)
    with pytest.raises(MalformedEncoding):
        Evidence.decode(b"", program)
    sent = accused("layers", True, 0, 3).encode()
    with pytest.raises(MalformedEncoding, match=f"has {len(sent) - 1} bytes.*cut or extended"):
        Evidence.decode(sent[:-1], program)


def test_evidence_is_of_a_program_a_report_and_a_submission():
    program, key, honest = made("layers")
    report = program.verify(key, X, honest, commitment=honest.commitment)
    good = accused("layers", False, 0, 3)
    calls: dict[str, Callable[[], Any]] = {
        "program": lambda: evidence_of(key, report, honest),  # type: ignore[arg-type]
        "report": lambda: evidence_of(program, honest, honest),  # type: ignore[arg-type]
        "submission": lambda: evidence_of(program, report, honest.trace),  # type: ignore[arg-type]
        "program must be": lambda: verify_evidence(good, key, W, X),  # type: ignore[arg-type]
        "evidence": lambda: verify_evidence(report, program, W, X),  # type: ignore[arg-type]
        "a Program": lambda: Evidence.decode(good.encode(), key),  # type: ignore[arg-type]
        "read judgement.guilty": lambda: bool(verify_evidence(good, program, W, X)),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=name):
            call()


def test_what_stands_behind_a_choice_is_not_convicted():
    def choosing(w: Any, x: Any) -> Any:
        return reinterpreted(jnp.tanh(x @ w[0])) @ w[1]

    program = vf.compile(choosing, W, X, policy=POLICY)
    y, run = jax.device_get(jax.jit(program.execute)(W, X))
    values = [run.values[0], put(run.values[1], (3, 3), 9)]
    cheat = submitted(program, y, values)
    found = verify_evidence(against(cheat, 1, 3, program=program), program, W, X)
    assert (found.guilty, found.excess) == (False, 0.0)
    assert "discontinuous or unbounded glue before it may explain it" in found.message


@pytest.mark.parametrize(
    ("name", "change", "compiles"),
    [("layers", 0.0, 0), ("layers", 0.05, 1), ("rounded", 0, 1), ("rounded", 1, 1)],
)
def test_a_replay_is_compiled_for_a_row_that_is_far_and_for_elements_that_add_up(
    name: str, change: Any, compiles: int, monkeypatch: pytest.MonkeyPatch
):
    program, _, honest = made(name)
    index = [c.form.rows_too for c in program.claims].index(name == "rounded")
    values = list(honest.trace.values)
    values[index] = put(values[index], (3, 3), values[index][3, 3] + change)
    e = against(submitted(program, honest.y, values), index, 3, program=program)
    calls: list[int] = []

    def counted(self: Accused) -> Any:
        calls.append(self.target.index)
        return compiled(self)

    compiled = Accused.compiled.func
    monkeypatch.setattr(Accused, "compiled", property(counted))
    assert verify_evidence(e, program, W, X).guilty == bool(change)
    assert calls == [index] * compiles


@pytest.mark.compiled
def test_flags_of_jax_change_no_judgement():
    """Nor its numbers, of a row so close to its limit that perturbed replays count."""
    program, _, honest = made("layers")
    [*_, last] = honest.trace.values
    values = [honest.trace.values[0], put(last, (3, 3), last[3, 3] + 1e-3)]
    e = against(submitted(program, honest.y, values), 1, 3)
    expected = verify_evidence(e, program, W, X)
    with (
        jax.disable_jit(),
        jax.debug_nans(True),
        jax.transfer_guard("disallow"),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        assert verify_evidence(e, program, W, X) == expected
