"""Jaxprs as flat, lexically scoped blocks: the only module that touches `jax.extend.core`.

`flatten` turns a jaxpr into a `Block`: a list of first-order equations plus `scan`, `cond` and
`while`, whose bodies are blocks again. Call primitives (`jit`, `custom_jvp_call`,
`custom_vjp_call`, `remat`, ...) are entered and dissolve. A body refers to variables of the
enclosing block directly, so that

    scan   has carries and scanned inputs, and no constants;
    cond   has an index, and no operands;
    while  has carries, and no constants.

Constants that a function closed over become inputs of the outermost block, wherever they were.
What JAX changed between the supported versions (names of parameters of `scan`, open and closed
jaxprs) ends here: the rest of the library sees blocks only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.extend.core as jex
import numpy as np
from jax import lax

Array = Any  # a jax.Array, a tracer of one, or a numpy array


@dataclass(eq=False, slots=True)
class Var:
    """A typed variable. Equal only to itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of one value in bytes."""
        return self.size * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(eq=False, slots=True)
class Literal:
    """A scalar that stands in the program text."""

    value: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Always `()`."""
        return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scalar."""
        return self.value.dtype

    @property
    def nbytes(self) -> int:
        """Literals cost nothing to keep."""
        return 0

    @property
    def size(self) -> int:
        """One."""
        return 1


Atom = Var | Literal
Env = dict[Var, Array]


@dataclass(eq=False, slots=True)
class Equation:
    """One primitive applied to atoms.

    Attributes:
      kind: name of the primitive.
      params: its parameters; for `scan` just `length`, `reverse`, `unroll` and `num_carry`.
      inputs: for `scan` the initial carries, then the scanned arrays; for `cond` the index; for
        `while` the initial carries.
      bodies: for `scan` the body; for `cond` its branches; for `while` the predicate, the body.
      name: where it stands in the user's program, unique within the flattened function.
      origin: the equation as JAX made it.
    """

    kind: str
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Var, ...]
    bodies: tuple[Block, ...]
    name: str
    origin: Any


@dataclass(eq=False, slots=True)
class Block:
    """Equations in order. Free variables belong to an enclosing block."""

    inputs: tuple[Var, ...]
    equations: list[Equation]
    outputs: tuple[Atom, ...] = ()

    def walk(self) -> Iterator[Equation]:
        """Every equation, those of nested bodies after the one that holds them."""
        for equation in self.equations:
            yield equation
            for body in equation.bodies:
                yield from body.walk()


@dataclass(eq=False, slots=True)
class Function:
    """A flattened function.

    Attributes:
      block: its inputs are the constants, then the leaves of the arguments.
      constants: values of the first inputs of `block`.
    """

    block: Block
    constants: tuple[np.ndarray[Any, Any], ...]


def trace(fn: Callable[..., Any], *args: Any) -> tuple[Function, Any]:
    """Trace `fn` on arrays or `ShapeDtypeStruct`s and flatten it.

    Returns:
      The flattened function, and the pytree of `ShapeDtypeStruct`s that `fn` returns.
    """
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    return flatten(closed), out


def flatten(closed: Any) -> Function:
    """Inline calls, fold literals, drop dead equations, and scope bodies lexically."""
    builder = _Builder()
    jaxpr, consts = _open(closed)
    inputs = tuple(_var(v) for v in jaxpr.invars)
    equations: list[Equation] = []
    env: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
    outputs = builder.inline(jaxpr, consts, env, equations, "")
    constant_vars = tuple(builder.constants)
    block = Block(constant_vars + inputs, equations, outputs)
    _drop_dead(block)
    return Function(block, tuple(builder.constants.values()))


def read(env: Env, atom: Atom) -> Array:
    """Value of an atom."""
    return atom.value if isinstance(atom, Literal) else env[atom]


def read_all(env: Env, atoms: Sequence[Atom]) -> list[Array]:
    """Values of several atoms."""
    return [read(env, atom) for atom in atoms]


def write(env: Env, variables: Sequence[Var], values: Sequence[Array]) -> None:
    """Bind values to variables."""
    env.update(zip(variables, values, strict=True))


def apply(equation: Equation, values: Sequence[Array]) -> list[Array]:
    """Apply an equation without bodies to values."""
    primitive = equation.origin.primitive
    if any(True for _ in subprograms(equation.params)):
        # A higher-order primitive that this module does not enter: let JAX evaluate it whole.
        out = jex.jaxpr_as_fun(_one_equation(equation.origin))(*values)
        return list(out)
    out = primitive.bind(*values, **equation.params)
    return list(out) if primitive.multiple_results else [out]


def evaluate(block: Block, env: Env, *, step: Callable[[Equation, Env], None] | None = None) -> Any:
    """Evaluate a block, whose inputs and free variables are in `env`; returns its outputs.

    `step` evaluates one equation into the environment; the default is `replay`.
    """
    step = step or replay
    for equation in block.equations:
        step(equation, env)
    return read_all(env, block.outputs)


def replay(equation: Equation, env: Env) -> None:
    """Evaluate one equation, with all that its bodies hold."""
    if equation.kind == "scan":
        outputs = scan(equation, env, lambda inner, _: (evaluate(equation.bodies[0], inner), ()))[0]
    elif equation.kind == "cond":
        branches = [lambda b=b: evaluate(b, dict(env)) for b in equation.bodies]
        outputs = switch(equation, env, branches)
    elif equation.kind == "while":
        outputs, _ = while_loop(equation, env)
    else:
        outputs = apply(equation, read_all(env, equation.inputs))
    write(env, equation.outputs, outputs)


def scan(
    equation: Equation,
    env: Env,
    body: Callable[[Env, Any], tuple[Sequence[Array], Any]],
    *,
    extra: Any = (),
    carried: Iterable[bool] | None = None,
    scanned: Iterable[bool] | None = None,
) -> tuple[list[Array], Any]:
    """Rebuild a `scan` around `body`.

    Args:
      equation: the scan.
      env: the environment that it stands in; the body sees a copy with its inputs bound.
      body: `(env, slice of extra) -> (outputs, more to stack)`; first the carries that take part,
        then what the equation is to stack.
      extra: pytree of arrays scanned beside the equation's own.
      carried: which carries take part (default all); the others are unbound in the body.
      scanned: which scanned inputs take part.

    Returns:
      The final carries and the stacks, and what else the body stacked.
    """
    params = equation.params
    count = params["num_carry"]
    inputs, block = equation.inputs, equation.bodies[0]
    carried = itertools.repeat(True) if carried is None else carried
    scanned = itertools.repeat(True) if scanned is None else scanned
    carry_vars = list(itertools.compress(block.inputs[:count], carried))
    scan_vars = list(itertools.compress(block.inputs[count:], scanned))
    init = read_all(env, list(itertools.compress(inputs[:count], carried)))
    slices = read_all(env, list(itertools.compress(inputs[count:], scanned)))

    def step(carry: list[Array], xs: Any) -> tuple[list[Array], Any]:
        values, more = xs
        inner = dict(env)
        write(inner, carry_vars, carry)
        write(inner, scan_vars, values)
        outputs, stack = body(inner, more)
        outputs = list(outputs)
        return outputs[: len(carry_vars)], (outputs[len(carry_vars) :], stack)

    final, (stacks, more) = lax.scan(
        step,
        init,
        (slices, extra),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*final, *stacks], more


def switch(equation: Equation, env: Env, branches: Sequence[Callable[[], Any]]) -> Any:
    """Rebuild a `cond` around other branches, which take no operands."""
    return lax.switch(read(env, equation.inputs[0]), branches)


def while_loop(equation: Equation, env: Env, limit: int | None = None) -> tuple[list[Array], Array]:
    """Rebuild a `while`; with a limit, stop after that many trips.

    Returns:
      The carries, and whether the loop was stopped by the limit.
    """
    predicate, body = equation.bodies
    init = read_all(env, equation.inputs)

    def go_on(carry: list[Array]) -> Array:
        inner = dict(env)
        write(inner, predicate.inputs, carry)
        return evaluate(predicate, inner)[0]

    def turn(carry: list[Array]) -> list[Array]:
        inner = dict(env)
        write(inner, body.inputs, carry)
        return evaluate(body, inner)

    if limit is None:
        return lax.while_loop(go_on, turn, init), np.False_
    final, _ = lax.while_loop(
        lambda state: go_on(state[0]) & (state[1] < limit),
        lambda state: (turn(state[0]), state[1] + 1),
        (init, np.int32(0)),
    )
    return final, go_on(final)


def is_jaxpr(value: Any) -> bool:
    """Whether a parameter of a primitive is a jaxpr, open or closed."""
    return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)


def subprograms(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of a primitive."""
    yield from jex.jaxprs_in_params(dict(params))


