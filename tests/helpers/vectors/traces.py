"""Tensors, commitments to traces, openings, and the noise of a sampler."""

from __future__ import annotations

import math
import struct
from typing import Any

import jax
import numpy as np
from blake3 import blake3

from tests.helpers.vectors.values import Given, Operations, number, octets, require_value
from verifiable import trace
from verifiable.encoding import require_tensor_dtype, tensor_bytes, tensor_from_bytes
from verifiable.generation.noise import gumbel
from verifiable.merkle import BLAKE3


def _shown(array: np.ndarray[Any, Any]) -> list[str]:
    if array.dtype.kind == "c":
        parts = array.reshape(-1)[:, None].view(array.real.dtype)
        return _shown(parts)
    if array.dtype.kind in "biu":
        return [str(int(x)) for x in array.reshape(-1)]
    wide = [float(x) for x in array.reshape(-1)]
    return ["nan" if math.isnan(x) else struct.pack(">d", x).hex() for x in wide]


def read(given: Given) -> list[str]:
    data = octets(given["data"])
    array = tensor_from_bytes(data, tuple(given["shape"]), given["dtype"])
    assert tensor_bytes(array) == data
    return _shown(array)


def as_bytes(given: Given) -> None:
    dtype = require_tensor_dtype(given["dtype"])
    texts = given["elements"]
    if "float" in dtype.name or dtype.kind == "c":
        values = [struct.unpack(">d", bytes.fromhex(text))[0] for text in texts]
    else:
        values = [int(text) for text in texts]
    if dtype.kind == "c":
        values = [complex(*values[i : i + 2]) for i in range(0, len(values), 2)]
    wide = dtype if dtype.kind in "biu" else np.complex128 if dtype.kind == "c" else np.float64
    array = np.asarray(values, wide).astype(dtype).reshape(given["shape"])
    require_value(given["data"], bytes(tensor_bytes(array)).hex())


def layout_of(given: Given) -> trace.Layout:
    tensors = [
        jax.ShapeDtypeStruct(t["shape"], require_tensor_dtype(t["dtype"])) for t in given["layout"]
    ]
    claims = given["claims"]
    values, y = tuple(tensors[:claims]), tuple(tensors[claims:])
    leaf_bytes = given.get("leaf_bytes", trace.LEAF_BYTES)
    with jax.enable_x64(True):
        return trace.Layout.of(y, trace.Trace(values=values), leaf_bytes=leaf_bytes)


def commitment_of(given: Given) -> trace.Commitment:
    found = given["commitment"]
    return trace.Commitment(root=octets(found["root"]), size=number(found["size"]))


def _array(sent: Given) -> np.ndarray[Any, Any]:
    # As a careless receiver would make it: a boolean of 2 must be found later.
    dtype = require_tensor_dtype(sent["dtype"])
    return np.frombuffer(octets(sent["data"]), dtype).reshape(sent["shape"])


def commit(given: Given) -> list[Any]:
    layout, commitment = layout_of(given), commitment_of(given)
    arrays = [_array(t) for t in given["tensors"]]
    values, y = tuple(arrays[: given["claims"]]), tuple(arrays[given["claims"] :])
    trace.verify(commitment, y, trace.Trace(values=values), layout=layout)
    committed = trace.commit(y, trace.Trace(values=values), layout=layout)
    opened = committed.open_all().leaves
    return [[*_rows(layout, i), BLAKE3.leaf(data).hex()] for i, data in enumerate(opened)]


def _rows(layout: trace.Layout, leaf: int) -> list[int]:
    place = layout.rows_of(leaf)
    return [place.tensor, place.start, place.stop]


def decode(given: Given) -> list[str]:
    y, found = trace.decode(octets(given["data"]), layout_of(given))
    assert trace.encode(y, found) == octets(given["data"])
    return [bytes(tensor_bytes(x)).hex() for x in (*found.values, *y)]


def open_(given: Given) -> list[Any]:
    layout, commitment = layout_of(given), commitment_of(given)
    leaves, proof = (
        [octets(item) for item in given[name]] if given[name] is not None else None
        for name in ("leaves", "proof")
    )
    opening = trace.Opening(leaves=leaves, proof=proof)  # pyright: ignore[reportArgumentType]
    found = trace.verify_opening(commitment, layout, opening, indices=given["indices"])
    return [[rows.place.tensor, rows.place.start, rows.place.stop] for rows in found]


def noise(given: Given) -> None:
    made = gumbel(octets(given["seed"]), 1, given["vocabulary"], start=number(given["position"]))
    require_value(given["digest"], blake3(made.astype("<f4").tobytes()).hexdigest())


OPERATIONS: Operations = {
    "tensors/read": read,
    "tensors/bytes": as_bytes,
    "commitments/commit": commit,
    "commitments/decode": decode,
    "openings/open": open_,
    "noise/noise": noise,
}
