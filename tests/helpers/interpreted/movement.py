"""Moving, choosing, sorting and reducing data as XLA defines it, with numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.helpers.interpreted.elementwise import Rule, narrow


def _broadcast(eqn: Any) -> Callable[..., Any] | None:
    if len(eqn.invars) != 1:
        return None
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    ones = [1] * len(shape)
    for size, place in zip(eqn.invars[0].aval.shape, places, strict=True):
        ones[place] = size
    return lambda x: np.broadcast_to(x.reshape(ones), shape)


def _reshape(eqn: Any) -> Callable[..., Any] | None:
    shape = eqn.outvars[0].aval.shape
    permuted = eqn.primitive.name == "reshape" and eqn.params["dimensions"] is not None
    return (lambda x: x.reshape(shape)) if not permuted and len(eqn.invars) == 1 else None


def _transpose(eqn: Any) -> Callable[..., Any]:
    order = tuple(eqn.params["permutation"])
    return lambda x: x.transpose(order)


def _concatenate(eqn: Any) -> Callable[..., Any]:
    axis = eqn.params["dimension"]
    return lambda *xs: np.concatenate(xs, axis)


def _stack(eqn: Any) -> Callable[..., Any]:
    axis = eqn.params["axis"]
    return lambda *xs: np.stack(xs, axis)


def _slice(eqn: Any) -> Callable[..., Any]:
    params = eqn.params
    steps = params["strides"] or [1] * len(params["start_indices"])
    place = tuple(map(slice, params["start_indices"], params["limit_indices"], steps))
    return lambda x: x[place]


def _clamped(
    starts: Sequence[Any], whole: Sequence[int], sizes: Sequence[int]
) -> tuple[slice, ...]:
    first = [min(max(int(a), 0), w - n) for a, w, n in zip(starts, whole, sizes, strict=True)]
    return tuple(slice(a, a + n) for a, n in zip(first, sizes, strict=True))


def _dynamic_slice(eqn: Any) -> Callable[..., Any]:
    sizes = eqn.params["slice_sizes"]
    return lambda x, *starts: x[_clamped(starts[: x.ndim], x.shape, sizes)]


def _dynamic_update_slice(eqn: Any) -> Callable[..., Any]:
    del eqn

    def updated(x: Any, update: Any, *starts: Any) -> Any:
        found = x.copy()
        found[_clamped(starts, x.shape, update.shape)] = update
        return found

    return updated


def _pad(eqn: Any) -> Callable[..., Any]:
    config, shape = eqn.params["padding_config"], eqn.outvars[0].aval.shape

    def padded(x: Any, value: Any) -> Any:
        found = np.full(shape, value, x.dtype)
        targets, sources = [], []
        for (low, _, inner), size, whole in zip(config, x.shape, shape, strict=True):
            places = low + np.arange(size) * (inner + 1)
            held = (places >= 0) & (places < whole)
            targets.append(places[held])
            sources.append(np.flatnonzero(held))
        found[np.ix_(*targets)] = x[np.ix_(*sources)]
        return found

    return (lambda x, _: x) if not shape else padded


def _split(eqn: Any) -> Callable[..., Any]:
    ends, axis = np.cumsum(eqn.params["sizes"])[:-1], eqn.params["axis"]
    return lambda x: np.split(x, ends, axis)


def _iota(eqn: Any) -> Callable[..., Any] | None:
    params = eqn.params
    if eqn.invars:
        return None
    shape, place, dtype = params["shape"], params["dimension"], np.dtype(params["dtype"])
    along = [n if i == place else 1 for i, n in enumerate(shape)]
    found = np.broadcast_to(np.arange(math.prod(along)).astype(dtype).reshape(along), shape)
    return lambda: found


def _reverse(eqn: Any) -> Callable[..., Any]:
    axes = tuple(eqn.params["dimensions"])
    return lambda x: np.flip(x, axes)


def _reduced(compute: Callable[..., Any], least: Callable[[Any], Any] | None = None) -> Rule:
    def rule(eqn: Any) -> Callable[..., Any]:
        axes, out = tuple(eqn.params["axes"]), eqn.outvars[0].aval
        start = {} if least is None else {"initial": least(out.dtype)}
        if not axes:
            return lambda x: x
        if narrow(out.dtype):
            return lambda x: compute(x.astype(np.float32), axis=axes, **start).astype(out.dtype)
        return lambda x: np.asarray(compute(x, axis=axes, **start)).astype(out.dtype, copy=False)

    return rule


def _reduced_at_once(eqn: Any) -> Callable[..., Any] | None:
    """A reduction of several arrays to their sums; None for any other function."""
    body, count = eqn.params["jaxpr"].jaxpr, len(eqn.outvars)
    pairs = [tuple(e.invars) for e in body.eqns]
    added = list(zip(body.invars[:count], body.invars[count:], strict=True))
    if any(e.primitive.name != "add" for e in body.eqns) or pairs != added:
        return None
    if [v for e in body.eqns for v in e.outvars] != list(body.outvars):
        return None
    axes = tuple(eqn.params["dimensions"])

    def run(*operands: Any) -> list[Any]:
        pairs = zip(operands[:count], operands[count:], strict=True)
        return [np.asarray(_sum(x, axes) + start).astype(x.dtype) for x, start in pairs]

    return run


def _sum(x: Any, axis: tuple[int, ...]) -> Any:
    return np.sum(x, axis=axis, dtype=x.dtype)


def _product(x: Any, axis: tuple[int, ...]) -> Any:
    return np.prod(x, axis=axis, dtype=x.dtype)


def least_of(dtype: Any) -> Any:
    """The least number of a type."""
    if dtype.kind == "b":
        return False
    return -np.inf if jnp.issubdtype(dtype, np.floating) else np.iinfo(dtype).min


def most_of(dtype: Any) -> Any:
    """The largest number of a type."""
    if dtype.kind == "b":
        return True
    return np.inf if jnp.issubdtype(dtype, np.floating) else np.iinfo(dtype).max


def _arg(compute: Callable[..., Any]) -> Rule:
    def rule(eqn: Any) -> Callable[..., Any]:
        [axis] = eqn.params["axes"]
        index = np.dtype(eqn.params["index_dtype"])
        wide = np.float32 if narrow(eqn.invars[0].aval.dtype) else eqn.invars[0].aval.dtype
        return lambda x: compute(x.astype(wide, copy=False), axis=axis).astype(index)

    return rule


def _accumulated(compute: Callable[..., Any]) -> Rule:
    def rule(eqn: Any) -> Callable[..., Any]:
        axis, backwards = eqn.params["axis"], eqn.params["reverse"]
        dtype = eqn.outvars[0].aval.dtype
        wide = np.float32 if narrow(dtype) else dtype

        def run(x: Any) -> Any:
            x = np.flip(x, axis) if backwards else x
            found = compute(x.astype(wide, copy=False), axis=axis).astype(dtype, copy=False)
            return np.flip(found, axis) if backwards else found

        return run

    return rule


def _cumsum(x: Any, axis: int) -> Any:
    return np.cumsum(x, axis=axis, dtype=x.dtype)


def _cumprod(x: Any, axis: int) -> Any:
    return np.cumprod(x, axis=axis, dtype=x.dtype)


def _sort(eqn: Any) -> Callable[..., Any]:
    axis, keys = eqn.params["dimension"], eqn.params["num_keys"]

    def run(*xs: Any) -> Any:
        wide = [x.astype(np.float32) if narrow(x.dtype) else x for x in xs[:keys]]
        if keys == 1:
            order = np.argsort(wide[0], axis=axis, kind="stable")
        else:
            order = np.lexsort(wide[::-1], axis=axis)
        return [np.take_along_axis(x, order, axis) for x in xs]

    return run


def _top_k(eqn: Any) -> Callable[..., Any]:
    count, axis = eqn.params["k"], eqn.params.get("axis", -1)
    out = eqn.outvars[1].aval.dtype

    def run(x: Any) -> Any:
        wide = x.astype(np.float32) if narrow(x.dtype) else x
        order = np.argsort(np.flip(wide, axis), axis=axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(order, axis)
        order = np.take(order, np.arange(count), axis)
        return [np.take_along_axis(x, order, axis), order.astype(out)]

    return run


def _gather(eqn: Any) -> Callable[..., Any] | None:
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    mode, sizes = params["mode"].name, params["slice_sizes"]
    if mode not in ("CLIP", "PROMISE_IN_BOUNDS", "FILL_OR_DROP"):
        return None
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    axes = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    batching = dict(zip(*axes, strict=True))
    order = _restored(eqn.outvars[0].aval.ndim, numbers.offset_dims)
    fill = params["fill_value"]

    def run(x: Any, starts: Any) -> Any:
        places, held = _places(x.shape, starts, numbers.start_index_map, batching, sizes, gone)
        found = x[places]
        if mode == "FILL_OR_DROP":
            value = _nothing(x.dtype) if fill is None else fill
            window = found.ndim - held.ndim
            found = np.where(held.reshape((*held.shape, *[1] * window)), found, x.dtype.type(value))
        return found.transpose(order)

    return run


def _restored(ndim: int, windows: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that puts windows, which come last, where a gather has them."""
    rest = [i for i in range(ndim) if i not in windows]
    order = [0] * ndim
    for source, target in enumerate([*rest, *windows]):
        order[target] = source
    return tuple(order)


