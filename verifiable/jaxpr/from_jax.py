"""From a JAX function to blocks: the only module that uses `jax.extend.core`.

Call primitives (`jit`, `custom_jvp_call`, `custom_vjp_call`, `remat`, `composite`, ...) are
inlined, of `custom_linear_solve` the function that solves. So are functions of `jax.numpy` that
newer versions of JAX keep whole until they are compiled (`searchsorted`, `nonzero`, `ldexp`), and
`shard_map` over one device. Names of values, their sharding on one device, and casts to their own
type, which JAX gives to numbers of Python, are dropped.
Constants that a function closed over become inputs of the outermost block, wherever they were used.
All that differs between the supported versions of JAX (names of the parameters of `scan`, open and
closed jaxprs) is handled here: the rest of the library sees blocks only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.extend.core as jex
import numpy as np
from jax import lax

from verifiable.jaxpr import pieces, precisions
from verifiable.jaxpr.blocks import Array, Atom, Block, Equation, Function, Literal, Var
from verifiable.jaxpr.folding import fold


def trace(fn: Callable[..., Any], *args: Any, named: str | None = None) -> tuple[Function, Any]:
    """Trace `fn` on arrays or `ShapeDtypeStruct`s and flatten it; `named` as of `flatten`.

    Returns:
      The flattened function, and the pytree of `ShapeDtypeStruct`s that `fn` returns.

    Raises:
      TypeError: a value is not an array, or has a dimension that is not a known number.
    """
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    return flatten(closed, named), out


def flatten(closed: Any, named: str | None = None) -> Function:
    """Inline the calls of a closed jaxpr, fold literals, drop dead equations, scope its bodies.

    Named values become equations of the kind `named`, if there is one, which return them.
    """
    builder = _Builder(named)
    jaxpr, consts = _open(closed)
    inputs = tuple(_var(v) for v in jaxpr.invars)
    equations: list[Equation] = []
    env: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
    outputs = builder.inline(jaxpr, consts, env, equations, "")
    constant_vars = tuple(builder.constants)
    block = Block(constant_vars + inputs, equations, outputs)
    tidy(block)
    return Function(block, tuple(builder.constants.values()))


def tidy(block: Block) -> None:
    """Drop equations that nothing depends on from the outermost block, and number the others."""
    _drop_dead(block)
    for number, equation in enumerate(block.walk()):
        equation.number = number


def identity(variable: Var, kind: str, name: str) -> Equation:
    """An equation of a kind of its own that returns a variable, which is computed only once."""
    struct = jax.ShapeDtypeStruct(variable.shape, variable.dtype)
    [eqn] = jax.make_jaxpr(lax.optimization_barrier)(struct).eqns
    out = Var(variable.shape, variable.dtype)
    return Equation(kind, {}, (variable,), (out,), (), name, eqn)


def shape_dtype(value: Any) -> jax.ShapeDtypeStruct:
    """Shape of an array-like, and the type that JAX gives it, without reading it."""
    dtype: Any = getattr(value, "dtype", None) or np.asarray(value).dtype
    if not isinstance(value, jax.Array):
        dtype = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(np.shape(value), dtype)


def as_function(equation: Equation) -> Callable[..., Sequence[Array]]:
    """What an equation without bodies computes, as a function of the values of its inputs.

    A higher-order primitive that is not inlined, as a `reduce` by a function, is applied whole, and
    so are random numbers, which depend on a flag that JAX keeps beside an equation.
    """
    primitive = equation.origin.primitive
    if equation.kind in (pieces.PIECE, pieces.CONTINUED):
        own = pieces.function(equation.kind, equation.params["of"])
        return lambda *values: [own(*values)]
    if any(True for _ in subprograms(equation.params)) or _FLAG in equation.params:
        return jex.jaxpr_as_fun(_one_equation(equation.origin))

    def bind(*values: Array) -> Sequence[Array]:
        out = primitive.bind(*values, **equation.params)
        return out if primitive.multiple_results else [out]

    return bind


_FLAG = "threefry_partitionable"


def is_jaxpr(value: Any) -> bool:
    """Whether a parameter of a primitive is a jaxpr, open or closed."""
    return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)


def subprograms(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of a primitive."""
    yield from jex.jaxprs_in_params(dict(params))


