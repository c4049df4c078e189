"""The doors for a device and a coordinator: `prove`, `verify`, and whose fault a failure is."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verifiable as vf
from verifiable import program as programs
from verifiable import submission, trace
from verifiable.check import trees
from verifiable.errors import MalformedEncoding, Misnamed, Rejected
from verifiable.trace import Commitment, Layout, Trace

ROWS, WIDTH = 16, 128
RNG = np.random.default_rng(0)
POLICY = vf.Policy(draws=4)


def weights(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.standard_normal((WIDTH, WIDTH)) / 8, jnp.float32)
        for name in ("up", "down")
    }


def model(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["up"]) @ params["down"]


PARAMS, OTHERS = weights(1), weights(2)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
PROGRAM = vf.compile(model, PARAMS, X, policy=POLICY)
SECRET = vf.challenge.secret(bytes(32))


@functools.cache
def key() -> vf.VerifierKey:
    return PROGRAM.setup(PARAMS, SECRET)


@functools.cache
def honest() -> vf.Submission:
    return PROGRAM.prove(PARAMS, X)


ROOT = vf.parameter_root(PARAMS)


def test_an_honest_submission_is_accepted():
    sent = honest()
    report = PROGRAM.verify(key(), X, sent, commitment=sent.commitment)
    assert (report.verdict, report.reason) == (vf.Verdict.ACCEPT, "ok")
    np.testing.assert_allclose(report.require().y, sent.y, rtol=1e-3, atol=1e-4)
    again = PROGRAM.verify(key(), X, sent, commitment=sent.commitment, parameters=ROOT)
    assert again.verdict is vf.Verdict.ACCEPT


@pytest.mark.compiled
def test_it_holds_what_execute_returns_and_its_commitment():
    sent = PROGRAM.prove(PARAMS, X)
    y, values = jax.jit(PROGRAM.execute)(PARAMS, X)
    assert np.array_equal(y, sent.y)
    assert all(map(np.array_equal, values.values, sent.trace.values))
    assert sent.commitment == trace.commit(y, values).commitment
    assert (sent.program, sent.parameters) == (PROGRAM.id, ROOT)


def test_the_layout_is_the_programs():
    sent = honest()
    assert PROGRAM.layout == Layout.of(sent.y, sent.trace)
    assert PROGRAM.layout.size == sent.commitment.size


def test_nothing_is_verified_without_a_commitment():
    with pytest.raises(TypeError, match="commitment"):
        PROGRAM.verify(key(), X, honest())  # type: ignore[call-arg]


# --------------------------------------------------------------------------------- on the wire


def test_a_submission_survives_its_bytes():
    sent = honest()
    data = sent.encode()
    assert len(data) == submission.encoded_size(PROGRAM.layout)
    read = vf.Submission.decode(data, PROGRAM.layout)
    assert read.encode() == data
    assert read.commitment == sent.commitment
    assert (read.program, read.parameters) == (sent.program, sent.parameters)
    report = PROGRAM.verify(key(), X, read, commitment=sent.commitment, parameters=ROOT)
    assert report.verdict is vf.Verdict.ACCEPT


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"V" + data[1:],
        lambda data: data[:31] + b"1" + data[32:],
        lambda data: data[:128] + bytes(8) + data[136:],  # a size of zero
        lambda data: data[:136] + b"V" + data[137:],  # the trace's own header
    ],
)
def test_other_bytes_are_malformed(change: Callable[[bytes], bytes]):
    with pytest.raises(MalformedEncoding):
        vf.Submission.decode(change(honest().encode()), PROGRAM.layout)


@given(st.integers(0, 8 * 136 - 1))
@settings(max_examples=200, deadline=None)
def test_every_changed_bit_of_the_header_is_noticed(bit: int):
    data = bytearray(honest().encode())
    data[bit // 8] ^= 1 << bit % 8
    try:
        read = vf.Submission.decode(bytes(data), PROGRAM.layout)
    except MalformedEncoding:
        return
    assert read.encode() == bytes(data)
    report = PROGRAM.verify(key(), X, read, commitment=read.commitment, parameters=ROOT)
    assert report.reason in ("other-program", "other-parameters", "commitment-mismatch")


@pytest.mark.parametrize("place", [32, 63, 64, 95])
def test_a_flipped_bit_in_a_name_is_an_error_of_verification(place: int):
    data = bytearray(honest().encode())
    data[place] ^= 1
    read = vf.Submission.decode(data, PROGRAM.layout)
    with pytest.raises(Misnamed, match="to tell them apart") as raised:
        PROGRAM.verify(key(), X, read, commitment=read.commitment)
    assert isinstance(raised.value, ValueError)
    assert raised.value.name == ("program" if place < 64 else "parameters")


def test_decode_takes_bytes_and_a_layout():
    decode: Any = vf.Submission.decode
    with pytest.raises(TypeError, match="data must be bytes"):
        decode(list(honest().encode()), PROGRAM.layout)
    with pytest.raises(TypeError, match="layout must be a Layout"):
        decode(honest().encode(), PROGRAM)


# ---------------------------------------------------------------------------------- cheats

Tamper = Callable[[vf.Submission], vf.Submission]


@dataclasses.dataclass(frozen=True)
class Cheat:
    """What a device sends after it committed to an honest run."""

    name: str
    reason: str
    tamper: Tamper


def with_value(change: Callable[[np.ndarray], np.ndarray]) -> Tamper:
    def tamper(sent: vf.Submission) -> vf.Submission:
        first, *others = map(np.array, sent.trace.values)
        return dataclasses.replace(sent, trace=Trace(values=(change(first), *others)))

    return tamper


def one_bit(x: np.ndarray) -> np.ndarray:
    x.view(np.uint8).reshape(-1)[0] ^= 1
    return x


CHEATS = (
    Cheat("one bit of a claim after the commitment", "commitment-mismatch", with_value(one_bit)),
    Cheat(
        "another answer after the commitment",
        "commitment-mismatch",
        lambda sent: dataclasses.replace(sent, y=np.asarray(sent.y) + 1),
    ),
    Cheat(
        "an honest run with other weights after the commitment",
        "commitment-mismatch",
        lambda sent: dataclasses.replace(PROGRAM.prove(OTHERS, X), parameters=sent.parameters),
    ),
    Cheat(
        "a claim too few",
        "claim-missing",
        lambda sent: dataclasses.replace(sent, trace=Trace(values=sent.trace.values[:1])),
    ),
    Cheat("a claim of another type", "claim-dtype", with_value(lambda x: x.astype(np.float16))),
    Cheat("no trace", "trace-structure", lambda sent: dataclasses.replace(sent, trace=None)),
    Cheat("no answer", "output-structure", lambda sent: dataclasses.replace(sent, y=None)),
    Cheat(
        "another program",
        "other-program",
        lambda sent: dataclasses.replace(sent, program=bytes(32)),
    ),
    Cheat(
        "other parameters",
        "other-parameters",
        lambda sent: dataclasses.replace(sent, parameters=vf.parameter_root(OTHERS)),
    ),
)


class Fails:
    """An object that calls itself a number and cannot be read."""

    __class__: Any = property(lambda self: np.generic)  # type: ignore[assignment]

    def __array__(self) -> Any:
        raise RuntimeError("not readable")


class Poses:
    """An object that calls itself an array, whose shape raises."""

    __class__: Any = property(lambda self: jax.Array)  # type: ignore[assignment]

    def is_deleted(self) -> bool:
        return False

    @property
    def shape(self) -> Any:
        raise RuntimeError("no shape")


class _Nameless(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise RuntimeError("no name")


class Nameless(metaclass=_Nameless):
    """An object whose type cannot be named."""


@pytest.mark.parametrize("hostile", [Fails, Poses, Nameless], ids=["Fails", "Poses", "Nameless"])
def test_objects_that_cannot_be_read_are_rejected(hostile: Callable[[], Any]):
    others = honest().trace.values[1:]
    for changes in (
        {"y": hostile()},
        {"trace": hostile()},
        {"trace": Trace(values=(hostile(), *others))},
    ):
        sent = dataclasses.replace(honest(), **changes)
        report = PROGRAM.verify(key(), X, sent, commitment=sent.commitment, parameters=ROOT)
        assert report.verdict is vf.Verdict.REJECT


def test_a_mapped_file_cannot_change_after_the_commitment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A device that can write to the coordinator's file commits to one trace and shows another."""
    first, *others = map(np.array, honest().trace.values)
    wrong = one_bit(first.copy()) + 1
    wrong.tofile(tmp_path / "claim")
    mapped = np.memmap(tmp_path / "claim", np.float32, "r+", shape=first.shape)
    commitment = trace.commit(honest().y, Trace(values=(wrong, *others))).commitment
    original = programs.uncommitted

    def swap(*arguments: Any) -> Any:
        problem = original(*arguments)
        mapped[:] = first
        return problem

    monkeypatch.setattr(programs, "uncommitted", swap)
    for view in (mapped, np.asarray(mapped), mapped[:]):
        mapped[:] = wrong
        sent = dataclasses.replace(honest(), trace=Trace(values=(view, *others)))
        report = PROGRAM.verify(key(), X, sent, commitment=commitment, parameters=ROOT)
        assert report.reason == "claim-mismatch"


