"""Claims that need no key: integer products, lookups, roundings, decisions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from tests.helpers.roundings import LEVELS, narrowing
from tests.helpers.vectors.values import Given, Operations, Refused, octets
from verifiable import challenge
from verifiable.claims.decisions.decision import Comparison, Sign
from verifiable.claims.form import Form, Yardstick
from verifiable.claims.lookup import Lookup, fingerprints, words_of
from verifiable.claims.roundings.rounding import Rounding
from verifiable.claims.roundings.steps import RoundingStep
from verifiable.claims.statistic import Statistic, judge
from verifiable.encoding import require_tensor_dtype
from verifiable.freivalds import verify_dot_general

F32, I8, BF16 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(ml_dtypes.bfloat16)
CHAINS = {
    "bfloat16": narrowing(BF16),
    "int8": LEVELS,
    "floor": Rounding(steps=(RoundingStep(kind="floor"),), source=F32, dtype=F32),
}


_fingerprints = jax.jit(fingerprints)


def require_ok(reason: str) -> None:
    if reason != "ok":
        raise Refused(reason)


def product(given: Given) -> None:
    drawn = challenge.secret(octets(given["random"]))
    a, b = (np.asarray(given[x], t) for x, t in zip("ab", given["types"], strict=True))
    c = np.asarray(given["c"]).astype(given["dtype"])
    require_ok(verify_dot_general(drawn, a, b, c, preferred_element_type=np.int32).reason)


def compare(given: Given) -> None:
    dtype = require_tensor_dtype(given["dtype"])
    row, claim = (np.frombuffer(octets(given[name]), dtype)[None] for name in ("row", "claim"))
    words = row.shape[1] * words_of(dtype)
    drawn = challenge.secret(octets(given["random"]))
    with jax.enable_x64(True):
        g = jnp.asarray(drawn.residues(f"exact/lookup/{words}", (words, 1)))
        mine, theirs = (np.asarray(_fingerprints(jnp.asarray(x), g)) for x in (row, claim))
    require_ok("ok" if np.array_equal(mine, theirs) else Lookup.mismatch)


@functools.cache
def _tested(form: Form) -> Any:
    def test(operands: list[Any], claim: Any, eps: Any) -> Statistic:
        with jax.enable_x64(True):
            return form.test(operands, claim, Yardstick(eps=eps))

    return jax.jit(test)


def _judge(form: Form, operands: list[Any], claim: Any, eps: float) -> None:
    found = _tested(form)([_floats(x) for x in operands], claim, eps)
    require_ok(judge(Statistic(*map(np.asarray, found)), form.mismatch)[1])


def _floats(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.asarray([float(x) for x in values], np.float32)


def rounding(given: Given) -> None:
    form = CHAINS[given["chain"]]
    _judge(form, [given["value"]], _floats(given["claim"]).astype(form.dtype), given["eps"])


def comparison(given: Given) -> None:
    shape = (len(given["a"]),)
    form = Comparison(kind=given["kind"], shape=shape, dtype=F32, inexact=(True, True))
    claim = np.frombuffer(octets(given["claim"]), np.uint8)
    _judge(form, [given["a"], given["b"]], claim, given["eps"])


def sign(given: Given) -> None:
    form = Sign(shape=(len(given["value"]),), dtype=F32)
    _judge(form, [given["value"]], np.asarray(given["claim"], np.int8), given["eps"])


OPERATIONS: Operations = {
    "exact/product": product,
    "lookups/compare": compare,
    "roundings/rounding": rounding,
    "decisions/comparison": comparison,
    "decisions/sign": sign,
}
