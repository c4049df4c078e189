"""A family: one function at several shapes, one key; and what must not pass for another's."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import verifiable as vf
from tests.helpers.runs import POLICY
from verifiable.check import excerpts
from verifiable.policy import Calibration, Measured
from verifiable.report import Verdict

WIDTH, LONGEST, WORDS = 32, 32, 64
SECRET = vf.challenge.secret(bytes(range(32)))
LENGTHS = (8, 12)
RNG = np.random.default_rng(7)


def drawn(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)


@functools.cache
def parameters() -> Any:
    return jax.device_put(
        {
            "words": drawn(WORDS, WIDTH),
            "places": drawn(LONGEST, WIDTH),
            "layers": {"qkv": drawn(2, WIDTH, 3 * WIDTH), "up": drawn(2, WIDTH, WIDTH)},
            "head": drawn(WIDTH, WORDS),
        }
    )


def model(p: Any, tokens: Any) -> Any:
    """Causal attention under a scan; places are counted and looked up, as in most models."""
    length = tokens.shape[-1]
    mask = jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, -jnp.inf)
    x = p["words"][tokens] + p["places"][:length]

    def layer(x: Any, w: Any) -> Any:
        q, k, v = jnp.split(x @ w["qkv"], 3, axis=-1)
        scores = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k) / 6 + mask)
        x = x + jnp.tanh(scores @ v @ w["up"])
        return x, None

    x, _ = jax.lax.scan(layer, x, p["layers"])
    return x @ p["head"]


def tokens(length: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, WORDS, (2, length)).astype(np.int32)


@functools.cache
def family() -> vf.Family:
    shapes = ((jax.ShapeDtypeStruct((2, n), np.int32),) for n in LENGTHS)
    return vf.compile_family(model, parameters(), *shapes, policy=POLICY)


@functools.cache
def key() -> vf.VerifierKey:
    return family().setup(parameters(), SECRET)


def verified(x: Any, params: Any = None, held: Any = None) -> vf.Report:
    sent = family().prove(parameters() if params is None else params, x)
    root = vf.parameter_root(parameters())
    if params is not None:  # claims to have run the right ones
        sent = vf.Submission(
            y=sent.y,
            trace=sent.trace,
            commitment=sent.commitment,
            program=sent.program,
            parameters=root,
        )
    return family().verify(held or key(), x, sent, commitment=sent.commitment, parameters=root)


@pytest.mark.parametrize("length", LENGTHS)
def test_honest_runs_of_every_member_are_accepted_with_one_key(length: int):
    report = verified(tokens(length))
    assert report.verdict is Verdict.ACCEPT, report


@pytest.mark.parametrize("length", LENGTHS)
def test_a_submission_of_a_family_is_read_by_the_layout_of_its_inputs(length: int):
    x = tokens(length)
    sent = family().prove(parameters(), x)
    layout = family().layout(jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert vf.Submission.decode(sent.encode(), layout).commitment == sent.commitment
    with pytest.raises(ValueError, match="the family was compiled for inputs"):
        family().layout(tokens(LONGEST))


@pytest.mark.parametrize("length", LENGTHS)
def test_other_weights_are_rejected_at_every_length(length: int):
    other = parameters() | {"head": parameters()["head"].at[3].multiply(1.01)}
    assert verified(tokens(length), other).verdict is Verdict.REJECT


def test_the_key_holds_once_what_members_share():
    alone = [m.setup(parameters(), SECRET) for m in family().members]
    shared = alone[0].arrays.keys() & alone[1].arrays.keys()
    assert {name.split("/")[0] for name in shared} == {"vectors", "kept", "projected"}
    assert sum(alone[0].arrays[name].nbytes for name in shared) > 0.8 * alone[0].nbytes
    [places] = key().header.excerpts  # those of eight tokens are the first ones of twelve
    assert places.start == (0, 0, 0)
    assert places.whole in alone[1].arrays
    union = alone[0].arrays | alone[1].arrays
    assert key().arrays.keys() == union.keys() - {places.name}
    assert key().nbytes == alone[1].nbytes
    for member, own in zip(family().members, alone, strict=True):
        part = family().member_key(key(), member)
        assert (part.header, part.arrays.keys()) == (own.header, own.arrays.keys())
        for name, array in own.arrays.items():
            np.testing.assert_array_equal(np.asarray(part.arrays[name]), np.asarray(array))


def test_what_differs_between_members_has_another_name():
    """Places of eight and of twelve tokens come from one table, and are not the same value."""
    layouts = [m.compiled_setup.layout.arrays for m in family().members]
    for name in layouts[0].keys() & layouts[1].keys():
        assert layouts[0][name] == layouts[1][name]
    assert layouts[0].keys() - layouts[1].keys()


def test_the_file_of_a_family_is_read_back(tmp_path: Any):
    key().save(tmp_path / "key")
    held = vf.VerifierKey.load(tmp_path / "key")
    assert held.header == key().header
    assert verified(tokens(LENGTHS[1]), held=held).verdict is Verdict.ACCEPT


def test_the_id_binds_the_members_in_any_order():
    a, b = ((jax.ShapeDtypeStruct((2, n), np.int32),) for n in LENGTHS)

    def made(*shapes: Any) -> bytes:
        return vf.compile_family(model, parameters(), *shapes, policy=POLICY).id

    assert made(a, b) == made(b, a) == family().id
    assert len({family().id, made(a), made(b), *(m.id for m in family().members)}) == 5


def audited(x: Any, params: Any) -> vf.Report:
    """The report on one layer of a run of the member for x, with the key of the family."""
    member, seed = family().program(x), bytes(range(32))
    sent = member.prove(params, x)
    plan = family().audit_plan(seed, x, layers=1)
    assert plan == member.audit_plan(seed, layers=1)
    opening = member.commit(sent.y, sent.trace).open(plan)
    return family().audit(key(), x, plan=plan, commitment=sent.commitment, opening=opening)


def test_audits_of_a_part_go_by_the_member_for_the_inputs():
    x, head = tokens(LENGTHS[0]), parameters()["head"]
    report = audited(x, parameters())
    assert report.verdict is Verdict.ACCEPT, report
    assert report.detection is not None
    assert (report.detection.layers, report.detection.audited) == (2, 1)
    assert audited(x, parameters() | {"head": head.at[3].multiply(1.01)}).verdict is Verdict.REJECT


def test_members_have_leaves_for_audits_of_rows():
    shapes = [(tokens(n),) for n in LENGTHS]
    made = vf.compile_family(
        model, parameters(), *shapes, policy=POLICY, self_test=False, row_block=4
    )
    [other] = [m for m in made.members if m.inputs[0].shape == (2, LENGTHS[0])]
    alone = vf.compile(model, parameters(), *shapes[0], policy=POLICY, self_test=False, row_block=4)
    assert (other.id, other.layout, other.row_block) == (alone.id, alone.layout, 4)
    assert made.audit_plan(bytes(32), *shapes[0], layers=1).layout == alone.layout
    with pytest.raises(ValueError, match="row_block"):
        vf.compile_family(model, parameters(), *shapes, policy=POLICY, row_block=0)


def test_a_calibration_holds_for_a_family_if_it_names_every_member():
    ids = tuple(m.id for m in family().members)
    measured = (Measured(name=family().members[0].claims[0].name, median=0.0, worst=0.0, eps=1e-5),)

    def calibrated(programs: tuple[bytes, ...]) -> vf.Policy:
        found = Calibration(
            programs=programs, samples=1, executors=1, factor=4.0, measured=measured
        )
        return replace(POLICY, calibration=found)

    with pytest.raises(ValueError, match="list the ids of all programs"):
        family().with_policy(calibrated(ids[:1]))
    policy = calibrated(ids)
    made = family().with_policy(policy)
    assert made.id == family().id
    assert {m.policy.id for m in made.members} == {policy.id}
    with pytest.raises(ValueError, match="policy"):
        made.member_key(key(), made.members[0])


# --------------------------------------------------------------------------- what does not fit


def test_a_run_of_another_length_is_rejected():
    sent = family().prove(parameters(), tokens(LENGTHS[1]))
    report = family().verify(
        key(), tokens(LENGTHS[0]), sent, commitment=sent.commitment, parameters=sent.parameters
    )
    assert (report.verdict, report.reason) == (Verdict.REJECT, "other-program")


def test_keys_of_others_are_refused():
    first, second = family().members
    with pytest.raises(ValueError, match="the key was made for program"):
        family().member_key(first.setup(parameters(), SECRET), first)
    with pytest.raises(ValueError, match="the key was made for program"):
        first.check(key(), tokens(LENGTHS[0]), y=None, trace=None)
    with pytest.raises(ValueError, match="the key was made for program"):
        second.check(family().member_key(key(), first), tokens(LENGTHS[1]), y=None, trace=None)
    alone = vf.compile_family(model, parameters(), (tokens(LENGTHS[0]),), policy=POLICY)
    with pytest.raises(ValueError, match="no member"):
        alone.member_key(key(), second)
    with pytest.raises(TypeError, match="key must be"):
        family().member_key("key", first)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("part", "start"),
    [
        (np.arange(600.0).reshape(6, 100)[:3], (0, 0)),
        (np.arange(600.0).reshape(6, 100)[1:5, 20:90], (1, 20)),
        (np.arange(600.0).reshape(6, 100)[::2], None),
        (np.arange(600.0).reshape(6, 100)[:3] * np.float64(1 + 2**-52), None),
        (np.arange(600.0).reshape(6, 100)[:3].astype(np.float32), None),
        (np.arange(600.0)[:200], None),
        (np.arange(40.0).reshape(4, 10), None),  # too small
    ],
)
def test_blocks_of_an_array_are_found_bit_for_bit(part: Any, start: Any):
    arrays = {"kept/part": part, "kept/whole": np.arange(600.0).reshape(6, 100)}
    found = [(e.name, e.whole, e.start) for e in excerpts.found_in(arrays, arrays)]
    assert found == ([] if start is None else [("kept/part", "kept/whole", start)])


def test_signs_of_zeros_tell_blocks_apart():
    zeros = np.zeros((4, 200), np.float32)
    arrays = {"kept/a": -zeros[:2], "kept/b": zeros, "kept/c": zeros[:3, :150]}
    [found] = excerpts.found_in(arrays, arrays)
    assert (found.name, found.whole) == ("kept/c", "kept/b")


@pytest.mark.parametrize("start", [(0, 1, 0), (0, 6, 0), (0,), (0, 0, 7)])
def test_a_block_from_another_place_never_passes(start: tuple[int, ...]):
    """An honest run of the shorter member is tested with other places, or the key is refused."""
    [excerpt] = key().header.excerpts
    header = replace(key().header, excerpts=(replace(excerpt, start=start),))
    wrong = vf.VerifierKey(header, key().arrays)
    if start == (0, 1, 0):
        assert verified(tokens(LENGTHS[0]), held=wrong).verdict is Verdict.REJECT
    else:
        with pytest.raises(ValueError, match="has shape"):
            verified(tokens(LENGTHS[0]), held=wrong)


def test_a_member_takes_its_part_of_a_key_under_jit():
    short = family().members[0]
    found = jax.eval_shape(lambda k: family().member_key(k, short).arrays, key())
    assert found == short.compiled_setup.layout.arrays


def test_a_key_that_lacks_an_array_is_refused():
    arrays = dict(key().arrays)
    del arrays[next(name for name in arrays if name.startswith("projected/"))]
    with pytest.raises(ValueError, match="lacks"):
        verified(tokens(LENGTHS[0]), held=vf.VerifierKey(key().header, arrays))


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ((), ValueError, "one member at least"),
        ((tokens(8),), TypeError, "must be a tuple"),
        (((tokens(8),), (tokens(8, 1),)), ValueError, "two members have the same inputs"),
    ],
)
def test_families_that_make_no_sense_are_refused(shapes: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        vf.compile_family(model, parameters(), *shapes, policy=POLICY, self_test=False)


def test_another_shape_is_refused_with_those_that_fit():
    with pytest.raises(ValueError, match=r"int32\[2,8\].*int32\[2,12\].*not for \(int32\[2,9\]\)"):
        family().prove(parameters(), tokens(9))
    with pytest.raises(TypeError, match="the submission is missing"):
        family().verify(key(), commitment=None)  # pyright: ignore[reportArgumentType]
    assert "int32[2,8]" in str(family())


def test_a_wrong_order_names_the_argument():
    """Keys are pytrees of arrays: they must not be taken for inputs without a member."""
    x, none = tokens(LENGTHS[0]), None
    for arguments, message in (
        ((x, key(), none), "key must be a VerifierKey"),
        ((key(), none, x), "the submission, must be a Submission"),
    ):
        with pytest.raises(TypeError, match=message):
            family().verify(*arguments, commitment=none)  # pyright: ignore
    with pytest.raises(TypeError, match=r"inputs\[0\] must be an array .* got a list"):
        family().members[0].prove(parameters(), x.tolist())
    with pytest.raises(TypeError, match="of a family, the one for the job's inputs"):
        vf.evidence_of(family(), none, none)  # pyright: ignore