def test_a_claim_that_is_no_number_is_a_finding_under_debug_flags():
    """JAX would raise FloatingPointError, so that a device could stop the verifier."""
    first, *others = map(np.array, honest().trace.values)
    first[0, 0] = np.nan
    wrong = Trace(values=(first, *others))
    sent = dataclasses.replace(honest(), trace=wrong)
    commitment = trace.commit(sent.y, wrong).commitment
    with jax.debug_nans(True), jax.debug_infs(True):
        report = PROGRAM.verify(key(), X, sent, commitment=commitment, parameters=ROOT)
    assert report.reason == "claim-nonfinite"


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_cheats(cheat: Cheat):
    sent = cheat.tamper(honest())
    report = PROGRAM.verify(key(), X, sent, commitment=honest().commitment, parameters=ROOT)
    assert (report.verdict, report.reason) == (vf.Verdict.REJECT, cheat.reason)
    assert report.message
    with pytest.raises(Rejected, match=cheat.reason):
        report.require()


def test_the_commitment_that_counts_is_the_received_one():
    """A device that commits again to what it sends is held to what it had committed to."""
    other = PROGRAM.prove(PARAMS, X + 1)
    report = PROGRAM.verify(key(), X + 1, other, commitment=honest().commitment)
    assert report.reason == "commitment-mismatch"


