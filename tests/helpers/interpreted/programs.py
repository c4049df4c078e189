"""Evaluates traced programs with numpy instead of compiling them: most tests run one a few times.

A program of a few hundred operations on small arrays takes XLA a third of a second, and numpy some
milliseconds. What is evaluated is what JAX would have compiled: the same equations, each of which
has the result that XLA defines, up to the last bits of sums and library functions. Equations that
have no rule here are compiled one by one; programs that are more than their equations (options
for the compiler, devices, donated arrays, effects) are compiled whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import core as _core
from jax._src import pjit as _pjit
from jax._src import util

from tests.helpers.interpreted import elementwise, movement, products
from tests.helpers.moves import as_array
from verifiable.jaxpr import from_jax

core: Any = _core
pjit: Any = _pjit

RULES = elementwise.RULES | movement.RULES | products.RULES

# Options that change how long it takes to compile or run a program, or its memory.
_LEVELS = "xla_backend_optimization_level xla_llvm_disable_expensive_passes"
NO_RESULT = {*_LEVELS.split(), "xla_cpu_scheduler_type"}

# Equations after which a program is compiled instead, as many as take as long as that: of any, and
# for each of its own.
MOST, MOST_EACH = 20_000, 25

# Whether programs are evaluated here, and whether those of keys and checks are if others are not.
active = verifier = False
# Equations evaluated so far.
steps = 0


class Program:
    """The equations of a jaxpr as functions of numpy arrays."""

    def __init__(self, jaxpr: Any, consts: Sequence[Any]) -> None:
        self.values: list[Any] = []
        self.slots: dict[Any, int] = {}
        self.consts = [(self._slot(v), c) for v, c in zip(jaxpr.constvars, consts, strict=True)]
        for slot, value in self.consts:
            self.values[slot] = _held(value)
        self.inputs = [self._slot(v) for v in jaxpr.invars]
        self.steps: list[tuple[Callable[..., Any], list[int], list[int], bool]] = []
        # Equations: of the program and its bodies, of a run, and of all runs so far.
        self.size = self.cost = self.spent = 0
        for eqn in jaxpr.eqns:
            sources = [self._source(v) for v in eqn.invars]
            targets = [self._slot(v) for v in eqn.outvars]
            function, size, cost = _function(eqn)
            self.size += size
            self.cost += cost
            self.steps.append((function, sources, targets, eqn.primitive.multiple_results))
        self.outputs = [self._source(v) for v in jaxpr.outvars]

    def _slot(self, variable: Any) -> int:
        self.slots[variable] = len(self.values)
        self.values.append(None)
        return self.slots[variable]

    def _source(self, atom: Any) -> int:
        if not isinstance(atom, core.Literal):
            return self.slots[atom]
        self.values.append(np.asarray(atom.val, atom.aval.dtype))
        return len(self.values) - 1

    def run(self, *arguments: Any) -> list[Any]:
        global steps  # noqa: PLW0603 - of the whole run
        steps += len(self.steps)
        values = self.values.copy()
        for slot, value in zip(self.inputs, arguments, strict=True):
            values[slot] = value
        for function, sources, targets, several in self.steps:
            found = function(*[values[i] for i in sources])
            if several:
                for target, value in zip(targets, found, strict=True):
                    values[target] = value
            else:
                values[targets[0]] = found
        return [values[i] for i in self.outputs]


def _held(value: Any, aval: Any = None) -> Any:
    """An array of numpy, except of what numpy has not, such as random keys."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return np.asarray(value, None if aval is None else aval.dtype)


def _opened(jaxpr: Any, consts: Sequence[Any] = ()) -> tuple[Any, Sequence[Any]]:
    inner = getattr(jaxpr, "jaxpr", None)
    if inner is not None and not isinstance(jaxpr, core.Jaxpr):
        return inner, jaxpr.consts
    return jaxpr, getattr(jaxpr, "consts", consts) or consts


@util.weakref_lru_cache
def program(jaxpr: Any) -> Program:
    """The functions of a jaxpr, made once."""
    return Program(*_opened(jaxpr))


def _function(eqn: Any) -> tuple[Callable[..., Any], int, int]:
    """What evaluates an equation, of how many equations, and how many that evaluates."""
    name = eqn.primitive.name
    if name in CONTROL:
        return CONTROL[name](eqn)
    inner = _inner(eqn)
    if inner is not None:
        made = program(inner)
        return made.run, made.size, made.cost
    rule = RULES.get(name)
    plain = all(_of_numpy(v.aval) for v in (*eqn.invars, *eqn.outvars))
    function = rule(eqn) if rule is not None and plain else None
    if function is None:
        return functools.partial(_compiled, eqn), 1, 1
    return function, 1, 1


def _of_numpy(aval: Any) -> bool:
    return _numpy_has(getattr(aval, "dtype", None))


@functools.cache
def _numpy_has(dtype: Any) -> bool:
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return not jnp.issubdtype(dtype, np.complexfloating) and dtype.name not in ("int4", "uint4")


def _compiled(eqn: Any, *operands: Any) -> Any:
    """Evaluates an equation as a program of its own."""
    with core.eval_context(), eqn.ctx.manager:
        found = eqn.primitive.bind(*map(jnp.asarray, operands), **eqn.params)
    return [*map(_held, found)] if eqn.primitive.multiple_results else _held(found)