def single_operation(params: Mapping[str, Any]) -> str | None:
    """The primitive of two scalars that a reduction applies, if its only jaxpr is just that."""
    programs = [p for p in subprograms(params) if is_jaxpr(p)]
    if len(programs) != 1:
        return None
    block = flatten(programs[0]).block
    if len(block.equations) != 1 or len(block.inputs) != 2:
        return None
    [equation] = block.equations
    whole = set(equation.inputs) == set(block.inputs) and block.outputs == equation.outputs
    return equation.kind if whole and not equation.bodies else None


# The parameter that holds the jaxpr of a call primitive; it takes the operands of the call.
_CALLEE = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLS = frozenset(
    """
    jit pjit closed_call core_call eval_jaxpr remat remat2 checkpoint composite custom_jvp_call
    custom_vjp_call custom_vjp_call_jaxpr
    """.split()
)

# What a device that is alone gets from a collective: its own value.
_ALONE = frozenset(
    """
    all_gather all_gather_invariant pbroadcast pcast pmax pmin psum psum2 psum_invariant pvary
    reduce_scatter
    """.split()
)


def _callee(eqn: Any) -> Any:
    """The jaxpr that an equation stands for, as a call or a computation on one device; or None."""
    kind, params = eqn.primitive.name, eqn.params
    if kind == "unstack":
        return _parts(eqn.invars[0].aval, params["axis"])
    if kind == "call_hi_primitive":
        return _expanded(params["_prim"], [v.aval for v in eqn.invars])
    if kind == "custom_linear_solve":
        return params["jaxprs"].solve
    if kind == "shard_map":
        return params["jaxpr"] if params["mesh"].size == 1 and _local(params["jaxpr"]) else None
    return next(params[k] for k in _CALLEE if k in params) if kind in _CALLS else None


def _operands(eqn: Any, inputs: tuple[Atom, ...]) -> tuple[Atom, ...]:
    """What the jaxpr that an equation stands for is called with."""
    if eqn.primitive.name != "custom_linear_solve":
        return inputs
    lengths = eqn.params["const_lengths"]
    before = lengths.matvec + lengths.vecmat
    behind = before + lengths.solve
    return inputs[before:behind] + inputs[behind + (lengths.transpose_solve or 0) :]


def _expanded(whole: Any, avals: Sequence[Any]) -> Any:
    """What a function that JAX keeps whole is made of."""

    def expand(*values: Array) -> list[Array]:
        return jax.tree.leaves(whole.expand(*jax.tree.unflatten(whole.in_tree, values)))

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals]
    return jax.make_jaxpr(expand)(*shapes)


def _parts(array: Any, axis: int) -> Any:
    """The parts of an array along an axis by slices, as versions of JAX without `unstack` do."""

    def parts(x: Array) -> list[Array]:
        pieces = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in range(x.shape[axis]))
        return [lax.squeeze(piece, (axis,)) for piece in pieces]

    return jax.make_jaxpr(parts)(jax.ShapeDtypeStruct(array.shape, array.dtype))


def _local(jaxpr: Any) -> bool:
    """Whether the body of a `shard_map` over one device needs no more of the mesh than `_ALONE`."""
    for eqn in _open(jaxpr)[0].eqns:
        axes = eqn.params.get("axes", ())
        named = "axis_name" in eqn.params or any(isinstance(a, str) for a in axes)
        if named and not _is_identity(eqn):
            return False
        if not all(_local(inner) for inner in subprograms(eqn.params)):
            return False
    return True


def _is_identity(eqn: Any) -> bool:
    """Whether an equation returns its operands as they are."""
    kind, params = eqn.primitive.name, eqn.params
    if kind == "sharding_constraint":
        return getattr(params["sharding"], "num_devices", 0) == 1
    if kind == "convert_element_type" and params.get("sharding") is None:
        return _dtype(eqn.invars[0].aval) == _dtype(eqn.outvars[0].aval)
    return kind == "name" or (kind in _ALONE and params.get("tiled", True))


