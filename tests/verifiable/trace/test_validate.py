"""What a device sends may be any object: only `MalformedEncoding` comes of it, in linear time."""

from __future__ import annotations

import collections
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.traces import FLAG, HONEST, A, B, Y
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.testing.hostile import OBJECTS
from verifiable.trace import Layout, Trace, commit, verify
from verifiable.trace.validate import leaves_up_to


class Pair(NamedTuple):
    left: Any
    right: Any


class Other(NamedTuple):
    left: Any
    right: Any


PLACES: dict[str, Any] = {
    "answer": lambda x: (x, HONEST.trace),
    "part of the answer": lambda x: ({"a": FLAG, "b": x}, HONEST.trace),
    "trace": lambda x: (Y, x),
    "values": lambda x: (Y, Trace(values=x)),
    "claim": lambda x: (Y, Trace(values=(A, x))),
    "answer and trace": lambda x: (x, x),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", OBJECTS)
def test_any_object_is_refused_soon(name: str, place: str):
    committed = HONEST.commit()
    y, claims = PLACES[place](OBJECTS[name]())
    start = time.perf_counter()
    with pytest.raises(MalformedEncoding) as caught:
        verify(committed.commitment, y, claims, layout=committed.layout)
    assert time.perf_counter() - start < 5
    assert len(str(caught.value)) < 300


def test_a_trace_that_is_a_subclass_is_refused():
    class Traced(Trace):
        pass

    committed = HONEST.commit()
    with pytest.raises(MalformedEncoding, match="expected a Trace, got Traced"):
        verify(committed.commitment, Y, Traced(values=(A, B)), layout=committed.layout)


class AnyAttribute(Exception):
    """An error with a text that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unprintable(list[Any]):
    """A list that cannot be printed."""

    def __repr__(self) -> str:
        raise AnyAttribute


def test_what_is_received_is_never_printed():
    committed = HONEST.commit()
    for y in (Unprintable([FLAG]), [Unprintable(), Unprintable()], {"a": Unprintable(), "b": A}):
        with pytest.raises(MalformedEncoding) as caught:
            verify(committed.commitment, y, HONEST.trace, layout=committed.layout)
        assert "Unprintable" in str(caught.value) or "list" in str(caught.value)


leaves = st.just(FLAG) | st.just(A)
trees = st.recursive(
    leaves | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=2).map(collections.OrderedDict)
        | st.tuples(inner, inner).map(lambda pair: Pair(*pair))
        | st.tuples(inner, inner).map(lambda pair: Other(*pair))
        | inner.map(lambda x: Trace(values=(x,)))
    ),
    max_leaves=6,
)


def flattened(structure: Any, y: Any) -> list[Any] | None:
    """By JAX, or None where it refuses."""
    try:
        return structure.flatten_up_to(y)
    except ValueError:
        return None


@given(expected=trees, received=trees)
def test_the_walk_accepts_what_jax_does(expected: Any, received: Any):
    structure = jax.tree_util.tree_structure(expected)
    assert [id(x) for x in leaves_up_to(structure, expected)] == [
        id(x) for x in jax.tree_util.tree_leaves(expected)
    ]
    want = flattened(structure, received)
    if want is None:
        with pytest.raises(MalformedEncoding):
            leaves_up_to(structure, received)
    else:
        assert [id(x) for x in leaves_up_to(structure, received)] == [id(x) for x in want]


@given(y=trees)
def test_every_structure_verifies(y: Any):
    trace = Trace(values=(A, B))
    verify(commit(y, trace).commitment, y, trace, layout=Layout.of(y, trace))


def test_numpy_scalars_and_mapped_files_are_arrays(tmp_path: Any):
    mapped = np.memmap(tmp_path / "claim", np.float32, "w+", shape=(6, 8))
    mapped[:] = A
    y, trace = np.float32(3), Trace(values=(mapped,))
    commitment = commit(np.array(3, np.float32), Trace(values=(A,))).commitment
    verify(commitment, y, trace, layout=Layout.of(y, trace))


def test_faults_of_the_machine_are_not_the_device_s(monkeypatch: pytest.MonkeyPatch):
    """Only what is received is read under the guard: hashing fails with its own error."""
    committed = HONEST.commit()

    def fail(_: Any) -> Any:
        raise OSError("no threads left")

    monkeypatch.setattr("verifiable.trace.commitment.digests_of", fail)
    with pytest.raises(OSError, match="no threads left") as caught:
        verify(committed.commitment, Y, HONEST.trace, layout=committed.layout)
    assert not isinstance(caught.value, VerificationError)