def _nothing(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, np.floating):
        return np.nan
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).min if jnp.issubdtype(dtype, np.signedinteger) else np.iinfo(dtype).max


def _places(
    shape: Sequence[int],
    starts: Any,
    mapped: Sequence[int],
    batching: dict[int, int],
    sizes: Sequence[int],
    gone: set[int],
) -> tuple[tuple[Any, ...], Any]:
    """The index of every element of all windows, an axis each, and which windows lie inside."""
    batch = starts.shape[:-1]
    windows = [d for d in range(len(shape)) if d not in gone]
    held = np.ones(batch, bool)
    places: list[Any] = []
    for d, whole in enumerate(shape):
        if d in batching:
            axis = batching[d]
            first = np.arange(whole).reshape([-1 if i == axis else 1 for i in range(len(batch))])
        elif d in mapped:
            first = starts[..., mapped.index(d)].astype(np.int64)
            held = held & (first >= 0) & (first <= whole - sizes[d])
            first = np.clip(first, 0, whole - sizes[d])
        else:
            first = np.zeros([1] * len(batch), np.int64)
        offset = np.zeros([1] * len(windows), np.int64)
        if d in windows:
            offset = np.arange(sizes[d]).reshape([-1 if w == d else 1 for w in windows])
        places.append(first.reshape((*first.shape, *[1] * len(windows))) + offset)
    whole_shape = (*batch, *(sizes[d] for d in windows))
    return tuple(np.broadcast_to(p, whole_shape) for p in places), held


