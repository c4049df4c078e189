"""Operations on numbers, one by one, as XLA defines them, with numpy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from scipy import special

# What evaluates an equation, or None where only JAX does.
Rule = Callable[[Any], Callable[..., Any] | None]


def _wide(dtype: Any) -> Any:
    """The type in which numbers of a type are computed: narrow floats in float32, as by XLA."""
    return np.dtype(np.float32) if narrow(dtype) else dtype


def narrow(dtype: Any) -> bool:
    """Whether a type is a float narrower than float32."""
    return _is(dtype, np.floating) and dtype.itemsize < 4


@functools.cache
def _is(dtype: Any, kind: Any) -> bool:
    return jnp.issubdtype(dtype, kind)


def _function(compute: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
    """A function of floats, in float32 at least."""

    def rule(eqn: Any) -> Callable[..., Any]:
        out = eqn.outvars[0].aval.dtype
        wide = _wide(eqn.invars[0].aval.dtype)
        if wide == eqn.invars[0].aval.dtype:
            return lambda *xs: compute(*xs).astype(out, copy=False)
        return lambda *xs: compute(*(x.astype(wide) for x in xs)).astype(out)

    return rule


def _plain(compute: Callable[..., Any]) -> Rule:
    def rule(eqn: Any) -> Callable[..., Any]:
        del eqn
        return compute

    return rule


def _of_kinds(floats: Callable[..., Any], integers: Callable[..., Any]) -> Rule:
    def rule(eqn: Any) -> Callable[..., Any]:
        whole = jnp.issubdtype(eqn.invars[0].aval.dtype, np.integer)
        return integers if whole else _function(floats)(eqn)

    return rule


def _quotient(x: Any, y: Any) -> Any:
    """Towards zero; -1 where the divisor is zero."""
    safe = np.where(y == 0, y.dtype.type(1), y)
    found = x // safe
    found = found + ((found < 0) & (found * safe != x)).astype(x.dtype)
    least = np.iinfo(x.dtype).min
    if least:
        found = np.where((x == least) & (y == -1), x, found)
    return np.where(y == 0, np.array(-1).astype(x.dtype), found)


def _remainder(x: Any, y: Any) -> Any:
    safe = np.where(y == 0, y.dtype.type(1), y)
    return np.where(y == 0, x, np.fmod(x, safe))


def _sign(x: Any) -> Any:
    return np.where(x == 0, x, np.sign(x))


def _logistic(x: Any) -> Any:
    one = x.dtype.type(1)
    return one / (one + np.exp(-x))


def _round(eqn: Any) -> Callable[..., Any]:
    if int(eqn.params["rounding_method"]) == 1:
        return _function(np.rint)(eqn)

    def away(x: Any) -> Any:
        whole = np.trunc(x)
        return np.copysign(whole + np.where(abs(x - whole) >= x.dtype.type(0.5), np.sign(x), 0), x)

    return _function(away)(eqn)


def _integer_pow(eqn: Any) -> Callable[..., Any]:
    exponent = eqn.params["y"]

    def power(x: Any) -> Any:
        found, base, left = None, x, abs(exponent)
        while left:
            if left & 1:
                found = base if found is None else found * base
            base, left = base * base, left >> 1
        found = np.ones_like(x) if found is None else found
        return x.dtype.type(1) / found if exponent < 0 else found

    return power if jnp.issubdtype(eqn.invars[0].aval.dtype, np.integer) else _function(power)(eqn)


def _shift(left: bool, arithmetic: bool) -> Callable[..., Any]:
    def shifted(x: Any, by: Any) -> Any:
        bits = 8 * x.dtype.itemsize
        if by.size and not any(by.strides):  # one number for all
            by = by[(0,) * by.ndim]
        if left:
            return np.where((by < 0) | (by >= bits), x.dtype.type(0), np.left_shift(x, by % bits))
        if arithmetic:
            beyond = (by < 0) | (by >= bits)
            signed = x.astype(f"i{x.dtype.itemsize}")
            by = np.where(beyond, by.dtype.type(bits - 1), by).astype(signed.dtype)
            return np.right_shift(signed, by).astype(x.dtype)
        words = x.view(f"u{x.dtype.itemsize}") if x.dtype.kind == "i" else x
        by = by.astype(words.dtype)
        found = np.where(by >= bits, words.dtype.type(0), np.right_shift(words, by % bits))
        return found.astype(x.dtype)

    return shifted


def convert(x: Any, dtype: Any) -> Any:
    """Floats become integers towards zero, the nearest of their type, and zero if they are none."""
    if x.dtype == dtype:
        return x
    if dtype.kind == "b":
        return x != 0
    floats = _is(x.dtype, np.floating)
    if floats and _is(dtype, np.integer):
        limits = np.iinfo(dtype)
        wide = np.trunc(x.astype(np.float64))
        inside = np.clip(np.nan_to_num(wide, nan=0.0), float(limits.min), float(limits.max))
        top = wide >= float(limits.max)
        found = np.where(top, 0, inside).astype(dtype)
        return np.where(top, dtype.type(limits.max), found)
    if floats and narrow(x.dtype) and narrow(dtype):
        return x.astype(np.float32).astype(dtype)
    return x.astype(dtype)


def _convert(eqn: Any) -> Callable[..., Any]:
    dtype = np.dtype(eqn.params["new_dtype"])
    return lambda x: convert(x, dtype)


def _reduce_precision(eqn: Any) -> Callable[..., Any] | None:
    kept = eqn.params["exponent_bits"], eqn.params["mantissa_bits"]
    dtype = np.dtype(eqn.invars[0].aval.dtype)
    held = {"float32": (8, 23), "float64": (11, 52)}.get(dtype.name)
    if held is not None and kept[0] == held[0] and kept[1] < held[1]:
        return functools.partial(_fewer_digits, held[1] - kept[1])
    names = {(8, 7): ml_dtypes.bfloat16, (5, 10): np.float16, (8, 23): np.float32}
    narrower = names.get(kept)
    return None if narrower is None else lambda x: x.astype(narrower).astype(dtype)


def _fewer_digits(dropped: int, x: Any) -> Any:
    """Floats without their last bits, rounded to the nearest, and to even ones between two."""
    words = np.ascontiguousarray(x).reshape(x.shape).view(f"u{x.dtype.itemsize}")
    kind = words.dtype.type
    even = (words >> kind(dropped)) & kind(1)
    rounded = (words + (even + kind(2 ** (dropped - 1) - 1))) & ~kind(2**dropped - 1)
    return np.where(np.isnan(x), x, rounded.view(x.dtype))


def _clamp(least: Any, x: Any, most: Any) -> Any:
    return np.minimum(np.maximum(x, least), most)


def _select(eqn: Any) -> Callable[..., Any]:
    if len(eqn.invars) == 2:
        return lambda _, x: x
    if len(eqn.invars) == 3 and eqn.invars[0].aval.dtype == bool:
        return lambda which, no, yes: np.where(which, yes, no)
    return lambda which, *cases: np.choose(
        np.broadcast_to(np.clip(which, 0, len(cases) - 1), cases[0].shape), cases
    )


def _counted(x: Any) -> Any:
    return np.bitwise_count(x.astype(f"u{x.dtype.itemsize}")).astype(x.dtype)


def _leading_zeros(x: Any) -> Any:
    bits = 8 * x.dtype.itemsize
    words = x.astype(f"u{x.dtype.itemsize}")
    found = np.full(x.shape, bits)
    for bit in range(bits):
        found = np.where(words >> words.dtype.type(bit), bits - 1 - bit, found)
    return found.astype(x.dtype)


def _bitcast(eqn: Any) -> Callable[..., Any] | None:
    dtype, held = np.dtype(eqn.params["new_dtype"]), eqn.invars[0].aval.dtype
    if dtype == held:
        return lambda x: x
    if bool in (dtype, held) or "int4" in dtype.name + held.name or "int2" in dtype.name:
        return None
    if dtype.itemsize == held.itemsize:
        return lambda x: np.ascontiguousarray(x).reshape(x.shape).view(dtype)
    shape = eqn.outvars[0].aval.shape
    return lambda x: np.frombuffer(np.ascontiguousarray(x).tobytes(), dtype).reshape(shape)


_FUNCTIONS = {
    **{name: getattr(np, name) for name in "sin cos tan sinh cosh tanh exp exp2 expm1".split()},
    **{name: getattr(np, name) for name in "log log1p ceil floor sqrt cbrt".split()},
    **{"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2},
    **{"asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "logistic": _logistic},
    **{"erf": special.erf, "erfc": special.erfc, "erf_inv": special.erfinv},
    "rsqrt": lambda x: x.dtype.type(1) / np.sqrt(x),
    "pow": np.power,
}
_PLAIN = {
    **{"add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply},
    **{"neg": np.negative, "abs": np.abs, "square": np.square, "sign": _sign},
    **{"max": np.maximum, "min": np.minimum, "is_finite": np.isfinite, "clamp": _clamp},
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal},
    **{"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert},
    **{"shift_left": _shift(True, False), "shift_right_logical": _shift(False, False)},
    **{"shift_right_arithmetic": _shift(False, True), "nextafter": np.nextafter},
    **{"population_count": _counted, "clz": _leading_zeros},
    **dict.fromkeys(("copy", "copy_p", "stop_gradient"), lambda x: x),
}

RULES: dict[str, Rule] = {
    **{name: _function(compute) for name, compute in _FUNCTIONS.items()},
    **{name: _plain(compute) for name, compute in _PLAIN.items()},
    "div": _of_kinds(np.divide, _quotient),
    "rem": _of_kinds(np.fmod, _remainder),
    "round": _round,
    "integer_pow": _integer_pow,
    "convert_element_type": _convert,
    "reduce_precision": _reduce_precision,
    "select_n": _select,
    "bitcast_convert_type": _bitcast,
}