@dataclass(eq=False, slots=True)
class _Builder:
    """Constants and names of one function, collected while its jaxprs are inlined."""

    named: str | None = None
    constants: dict[Var, np.ndarray[Any, Any]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    known: dict[int, Var] = field(default_factory=dict)

    def constant(self, value: Any) -> Var:
        # An array that is closed over in several places is one constant. No id is used twice: the
        # jaxpr or the new entry keeps each array alive.
        if id(value) in self.known:
            return self.known[id(value)]
        # The caller may change an array of numpy in place, and the id names what it was.
        array = np.asarray(value) if isinstance(value, jax.Array) else np.array(value)
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
            if _is_identity(eqn):
                if kind == "name" and self.named is not None and isinstance(inputs[0], Var):
                    into.append(identity(inputs[0], self.named, self.name(here, self.named)))
                    inputs = into[-1].outputs
                env.update(zip(eqn.outvars, inputs, strict=True))
                continue
            jumps = pieces.of(eqn)
            if jumps is not None:
                env[eqn.outvars[0]] = self.split(jumps, eqn, inputs, into, here)
                continue
            callee = _callee(eqn)
            if callee is not None:
                inner, inner_consts = _open(callee)
                inner_env = dict(zip(inner.invars, _operands(eqn, inputs), strict=True))
                outputs = self.inline(inner, inner_consts, inner_env, into, here)
                env.update(zip(eqn.outvars, outputs, strict=True))
                continue
            folded = fold(eqn, inputs)
            if folded is not None:
                env[eqn.outvars[0]] = folded
                continue
            outs = tuple(_var(v) for v in eqn.outvars)
            env.update(zip(eqn.outvars, outs, strict=True))
            into.append(self.equation(eqn, kind, inputs, outs, here))
        return tuple(atom(a) for a in jaxpr.outvars)

    def split(
        self, kind: str, eqn: Any, inputs: tuple[Atom, ...], into: list[Equation], scope: str
    ) -> Var:
        """The output of a function that jumps, by its pieces."""
        entry, out = pieces.FUNCTIONS[kind], _var(eqn.outvars[0])
        shapes = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in inputs)
        jaxpr, consts = _open(jax.make_jaxpr(entry.value)(*shapes))
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        [value] = self.inline(jaxpr, consts, env, into, scope)
        piece = Var(out.shape, entry.dtype(inputs[0].dtype))
        steps = [(pieces.PIECE, (value, *(inputs if entry.ends else ())), piece)]
        if entry.continued is not None:
            steps.append((pieces.CONTINUED, (piece, *inputs), out))
        for step, operands, result in steps:
            name = self.name(scope, kind)
            into.append(Equation(step, {"of": kind}, operands, (result,), (), name, eqn))
        return steps[-1][-1]

    def equation(
        self, eqn: Any, kind: str, inputs: tuple[Atom, ...], outs: tuple[Var, ...], scope: str
    ) -> Equation:
        params: Mapping[str, Any] = eqn.params
        bodies: tuple[Block, ...] = ()
        if kind == "scan":
            consts, carry = scan_groups(params)
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
        elif kind.startswith("random_"):
            params = {**params, _FLAG: bool(eqn.ctx.threefry_partitionable)}
        elif "precision" in params:
            params = {**params, "precision": precisions.highest(params["precision"], inputs)}
        return Equation(kind, params, inputs, outs, bodies, self.name(scope, kind), eqn)

    def body(self, closed: Any, captured: tuple[Atom, ...], scope: str) -> Block:
        """A body whose leading inputs are atoms of the enclosing block."""
        jaxpr, consts = _open(closed)
        inputs = tuple(_var(v) for v in jaxpr.invars[len(captured) :])
        env = dict(zip(jaxpr.invars, captured + inputs, strict=True))
        equations: list[Equation] = []
        outputs = self.inline(jaxpr, consts, env, equations, scope)
        return Block(inputs, equations, outputs)


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
    """An open jaxpr and its constants; the jaxpr of `remat` is already open."""
    consts = tuple(closed.consts) if hasattr(closed, "consts") else ()
    return getattr(closed, "jaxpr", closed), consts


def scan_groups(params: Mapping[str, Any]) -> tuple[int, int]:
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
    """Drop equations that nothing depends on; returns the variables that are needed."""
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
