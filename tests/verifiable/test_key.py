"""Verifier keys: what they hold, what they never hold, and the files that they come from."""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from safetensors import safe_open
from safetensors.numpy import save_file

from verifiable import challenge, program
from verifiable._version import __version__
from verifiable.key import FORMAT, KeyHeader, VerifierKey
from verifiable.policy import Policy
from verifiable.report import Verdict

SECRET = challenge.secret(bytes(range(32)))
TOKENS, WIDTH, WORDS = 64, 128, 50


def model(p: Any, tokens: Any) -> Any:
    """A row gather, masks and broadcasts, claimed weights, layers under a scan, a tiny product."""
    x = p["table"][tokens]
    x = x * jnp.broadcast_to(p["scale"], x.shape) + jnp.linspace(0, 1, WIDTH)
    scores = jnp.where(jnp.tril(jnp.ones((TOKENS, TOKENS), bool)), x @ x.T, -1e9)
    x = x + jax.nn.softmax(scores) @ (x @ p["up"])

    def layer(x: Any, q: Any) -> Any:
        return x + jnp.tanh(x @ q["w"] + q["b"]), None

    x, _ = lax.scan(layer, x, p["layers"])
    images = x.reshape(1, TOKENS, 8, 16)
    y = lax.conv_general_dilated(images, p["kernel"], (1, 1), "SAME")
    return y.mean((0, 2, 3)) * 2 + (x @ p["thin"])[:, 0]


@functools.cache
def parameters() -> dict[str, Any]:
    """No number occurs twice, so that one can tell where a number in the key comes from."""
    numbers = iter(np.random.default_rng(0).permutation(1 << 18) / 2**20 - 0.125)

    def uniform(*shape: int) -> Any:
        drawn = [next(numbers) for _ in range(math.prod(shape))]
        return jnp.asarray(np.reshape(drawn, shape), jnp.float32)

    return {
        "table": uniform(WORDS, WIDTH),
        "scale": uniform(WIDTH),
        "up": uniform(WIDTH, WIDTH),
        "layers": {"w": uniform(3, WIDTH, WIDTH), "b": uniform(3, WIDTH)},
        "kernel": uniform(64, TOKENS, 3, 3),
        "thin": uniform(WIDTH, 2),
    }


@dataclass(frozen=True)
class Run:
    program: program.Program
    key: VerifierKey
    tokens: Any
    y: Any
    trace: Any

    def check(self, key: VerifierKey) -> Any:
        return self.program.check(key, self.tokens, y=self.y, trace=self.trace)


@pytest.fixture(scope="module")
def run() -> Run:
    tokens = jnp.arange(TOKENS) * 7 % WORDS
    compiled = program.compile(model, parameters(), tokens)
    y, trace = jax.jit(compiled.execute)(parameters(), tokens)
    return Run(compiled, compiled.setup(parameters(), SECRET), tokens, y, trace)


def values(tree: Any) -> set[float]:
    return {float(v) for leaf in jax.tree.leaves(tree) for v in np.asarray(leaf).ravel()}


# --------------------------------------------------------------------------------- what it holds


def test_no_weight_of_a_claimed_contraction_is_in_the_key(run: Run):
    held, p = values(run.key), parameters()
    claimed = values((p["up"], p["layers"]["w"], p["kernel"]))
    assert len(claimed) == WIDTH * WIDTH * 4 + 64 * TOKENS * 9
    # Of numbers of 24 bits, a few are the same by chance.
    assert len(held & claimed) < len(claimed) / 1000
    assert {c.primitive for c in run.program.claims if c.work} == {
        "dot_general",
        "conv_general_dilated",
    }
    # The search would find them if they were there.
    assert held >= values((p["scale"], p["layers"]["b"], p["thin"]))


def test_the_key_is_small(run: Run):
    p = parameters()
    claimed = sum(a.nbytes for a in jax.tree.leaves((p["up"], p["layers"]["w"], p["kernel"])))
    kept = sum(run.program.kept.values())
    drawn = sum(a.nbytes for name, a in run.key.arrays.items() if name.startswith("vectors/"))
    assert run.key.nbytes == sum(np.asarray(a).nbytes for a in run.key.arrays.values())
    assert kept + drawn < run.key.nbytes < kept + drawn + claimed