CALLS = frozenset(
    "jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call "
    "custom_vjp_call_jaxpr".split()
)


def _inner(eqn: Any) -> Any:
    if eqn.primitive.name not in CALLS:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in eqn.params:
            return eqn.params[name]
    return None


def _cond(eqn: Any) -> tuple[Callable[..., Any], int, int]:
    branches = [program(branch) for branch in eqn.params["branches"]]

    def run(which: Any, *operands: Any) -> Any:
        return branches[min(max(int(which), 0), len(branches) - 1)].run(*operands)

    size = sum(branch.size for branch in branches)
    return run, size, max(branch.cost for branch in branches) + 1


def _while(eqn: Any) -> tuple[Callable[..., Any], int, int]:
    params = eqn.params
    goes_on, body = program(params["cond_jaxpr"]), program(params["body_jaxpr"])
    first, second = params["cond_nconsts"], params["body_nconsts"]
    batched = bool(params["cond_jaxpr"].out_avals[0].shape)

    def run(*operands: Any) -> Any:
        tests, own = operands[:first], operands[first : first + second]
        carried = list(operands[first + second :])
        if batched:
            return _in_step(goes_on, body, tests, own, carried)
        while goes_on.run(*tests, *carried)[0]:
            carried = body.run(*own, *carried)
        return carried

    return run, goes_on.size + body.size, 10 * (goes_on.cost + body.cost)


def _in_step(
    goes_on: Program, body: Program, tests: Any, own: Any, carried: list[Any]
) -> list[Any]:
    """A loop over a batch, of which each example stops by itself."""
    while True:
        which = goes_on.run(*tests, *carried)[0]
        if not which.any():
            return carried
        later = body.run(*own, *carried)
        wide = [which.reshape((*which.shape, *[1] * (x.ndim - which.ndim))) for x in later]
        carried = [np.where(w, y, x) for w, x, y in zip(wide, carried, later, strict=True)]


def _scan(eqn: Any) -> tuple[Callable[..., Any], int, int]:
    params = eqn.params
    body, length = program(params["jaxpr"]), params["length"]
    first, second = from_jax.scan_groups(params)
    backwards = params["reverse"]
    outs = [v.aval for v in eqn.outvars[second:]]

    def run(*operands: Any) -> Any:
        own, carried = operands[:first], operands[first : first + second]
        each = operands[first + second :]
        stacked = [np.empty(aval.shape, aval.dtype) for aval in outs]
        for i in range(length)[::-1] if backwards else range(length):
            found = body.run(*own, *carried, *[x[i] for x in each])
            carried = found[:second]
            for whole, value in zip(stacked, found[second:], strict=True):
                whole[i] = value
        return [*carried, *stacked]

    return run, body.size, length * (body.cost + 1)


CONTROL = {"cond": _cond, "while": _while, "scan": _scan}


@contextmanager
def of_verifiers() -> Iterator[None]:
    """Evaluate programs here, where those of keys and checks are."""
    global active  # noqa: PLW0603 - of the whole process
    before, active = active, active or verifier
    try:
        yield
    finally:
        active = before


def interpret() -> None:
    """Let JAX hand its programs to this module from now on, where `active`."""
    compiled = pjit._pjit_call_impl_python

    @functools.wraps(compiled)
    def run(*arguments: Any, jaxpr: Any, **how: Any) -> Any:
        if active and _plain(arguments, jaxpr, how):
            found = _evaluated(program(jaxpr), arguments, jaxpr)
            if found is not None:
                return found, None, None, []
        return compiled(*arguments, jaxpr=jaxpr, **how)

    pjit._pjit_call_impl_python = run


def _plain(arguments: Sequence[Any], jaxpr: Any, how: dict[str, Any]) -> bool:
    """Whether a program is no more than its equations."""
    config: Any = jax.config
    if config.jax_debug_nans or config.jax_debug_infs or config.jax_default_device is not None:
        return False
    if jaxpr.effects or any(how["donated_invars"]) or not how["ctx_mesh"].empty:
        return False
    if not {name for name, _ in how["compiler_options_kvs"]} <= NO_RESULT:
        return False
    places = *how["in_shardings"], *how["out_shardings"], *how["in_layouts"], *how["out_layouts"]
    if any(not (x is None or isinstance(x, pjit.UnspecifiedValue)) for x in places):
        return False
    if any(getattr(x, "committed", False) for x in arguments):
        return False
    return not any(
        aval.dtype is jax.dtypes.float0 or not _of_numpy(aval) for aval in jaxpr.out_avals
    )


def _evaluated(made: Program, arguments: Sequence[Any], jaxpr: Any) -> list[Any] | None:
    if made.steps and all(getattr(f, "func", None) is _compiled for f, *_ in made.steps):
        return None
    if made.cost + made.spent > MOST + MOST_EACH * made.size:
        return None
    before = steps
    with np.errstate(all="ignore"):
        held = [_held(x, aval) for x, aval in zip(arguments, jaxpr.in_avals, strict=True)]
        found = made.run(*held)
    made.spent += steps - before
    return [*map(_as_array, found, jaxpr.out_avals)]


def _as_array(x: Any, aval: Any) -> Any:
    assert x.shape == aval.shape and x.dtype == aval.dtype, (x.shape, x.dtype, aval)
    return as_array(np.array(x), aval.weak_type)
