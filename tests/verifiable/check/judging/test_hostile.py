"""Whatever a device sends is a report, and the caller's mistakes are not the device's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.runs import ACCEPT, REJECT, ROWS, WIDTH, W, honest
from verifiable.key import VerifierKey
from verifiable.trace import Trace

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


def test_an_array_of_a_weak_type_or_on_a_device_of_its_own_is_an_array():
    """JAX would compile the check anew for each, or refuse to mix devices."""
    run = honest("dense")
    parts = run.program.compiled_check.parts
    assert run.check(run.y, run.claims).verdict is ACCEPT
    compiled = [part._cache_size() for part in parts]  # type: ignore[attr-defined]
    committed = jax.device_put(run.claims[0], jax.devices()[0])
    weak = jax.jit(lambda: jnp.broadcast_to(jnp.asarray(1.0), run.claims[0].shape))()
    assert weak.weak_type
    assert run.check(run.y, (committed, run.claims[1])).verdict is ACCEPT
    assert run.check(run.y, (weak, run.claims[1])).reason == "claim-mismatch"
    assert [part._cache_size() for part in parts] == compiled  # type: ignore[attr-defined]


class NoArray(jax.Array):
    """Says of itself what the check asks an array."""

    shape = (ROWS, WIDTH)
    dtype = np.dtype(np.float32)
    committed = weak_type = False

    def is_deleted(self) -> bool:
        return False


def test_a_subclass_of_jax_arrays_is_no_array():
    run = honest("dense")
    thing = object.__new__(NoArray)
    report = run.check(run.y, (thing, run.claims[1]))
    assert (report.verdict, report.reason) == (REJECT, "trace-structure")


def test_deleted_inputs_and_keys_are_the_callers_mistake():
    run = honest("dense")
    x, n = run.inputs
    with pytest.raises(ValueError, match=r"inputs\[0\] was deleted"):
        run.check(run.y, run.claims, (_deleted(x), n))
    with pytest.raises(ValueError, match="params was deleted"):
        run.program.prove(_deleted(W), x, n)
    name = next(iter(run.key.arrays))
    key = VerifierKey(run.key.header, run.key.arrays | {name: _deleted(run.key.arrays[name])})
    with pytest.raises(ValueError, match="of the key was deleted"):
        run.program.check(key, *run.inputs, y=run.y, trace=run.claims)


def _deleted(array: Any) -> Any:
    with jax.enable_x64(True):
        copy = jnp.array(array)
    copy.delete()
    return copy