def test_a_row_gather_keeps_its_table_and_the_table_of_claims_says_so(run: Run):
    p = parameters()
    assert values(run.key) >= values(p["table"])
    kept = run.program.kept
    assert kept["params['table']"] == p["table"].nbytes
    assert kept["params['thin']"] == p["thin"].nbytes
    assert kept["params['layers']['b']"] == p["layers"]["b"].nbytes
    assert not {"params['up']", "params['kernel']", "params['layers']['w']"} & kept.keys()
    text = str(run.program)
    assert "kept in the key" in text
    assert "params['table']" in text
    assert f"{p['table'].nbytes:,}" in text


def test_what_is_cheap_to_rebuild_is_not_kept(run: Run):
    """Masks, counters and broadcasts would be far larger than what they come from."""
    p = parameters()
    largest = max(p["table"].size, 3 * WIDTH)
    for name, array in run.key.arrays.items():
        if "kept" in name:
            assert array.size <= largest
            assert array.shape not in ((TOKENS, TOKENS), (TOKENS, WIDTH))
    from_parameters = sum(a.nbytes for a in (p["table"], p["scale"], p["layers"]["b"], p["thin"]))
    table = 4 * WIDTH  # of `linspace`
    assert sum(run.program.kept.values()) == from_parameters + table


def test_arrays_that_the_function_closes_over_count_as_parameters():
    w = parameters()["up"]
    compiled = program.compile(lambda _, x: jnp.tanh(x @ w) + w[0], (), jnp.zeros((64, WIDTH)))
    key = compiled.setup((), SECRET)
    assert not values(key) & values(w[1:])
    assert values(key) >= values(w[0])


def test_the_header_names_what_it_was_made_for(run: Run):
    header = run.key.header
    assert header.program == run.program.id
    assert header.policy == run.program.policy.id
    assert header.parameters == program.parameter_root(parameters())
    assert header.challenge == SECRET.id
    other = parameters() | {"up": parameters()["up"].at[0, 0].add(1e-3)}
    assert run.program.setup(other, SECRET).header.parameters != header.parameters
    fresh = challenge.secret(bytes(32))
    assert run.program.setup(parameters(), fresh).header.challenge != header.challenge


def test_the_root_of_the_parameters_binds_types_shapes_and_order():
    a, b = np.arange(4, dtype=np.float32), np.arange(4, 8, dtype=np.float32)
    roots = [
        program.parameter_root(x)
        for x in (
            (a, b),
            (b, a),
            (a,),
            (a, b, a),
            (a.reshape(2, 2), b),
            (a.view(np.int32), b),
            (a, -b),
        )
    ]
    assert len(set(roots)) == len(roots)
    assert program.parameter_root({"x": a, "y": b}) == roots[0]
    assert program.parameter_root((jnp.asarray(a), b)) == roots[0]


def test_a_challenge_decides_the_whole_projection(run: Run):
    other = run.program.setup(parameters(), challenge.secret(bytes(32)))
    for name in run.key.arrays:
        same = np.array_equal(run.key.arrays[name], other.arrays[name])
        drawn = name.startswith("vectors/") or name.endswith("image")
        assert same == (not drawn), name


# ------------------------------------------------------------------------------------ never shown


def test_the_content_is_never_shown(run: Run):
    key = run.key
    texts = [
        repr(key),
        str(key),
        f"{key}",
        f"{key!s:>400}",
        repr([key]),
        str({"key": key}),
        repr(key.header),
        str(jax.tree.structure(key)),
    ]
    for array in key.arrays.values():
        for value in np.asarray(array).ravel()[:3]:
            shown = f"{float(value):.6g}"
            assert len(shown) < 5 or all(shown not in text for text in texts)
    assert all("array" not in text.lower() for text in texts[:7])
    assert run.program.id.hex()[:16] in str(key)
    assert str(key.nbytes) in str(key)


def test_a_key_is_a_pytree_that_cannot_be_changed(run: Run):
    assert len(jax.tree.leaves(run.key)) == len(run.key.arrays)
    copy = jax.tree.map(lambda x: x, run.key)
    assert copy.header == run.key.header
    with pytest.raises(FrozenInstanceError):
        run.key.header = copy.header  # type: ignore[misc]