# A call primitive's jaxpr stands under one of these parameters, and takes the call's operands.
_CALLEE = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLS = frozenset(
    {
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "remat",
        "remat2",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
    }
)


@dataclass(eq=False, slots=True)
class _Builder:
    constants: dict[Var, np.ndarray[Any, Any]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    known: dict[int, Var] = field(default_factory=dict)

    def constant(self, value: Any) -> Var:
        # One array closed over in several places is one constant; the entry keeps it alive.
        if id(value) in self.known:
            return self.known[id(value)]
        array = np.asarray(value)
        var = Var(array.shape, array.dtype)
        self.constants[var] = array
        self.known[id(value)] = var
        return var

    def name(self, scope: str, kind: str) -> str:
        full = f"{scope}/{kind}" if scope else kind
        count = self.names[full] = self.names.get(full, 0) + 1
        return full if count == 1 else f"{full}.{count}"

    def inline(
        self,
        jaxpr: Any,
        consts: Sequence[Any],
        env: dict[Any, Atom],
        into: list[Equation],
        scope: str,
    ) -> tuple[Atom, ...]:
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self.constant(value)

        def atom(a: Any) -> Atom:
            if not isinstance(a, jex.Literal):
                return env[a]
            value = np.asarray(a.val, dtype=_dtype(a.aval))
            return Literal(value) if value.shape == () else self.constant(value)

        for eqn in jaxpr.eqns:
            inputs = tuple(atom(a) for a in eqn.invars)
            here = _join(scope, str(eqn.source_info.name_stack))
            kind = eqn.primitive.name
            if kind in _CALLS:
                callee = next(eqn.params[k] for k in _CALLEE if k in eqn.params)
                inner, inner_consts = _open(callee)
                inner_env = dict(zip(inner.invars, inputs, strict=True))
                outputs = self.inline(inner, inner_consts, inner_env, into, here)
                env.update(zip(eqn.outvars, outputs, strict=True))
                continue
            folded = _fold(eqn, inputs)
            if folded is not None:
                env[eqn.outvars[0]] = folded
                continue
            outs = tuple(_var(v) for v in eqn.outvars)
            env.update(zip(eqn.outvars, outs, strict=True))
            into.append(self.equation(eqn, kind, inputs, outs, here))
        return tuple(atom(a) for a in jaxpr.outvars)

    def equation(
        self, eqn: Any, kind: str, inputs: tuple[Atom, ...], outs: tuple[Var, ...], scope: str
    ) -> Equation:
        params: Mapping[str, Any] = eqn.params
        bodies: tuple[Block, ...] = ()
        if kind == "scan":
            consts, carry = _scan_groups(params)
            bodies = (self.body(params["jaxpr"], inputs[:consts], scope),)
            inputs = inputs[consts:]
            params = {k: params[k] for k in ("length", "reverse", "unroll")} | {"num_carry": carry}
        elif kind == "cond":
            bodies = tuple(self.body(b, inputs[1:], scope) for b in params["branches"])
            inputs, params = inputs[:1], {}
        elif kind == "while":
            split = params["cond_nconsts"]
            both = split + params["body_nconsts"]
            bodies = (
                self.body(params["cond_jaxpr"], inputs[:split], scope),
                self.body(params["body_jaxpr"], inputs[split:both], scope),
            )
            inputs, params = inputs[both:], {}
        return Equation(kind, params, inputs, outs, bodies, self.name(scope, kind), eqn)

    def body(self, closed: Any, captured: tuple[Atom, ...], scope: str) -> Block:
        """A body whose leading inputs are atoms of the enclosing block."""
        jaxpr, consts = _open(closed)
        inputs = tuple(_var(v) for v in jaxpr.invars[len(captured) :])
        env = dict(zip(jaxpr.invars, captured + inputs, strict=True))
        equations: list[Equation] = []
        outputs = self.inline(jaxpr, consts, env, equations, scope)
        return Block(inputs, equations, outputs)


# Correctly rounded everywhere, so that their value on literals is part of the program text.
_FOLDED: Mapping[str, Callable[..., Any]] = {
    "convert_element_type": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
}


def _fold(eqn: Any, inputs: tuple[Atom, ...]) -> Literal | None:
    """The literal that an equation gives on literals, if it is worth folding."""
    literals = [a.value for a in inputs if isinstance(a, Literal)]
    function = _FOLDED.get(eqn.primitive.name)
    if function is None or len(literals) < len(inputs):
        return None
    out = _dtype(eqn.outvars[0].aval)
    if np.issubdtype(out, np.integer) and any(np.issubdtype(v.dtype, np.inexact) for v in literals):
        return None  # out of range, devices differ
    with np.errstate(all="ignore"):
        value = np.asarray(function(*literals))
        return Literal(value.astype(out))


def _join(scope: str, name: str) -> str:
    return "/".join(part for part in (scope, name) if part)


def _dtype(aval: Any) -> np.dtype[Any]:
    return cast("np.dtype[Any]", aval.dtype)


def _var(v: Any) -> Var:
    aval = v.aval
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        raise TypeError(f"cannot verify a value of type {aval}: only arrays are supported")
    if not all(isinstance(d, int) for d in aval.shape):
        raise TypeError(f"cannot verify a value of shape {aval.shape}: dimensions must be known")
    return Var(tuple(aval.shape), _dtype(aval))


def _open(closed: Any) -> tuple[Any, tuple[Any, ...]]:
    """An open jaxpr and its constants; `remat` holds one that is open already."""
    consts = tuple(closed.consts) if hasattr(closed, "consts") else ()
    return getattr(closed, "jaxpr", closed), consts


def _scan_groups(params: Mapping[str, Any]) -> tuple[int, int]:
    """Number of constants and of carries of a scan."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _one_equation(eqn: Any) -> Any:
    """A closed jaxpr that holds one equation."""
    template = jax.make_jaxpr(lambda: None)()
    debug = _open(template)[0].debug_info
    slots = [jex.Var(v.aval) for v in eqn.invars]
    eqn = eqn.replace(invars=slots)
    debug = debug._replace(
        arg_names=tuple("" for _ in slots), result_paths=tuple("" for _ in eqn.outvars)
    )
    jaxpr = jex.Jaxpr((), slots, eqn.outvars, [eqn], eqn.effects, debug)
    return jex.ClosedJaxpr(jaxpr, ())


def _drop_dead(block: Block, live: set[Var] | None = None) -> set[Var]:
    """Drop equations that nothing depends on; returns the variables that the block needs."""
    live = set() if live is None else live
    live.update(v for v in block.outputs if isinstance(v, Var))
    kept: list[Equation] = []
    for equation in reversed(block.equations):
        effects = getattr(equation.origin, "effects", None)
        if not effects and not any(v in live for v in equation.outputs):
            continue
        kept.append(equation)
        for body in equation.bodies:
            _drop_dead(body, live)
        live.update(v for v in equation.inputs if isinstance(v, Var))
    block.equations = kept[::-1]
    return live


def shape_dtype(value: Any) -> jax.ShapeDtypeStruct:
    """Shape of an array-like, and the type that JAX gives it, without reading it."""
    dtype: Any = getattr(value, "dtype", None) or np.asarray(value).dtype
    if not isinstance(value, jax.Array):
        dtype = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(np.shape(value), dtype)