def _scatter(store: Callable[..., Any] | None) -> Rule:
    def rule(eqn: Any) -> Callable[..., Any] | None:
        numbers, mode = eqn.params["dimension_numbers"], eqn.params["mode"].name
        if mode not in ("CLIP", "PROMISE_IN_BOUNDS", "FILL_OR_DROP") or narrow(
            eqn.invars[0].aval.dtype
        ):
            return None
        gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        batching = dict(
            zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
        )
        updates = eqn.invars[2].aval.shape
        rest = [i for i in range(len(updates)) if i not in numbers.update_window_dims]
        order = (*rest, *numbers.update_window_dims)
        window = iter(updates[i] for i in numbers.update_window_dims)
        sizes = [1 if d in gone else next(window) for d in range(eqn.invars[0].aval.ndim)]

        def run(x: Any, starts: Any, update: Any) -> Any:
            mapped = numbers.scatter_dims_to_operand_dims
            places, held = _places(x.shape, starts, mapped, batching, sizes, gone)
            update = update.transpose(order)
            if mode != "CLIP" and not held.all():
                places, update = tuple(p[held] for p in places), update[held]
            found = x.copy()
            if store is None:
                found[places] = update
            else:
                store(found, places, update)
            return found

        return run

    return rule


def _same(eqn: Any) -> Callable[..., Any]:
    del eqn
    return lambda *xs: list(xs)


def _logsumexp(x: Any, axis: int) -> Any:
    return np.logaddexp.accumulate(x, axis=axis)


RULES: dict[str, Rule] = {
    **{"broadcast_in_dim": _broadcast, "reshape": _reshape, "squeeze": _reshape},
    **{
        "expand_dims": _reshape,
        "transpose": _transpose,
        "concatenate": _concatenate,
        "stack": _stack,
    },
    **{"slice": _slice, "dynamic_slice": _dynamic_slice, "pad": _pad, "split": _split},
    **{"dynamic_update_slice": _dynamic_update_slice, "iota": _iota, "rev": _reverse},
    **{"reduce_sum": _reduced(_sum), "reduce_prod": _reduced(_product)},
    "reduce": _reduced_at_once,
    "reduce_max": _reduced(np.max, least_of),
    "reduce_min": _reduced(np.min, most_of),
    "reduce_and": _reduced(np.bitwise_and.reduce),
    "reduce_or": _reduced(np.bitwise_or.reduce),
    "reduce_xor": _reduced(np.bitwise_xor.reduce),
    **{"argmax": _arg(np.argmax), "argmin": _arg(np.argmin)},
    **{"cumsum": _accumulated(_cumsum), "cumprod": _accumulated(_cumprod)},
    **{
        "cummax": _accumulated(np.maximum.accumulate),
        "cummin": _accumulated(np.minimum.accumulate),
    },
    "cumlogsumexp": _accumulated(_logsumexp),
    **{"sort": _sort, "top_k": _top_k, "gather": _gather, "scatter": _scatter(None)},
    **{"scatter-add": _scatter(np.add.at), "scatter-mul": _scatter(np.multiply.at)},
    **{"scatter-max": _scatter(np.maximum.at), "scatter-min": _scatter(np.minimum.at)},
    **{"scatter_add": _scatter(np.add.at), "scatter_max": _scatter(np.maximum.at)},
    **{"optimization_barrier": _same},
}