def test_keys_pass_through_jit(run: Run):
    run_check = jax.jit(
        lambda key: run.program.statistics(key, run.tokens, y=run.y, trace=run.trace)
    )
    with jax.enable_x64(True):
        findings, _ = run_check(run.key)
    assert all(bool(np.all(s.passed)) for s in findings.statistics.values())


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_not_copied_or_pickled(leak: Callable[[Any], Any]):
    with pytest.raises(TypeError, match="to_bytes"):
        leak(tiny_key())


def test_keys_pass_through_vmap_and_tree_functions():
    key = tiny_key()
    doubled = jax.vmap(lambda key, x: key.arrays["kept/0"] * x, (None, 0))(key, jnp.arange(3.0))
    assert doubled.shape == (3, 3, 2)
    leaves, structure = jax.tree.flatten(key)
    assert jax.tree.unflatten(structure, leaves).header == key.header


def test_a_header_that_does_not_fit_names_both_sides_of_each():
    header = replace(tiny_key().header, version=__version__)
    header.require(program=header.program, policy=header.policy)
    header.require(program=header.program, policy=header.policy, parameters=header.parameters)
    with pytest.raises(ValueError, match=r"Program\.setup") as caught:
        header.require(program=b"x" * 32, policy=b"y" * 32, parameters=b"z" * 32)
    for side in (header.program, header.policy, header.parameters):
        assert side.hex() in str(caught.value)
    for side in (b"x", b"y", b"z"):
        assert (side * 32).hex() in str(caught.value)


@pytest.mark.parametrize("name", ["program", "policy", "parameters", "challenge"])
@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_header_has_digests(name: str, length: int):
    digests = dict.fromkeys(("program", "policy", "parameters", "challenge"), bytes(32))
    KeyHeader(**digests, version="1")
    with pytest.raises(ValueError, match=f"{name} must be 32 bytes, got {length}"):
        KeyHeader(**(digests | {name: bytes(length)}), version="1")


# ------------------------------------------------------------------------------------------ files


def test_a_key_survives_its_file(run: Run, tmp_path: Path):
    path = tmp_path / "key"
    run.key.save(path)
    loaded = VerifierKey.load(path)
    assert loaded.header == run.key.header
    assert loaded.arrays.keys() == run.key.arrays.keys()
    for name, array in run.key.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.asarray(loaded.arrays[name]).tobytes() == np.asarray(array).tobytes()
    report = run.check(loaded)
    assert report.verdict is Verdict.ACCEPT, report
    assert report.worst == run.check(run.key).worst


def tiny_key(dtype: str = "float32", version: str = "1") -> VerifierKey:
    digests = {n: bytes([i]) * 32 for i, n in enumerate(("program", "policy", "parameters"))}
    header = KeyHeader(**digests, challenge=b"c" * 32, version=version)
    with jax.enable_x64(True):
        array = jnp.arange(6).reshape(2, 3).T.astype(dtype)
        return VerifierKey(header, {"kept/0": array, "kept/1": array[0, 0]})


