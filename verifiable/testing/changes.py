"""Changes to one array that a device commits to, in place of the honest value.

Each function takes a numpy array of at least one element and returns one that differs; it may
change the array it is given. Where a change concerns one element or row, it is near the beginning.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

Value: TypeAlias = "np.ndarray[Any, Any]"


def place(shape: tuple[int, ...], column: int = 7) -> tuple[int, ...]:
    """The element that is changed: of the second row, where there is one."""
    wanted = (0,) * max(len(shape) - 2, 0) + ((1,) if len(shape) > 1 else ())
    wanted = (*wanted, column) if shape else ()
    return tuple(min(i, n - 1) for i, n in zip(wanted, shape, strict=True))


def one_element(value: Value) -> Value:
    """Change one number by a hundredth of its row, and by 1 at least if it is an integer."""
    value[place(value.shape)] += _step(value)
    return value


def equal_and_opposite(value: Value) -> Value:
    """Change two numbers of one row and keep their sum: random signs miss it half the time."""
    value[place(value.shape, 3)] += _step(value)
    value[place(value.shape, 11)] -= _step(value)
    return value


def _step(value: Value) -> Any:
    norm = np.linalg.norm(np.atleast_1d(value[place(value.shape)[:-1]]).astype(np.float64))
    step = max(1.0, 0.01 * norm) if value.dtype.kind in "iu" else 0.01 * norm or 1.0
    return np.asarray(step).astype(value.dtype)


def flipped_signs(value: Value) -> Value:
    """Flip the sign of the smaller half of all numbers."""
    size = np.abs(value.astype(np.float64))
    value[size < np.median(size)] *= -1
    return value


def only_the_largest(value: Value) -> Value:
    """Keep one number in ten, the largest, and send zeros for the others."""
    size = np.abs(value.astype(np.float64))
    value[size < np.quantile(size, 0.9)] = 0
    return value


def not_a_number(value: Value) -> Value:
    """Put NaN, for which comparisons with a tolerance are false in both directions."""
    return _with_float(value, np.nan)


def infinity(value: Value) -> Value:
    """Put an infinity, which makes every norm of its row infinite."""
    return _with_float(value, np.inf)


def _with_float(value: Value, put: float) -> Value:
    # Integers have no such values: a device that wants to send one must send floats.
    if value.dtype.kind in "iub":
        value = value.astype(np.float32)
    value[place(value.shape)] = put
    return value


def overflow(value: Value) -> Value:
    """Fill a row with finite floats whose squares overflow, or with the largest integer."""
    integers = value.dtype.kind in "iu"
    most = np.iinfo(value.dtype).max if integers else min(3e38, float(jnp.finfo(value.dtype).max))
    value[place(value.shape)[:-1]] = most
    return value


def wrapped(value: Value) -> Value:
    """Add 2^31 to one int32: arithmetic modulo 2^32 misses it half the time."""
    here = place(value.shape)
    value[here] = (np.int64(value[here]) + 2**31).astype(value.dtype)
    return value


def one_level(value: Value) -> Value:
    """Move one element: int8 by one level, float16 and bfloat16 by 32 units in the last place."""
    here = place(value.shape)
    bits = value.view(np.int16 if value.dtype.itemsize == 2 else np.int8)
    bits[here] += np.int8(32 if bits.dtype == np.int16 else 1 if bits[here] < 100 else -1)
    return value


def halved(value: Value) -> Value:
    """Halve all values, as if the scale had been doubled."""
    half = value // 2 if value.dtype.kind in "iu" else value * value.dtype.type(0.5)
    return half.astype(value.dtype)


def rounded_down(value: Value) -> Value:
    """Lower every other element, always in the cheat's favour: int8 by one, floats by 1/32."""
    other = value[..., ::2]
    lower = other - 1 if value.dtype.kind in "iu" else other.astype(np.float32) * (1 - 2.0**-5)
    value[..., ::2] = lower.astype(value.dtype)
    return value


def moved_rows(value: Value) -> Value:
    """Move every row by one place: the same numbers, in another order."""
    return np.roll(value, 1, axis=0) if value.ndim else value


def one_bit(value: Value) -> Value:
    """Flip the lowest bit of the first byte."""
    value = np.array(value, order="C")
    value.reshape(-1).view(np.uint8)[0] ^= 1
    return value


def every_bit(value: Value) -> Value:
    """Invert every bit of integers, and every boolean: decisions are committed so."""
    return np.invert(value)