def test_a_tree_of_other_leaves_is_no_commitment_to_the_trace():
    sent = honest()
    small = trace.commit(sent.y, sent.trace, leaf_bytes=1024).commitment
    report = PROGRAM.verify(key(), X, sent, commitment=small)
    assert (report.verdict, report.reason) == (vf.Verdict.REJECT, "commitment-mismatch")


def test_who_names_the_right_parameters_and_runs_with_others_is_rejected():
    sent = dataclasses.replace(PROGRAM.prove(OTHERS, X), parameters=ROOT)
    report = PROGRAM.verify(key(), X, sent, commitment=sent.commitment)
    assert (report.verdict, report.reason) == (vf.Verdict.REJECT, "claim-mismatch")


@pytest.mark.parametrize("changes", [{"program": b""}, {"parameters": "0" * 32}, {"program": None}])
def test_a_submission_names_program_and_parameters(changes: dict[str, Any]):
    with pytest.raises(MalformedEncoding, match=next(iter(changes))):
        dataclasses.replace(honest(), **changes)


def test_a_submission_holds_a_commitment():
    with pytest.raises(MalformedEncoding, match="commitment"):
        dataclasses.replace(honest(), commitment=(bytes(32), 1))


# ------------------------------------------------------------------- the caller's mistakes


def test_a_stale_key_blames_nobody():
    """Model weights were updated, the key was not: both sides are named."""
    sent = PROGRAM.prove(OTHERS, X)
    both = f"(?s){sent.parameters.hex()[:16]}.*{ROOT.hex()[:16]}"
    with pytest.raises(ValueError, match=both):
        PROGRAM.verify(key(), X, sent, commitment=sent.commitment)
    with pytest.raises(ValueError, match=ROOT.hex()[:16]):
        PROGRAM.verify(key(), X, sent, commitment=sent.commitment, parameters=sent.parameters)