@pytest.mark.parametrize(
    "dtype",
    "bool int8 uint8 int16 int32 int64 uint64 float16 bfloat16 float32 float64 complex64".split(),
)
def test_every_type_survives_its_file(dtype: str, tmp_path: Path):
    key = tiny_key(dtype)
    key.save(tmp_path / "key")
    loaded = VerifierKey.load(tmp_path / "key")
    for name, array in key.arrays.items():
        assert (loaded.arrays[name].dtype, loaded.arrays[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(loaded.arrays[name], array)


def test_a_key_survives_its_bytes(run: Run):
    again = VerifierKey.from_bytes(run.key.to_bytes())
    assert again.header == run.key.header
    assert again.arrays.keys() == run.key.arrays.keys()
    assert all(np.array_equal(again.arrays[name], a) for name, a in run.key.arrays.items())


@pytest.mark.parametrize("dtype", ["complex128", "float8_e4m3fn", "int4"])
def test_other_types_cannot_be_saved(dtype: str, tmp_path: Path):
    with pytest.raises(TypeError, match=dtype):
        tiny_key(dtype).save(tmp_path / "key")
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_the_file(mask: int, tmp_path: Path):
    before = os.umask(mask)
    try:
        tiny_key().save(tmp_path / "key")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_what_exists_is_not_overwritten(kind: str, tmp_path: Path):
    path, target = tmp_path / "key", tmp_path / "target"
    if kind == "file":
        path.write_bytes(b"precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"choose a new path.*key"):
        tiny_key().save(path)
    if kind == "file":
        assert path.read_bytes() == b"precious"
    assert kind != "dangling link" or not target.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601, 0o777])
def test_a_file_that_others_can_read_is_refused(mode: int, tmp_path: Path):
    path = tmp_path / "key"
    tiny_key().save(path)
    path.chmod(mode)
    with pytest.raises(PermissionError, match=f"mode 0{mode:o}"):
        VerifierKey.load(path)
    path.chmod(0o400)
    assert VerifierKey.load(path).header == tiny_key().header


def metadata(**changes: str | None) -> dict[str, str]:
    header = {n: (bytes(32)).hex() for n in ("program", "policy", "parameters", "challenge")}
    full = {"format": FORMAT, "version": "1", "excerpts": "[]", **header, **changes}
    return {k: v for k, v in full.items() if v is not None}


def small_floats() -> bytes:
    tensor = {"dtype": "F8_E5M2", "shape": [3], "data_offsets": [0, 3]}
    header = json.dumps({"__metadata__": metadata(), "kept/0": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(3)


def with_metadata(data: dict[str, str] | None) -> Callable[[Path], None]:
    return lambda path: save_file({"kept/0": np.zeros(3, np.float32)}, path, data)


def with_bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def cut(path: Path) -> None:
    tiny_key().save(path)
    path.write_bytes(path.read_bytes()[:-3])


def extended(path: Path) -> None:
    tiny_key().save(path)
    path.write_bytes(path.read_bytes() + b"more")


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": with_bytes(b""),
    "a few bytes": with_bytes(b"key"),
    "random bytes": with_bytes(np.random.default_rng(0).bytes(500)),
    "a header of 2^63 bytes": with_bytes((2**63).to_bytes(8, "little") + b"{}"),
    "a pickle": with_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94."),
    "a header that is no JSON": with_bytes((4).to_bytes(8, "little") + b"{{{{"),
    "cut short": cut,
    "with bytes at its end": extended,
    "no metadata": with_metadata(None),
    "no format": with_metadata(metadata(format=None)),
    "another format": with_metadata(metadata(format="verifiable key 2")),
    "no version": with_metadata(metadata(version=None)),
    "no program": with_metadata(metadata(program=None)),
    "no challenge": with_metadata(metadata(challenge=None)),
    "a digest that is short": with_metadata(metadata(policy="00" * 31)),
    "a digest that is no number": with_metadata(metadata(parameters="zz" * 32)),
    "no excerpts": with_metadata(metadata(excerpts=None)),
    "excerpts that are no list": with_metadata(metadata(excerpts="3")),
    "an excerpt of nothing": with_metadata(metadata(excerpts='[["kept/1"]]')),
    "an excerpt from before the start": with_metadata(metadata(excerpts='[["a", "kept/0", [-1]]]')),
    "an excerpt without a name": with_metadata(metadata(excerpts='[[1, "kept/0", [1]]]')),
    "an array of a type that no key holds": with_bytes(small_floats()),
    "a folder": lambda path: path.mkdir(mode=0o700),
    "nothing": lambda _path: None,
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_key_is_refused(make: Callable[[Path], Any], tmp_path: Path):
    path = tmp_path / "key"
    make(path)
    if path.is_file():
        path.chmod(0o600)
        with pytest.raises(ValueError):
            VerifierKey.from_bytes(path.read_bytes())
    with pytest.raises(ValueError) as caught:
        VerifierKey.load(path)
    assert len(str(caught.value)) < 1000


def test_the_file_is_safetensors_with_the_header_in_clear(run: Run, tmp_path: Path):
    run.key.save(tmp_path / "key")
    with safe_open(tmp_path / "key", "numpy") as file:
        found = file.metadata()
        assert set(file.keys()) == set(run.key.arrays)
    header = run.key.header
    assert found == {
        "format": FORMAT,
        "version": header.version,
        "program": header.program.hex(),
        "policy": header.policy.hex(),
        "parameters": header.parameters.hex(),
        "challenge": header.challenge.hex(),
        "excerpts": "[]",
    }


# ------------------------------------------------------------------------------ keys of another


def test_the_key_of_another_program_is_refused(run: Run):
    other = program.compile(lambda p, x: model(p, x) + 1, parameters(), run.tokens)
    with pytest.raises(ValueError, match="program") as caught:
        other.check(run.key, run.tokens, y=run.y, trace=run.trace)
    assert run.program.id.hex()[:16] in str(caught.value)
    assert other.id.hex()[:16] in str(caught.value)


def test_the_key_of_another_policy_is_refused(run: Run):
    other = program.compile(model, parameters(), run.tokens, policy=Policy(phi=1e-6))
    assert other.id == run.program.id
    with pytest.raises(ValueError, match="policy") as caught:
        other.check(run.key, run.tokens, y=run.y, trace=run.trace)
    assert run.program.policy.id.hex()[:16] in str(caught.value)
    assert other.policy.id.hex()[:16] in str(caught.value)


def test_the_key_of_other_parameters_is_refused(run: Run):
    """Stale or fine-tuned weights: the job names the root that the key is held to."""
    root = program.parameter_root(parameters())
    arguments = {"y": run.y, "trace": run.trace}
    report = run.program.check(run.key, run.tokens, **arguments, parameters=root)
    assert report.verdict is Verdict.ACCEPT
    stale = parameters() | {"up": parameters()["up"] + 1e-3}
    key = run.program.setup(stale, SECRET)
    with pytest.raises(ValueError, match="parameters") as caught:
        run.program.check(key, run.tokens, **arguments, parameters=root)
    assert root.hex()[:16] in str(caught.value)
    assert key.header.parameters.hex()[:16] in str(caught.value)


def test_the_key_of_another_version_is_refused(run: Run):
    header = replace(run.key.header, version="0.0.0")
    with pytest.raises(ValueError, match=r"version 0\.0\.0, this is"):
        run.check(VerifierKey(header, run.key.arrays))


def changed(run: Run, change: Callable[[dict[str, Any]], None]) -> VerifierKey:
    arrays = dict(run.key.arrays)
    change(arrays)
    return VerifierKey(run.key.header, arrays)


def first(arrays: dict[str, Any], part: str) -> str:
    return min(name for name in arrays if part in name)


def reshape(arrays: dict[str, Any]) -> None:
    name = first(arrays, "kept")
    arrays[name] = arrays[name].reshape(-1)[:-1]


def retype(arrays: dict[str, Any]) -> None:
    name = first(arrays, "image")
    arrays[name] = arrays[name].astype(jnp.float16)


def fewer_draws(arrays: dict[str, Any]) -> None:
    """A key of fewer vectors than the policy says would prove less than the report claims."""
    name = first(arrays, "vectors/")
    arrays[name] = arrays[name][:, :1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(first(a, "image")), "lacks"),
        (lambda a: a.pop(first(a, "vectors/")), "lacks"),
        (lambda a: a.update(more=jnp.zeros(1)), "excess"),
        (lambda a: a.clear(), "lacks"),
        (reshape, "has shape"),
        (retype, "type float16"),
        (fewer_draws, "has shape"),
    ],
    ids=["no projection", "no vectors", "one more", "empty", "shape", "type", "fewer draws"],
)
def test_a_key_with_other_arrays_is_refused(
    run: Run, change: Callable[[dict[str, Any]], None], message: str
):
    assert run.check(run.key).verdict is Verdict.ACCEPT  # compiled for a good key, it still looks
    with pytest.raises(ValueError, match=message):
        run.check(changed(run, change))


def test_an_honest_run_is_accepted(run: Run):
    """So that every refusal above is for its own reason."""
    report = run.check(run.key)
    assert report.verdict is Verdict.ACCEPT, report