def test_a_key_of_another_program_or_policy_is_the_callers_mistake():
    sent = honest()
    wider = PROGRAM.with_policy(dataclasses.replace(POLICY, trip_limit=7))
    other = vf.compile(lambda p, x: model(p, 2 * x), PARAMS, X, policy=POLICY)
    for program in (wider, other):
        with pytest.raises(ValueError, match="key was made for"):
            program.verify(key(), X, sent, commitment=sent.commitment)


def test_the_wrong_program_of_the_coordinator_blames_nobody():
    """Key and submission belong together; the caller verifies with a program of another shape."""
    other = vf.compile(model, PARAMS, X[:8], policy=POLICY)
    sent = honest()
    with pytest.raises(ValueError, match="key"):
        other.verify(key(), X[:8], sent, commitment=sent.commitment, parameters=ROOT)


def test_commitments_have_one_encoding():
    commitment = honest().commitment
    data = commitment.encode()
    assert len(data) == 40
    assert vf.Commitment.decode(data) == commitment
    for wrong in (b"", data[:-1], data + b"\0", data[:32] + bytes(8)):
        with pytest.raises(MalformedEncoding):
            vf.Commitment.decode(wrong)


@pytest.mark.parametrize(
    ("root", "error"),
    [(b"", ValueError), (ROOT[:5], ValueError), (ROOT.hex(), TypeError), (PARAMS, TypeError)],
)
def test_the_root_that_a_job_names_has_32_bytes(root: Any, error: type[Exception]):
    with pytest.raises(error, match="parameters must be 32 bytes"):
        PROGRAM.verify(key(), X, honest(), commitment=honest().commitment, parameters=root)


def test_another_tree_is_told_by_its_leaves():
    with pytest.raises(
        ValueError, match=r"missing: params\['down'\]; unexpected: params\['dawn'\]"
    ):
        PROGRAM.prove({"up": PARAMS["up"], "dawn": PARAMS["down"]}, X)
    with pytest.raises(ValueError, match=r"unexpected: inputs\[1\]"):
        PROGRAM.prove(PARAMS, X, X)


def calls(x: Any = X) -> dict[str, Callable[[], Any]]:
    sent, k, c = honest(), key(), honest().commitment
    verify: Any = PROGRAM.verify
    setup: Any = PROGRAM.setup
    compiled: Any = vf.compile
    return {
        "key": lambda: verify(x, k, sent, commitment=c),
        "submission": lambda: verify(k, sent, x, commitment=c),
        "the submission is missing": lambda: verify(k, commitment=c),
        "commitment": lambda: verify(k, x, sent, commitment=sent),
        "commitment must be a Commitment, got bytes": lambda: verify(k, x, sent, commitment=c.root),
        "key must be a VerifierKey, got dict": lambda: verify(PARAMS, x, sent, commitment=c),
        "parameters must be 32 bytes.*got str": lambda: verify(
            k, x, sent, commitment=c, parameters=ROOT.hex()
        ),
        "corridor must be a Corridor": lambda: verify(k, x, sent, commitment=c, corridor=1.0),
        "challenge": lambda: setup(SECRET, PARAMS),
        "challenge must be a Challenge, got bytes": lambda: setup(PARAMS, bytes(32)),
        "params must be a dict, got an array": lambda: PROGRAM.prove(x, PARAMS),
        "params must be a dict": lambda: PROGRAM.execute(x, PARAMS),
        "fn must be a function": lambda: compiled(PARAMS, model, x),
        "policy": lambda: compiled(model, PARAMS, x, policy=16),
        "policy must be a Policy": lambda: PROGRAM.with_policy(4),  # type: ignore[arg-type]
        "params.* is a builtin_function": lambda: PROGRAM.prove({"up": np.tanh, "down": len}, x),
        "params.*'up'.* is a str": lambda: vf.compile(model, {"up": "a", "down": x}, x),
    }


@pytest.mark.parametrize("argument", calls())
def test_swapped_arguments_and_wrong_types_name_the_argument(argument: str):
    with pytest.raises(TypeError, match=argument):
        calls()[argument]()


TRACED: dict[str, Callable[[Any], Any]] = {
    "prove": lambda x: PROGRAM.prove(PARAMS, x),
    "verify": lambda x: PROGRAM.verify(key(), x, honest(), commitment=honest().commitment),
    "verify of what is not traced": lambda _: PROGRAM.verify(
        key(), X, honest(), commitment=honest().commitment
    ),
    "check": lambda x: PROGRAM.check(key(), X, y={"logits": x}, trace=honest().trace),
    "make_key": lambda x: PROGRAM.setup({"up": x, "down": x}, SECRET),
}


@pytest.mark.parametrize("name", TRACED)
def test_what_decides_cannot_be_traced(name: str):
    honest(), key()
    with pytest.raises(TypeError, match=f"{name.split(maxsplit=1)[0]} .* call it outside"):
        jax.jit(lambda x: TRACED[name](x) and x)(X)
    if name in ("prove", "verify", "make_key"):
        with pytest.raises(TypeError, match="call it outside"):
            jax.vmap(lambda x: TRACED[name](x) and x)(X[None])


def test_a_program_cannot_be_pickled():
    with pytest.raises(TypeError, match="a program cannot be copied or pickled: compile"):
        pickle.dumps(PROGRAM)


class Layered(eqx.Module):
    """A module with a leaf that is no array."""

    linear: eqx.nn.Linear
    activation: Callable[..., Any]


def test_a_module_given_whole_is_refused_by_the_leaf_that_is_no_array():
    module = Layered(eqx.nn.Linear(WIDTH, WIDTH, key=jax.random.key(0)), jax.nn.gelu)
    with pytest.raises(TypeError, match=r"params\.activation"):
        vf.compile(lambda m, x: x, module, X)
    with pytest.raises(TypeError, match=r"params\.activation"):
        vf.parameter_root(module)
    arrays, rest = eqx.partition(module, eqx.is_array)
    assert vf.compile(lambda m, x: jax.vmap(eqx.combine(m, rest).linear)(x), arrays, X)


# ---------------------------------------------------------------------------- parameter roots


def test_the_parameters_are_hashed_once_for_the_same_arrays(monkeypatch: pytest.MonkeyPatch):
    hashed: list[int] = []
    original = trees.parameter_root

    def spy(params: Any) -> bytes:
        hashed.append(1)
        return original(params)

    monkeypatch.setattr(trees, "parameter_root", spy)
    fresh, other = weights(3), weights(4)
    for params in (fresh, other, fresh, dict(fresh), other):
        assert PROGRAM.prove(params, X).parameters == original(params)
    assert len(hashed) == 2


def test_numpy_parameters_may_change_between_runs():
    params = {name: np.array(w) for name, w in weights(3).items()}
    PROGRAM.prove(params, X)
    params["up"] *= 2
    assert PROGRAM.prove(params, X).parameters == vf.parameter_root(params)


def test_roots_do_not_outlive_the_mode_of_x64():
    memory, params = trees.RootMemory(), {"w": np.ones(3)}
    with jax.enable_x64(True):
        wide = memory.root(params)
    assert memory.root(params) == vf.parameter_root(params) != wide


def test_the_memory_of_roots_forgets_arrays_that_are_gone():
    memory = trees.RootMemory()
    for seed in range(20):
        params = {"w": np.full(3, seed)}
        assert memory.root(params) == vf.parameter_root(params)
    assert memory.root({"w": 3.0}) == memory.root({"w": 3.0}) != memory.root({"w": 4.0})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numpy_parameters_of_64_bits_are_those_that_jax_reads(dtype: Any):
    wide = {name: np.asarray(w, dtype) for name, w in PARAMS.items()}
    assert vf.parameter_root(wide) == ROOT
    assert PROGRAM.setup(wide, SECRET).header == key().header
    x = np.asarray(X, dtype)
    sent = PROGRAM.prove(wide, x)
    report = PROGRAM.verify(
        PROGRAM.setup(wide, SECRET), x, sent, commitment=sent.commitment, parameters=ROOT
    )
    assert report.verdict is vf.Verdict.ACCEPT


def test_integers_of_64_bits_are_those_that_jax_reads():
    table = np.arange(8, dtype=np.int64)
    assert vf.parameter_root({"t": table}) == vf.parameter_root({"t": table.astype(np.int32)})


def test_a_commitment_is_made_from_what_was_received():
    received = Commitment(root=honest().commitment.root, size=honest().commitment.size)
    report = PROGRAM.verify(key(), X, honest(), commitment=received)
    assert report.verdict is vf.Verdict.ACCEPT
