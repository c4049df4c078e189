"""The id of a program: 32 bytes that depend on everything that decides its result.

It is the hash of a canonical encoding of the flattened function: primitives with their parameters
and the version of what they compute, variables by order of appearance, shapes, dtypes, literals by
value, closed-over constants and bodies by digest, and the claims. It is equal in every process, at
every file path, for every hash seed, and under every version of JAX that traces the function to
the same equations. Names of functions and scopes are not part of it. The flags of JAX that change a
result enter through what they change: types, precisions, and the parameters of random numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from verifiable.check.analysis.partition import Analysis
from verifiable.encoding import encode, tagged_hash, tensor_bytes
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Atom, Block, Equation, Function, Var

FORMAT = 2

# Version 1 of a primitive is what it computes in JAX 0.10. A version of JAX in which a primitive
# computes another value for the same parameters gives it the next number.
SEMANTICS: Mapping[str, int] = {}

# Implementations of random numbers by name and by the tag of their keys, with the same versions.
RANDOM: Mapping[str, int] = {"threefry2x32": 1, "rbg": 1, "unsafe_rbg": 1}
_KEYS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}

# Parameters that change no result, or are left out by some versions of JAX where they are as here.
_IDLE = frozenset({"weak_type"})
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"top_k": {"is_stable": True}}


def program_id(
    function: Function,
    known_inputs: int,
    outputs: Sequence[Any],
    analysis: Analysis,
    row_block: int | None = None,
) -> bytes:
    """The id of a compiled function.

    Args:
      function: the flattened function.
      known_inputs: how many leading inputs of its block are constants or parameters.
      outputs: shape and dtype of each leaf that it returns.
      analysis: of the function.
      row_block: rows of a leaf, if the program is compiled for audits of rows.

    Raises:
      TypeError: a primitive has a parameter without a canonical form, such as a callback.
    """
    claims = [
        [c.primitive, c.form.near, list(c.shape), c.dtype.name]
        for c in analysis.by_equation.values()
    ]
    leaves = [[list(o.shape), o.dtype.name] for o in outputs]
    header = encode([FORMAT, known_inputs, claims, leaves])
    found = tagged_hash("program", header, _function(function, analysis))
    return found if row_block is None else tagged_hash("program in rows", found, encode(row_block))


def _function(function: Function, analysis: Analysis | None = None) -> bytes:
    numbers: dict[Var, int] = {}
    constants = [constant_digest(c) for c in function.constants]
    body = _block(function.block, numbers, analysis)
    return tagged_hash("function", encode([body, constants]))


def constant_digest(value: Any) -> bytes:
    """32 bytes that name a constant by type, shape and content."""
    head = encode(list(value.shape))
    return tagged_hash("constant", value.dtype.name.encode(), head, tensor_bytes(value))


def equation_digest(equation: Equation, known: Mapping[Var, bytes]) -> bytes:
    """32 bytes that name what an equation computes, without what is claimed.

    Args:
      equation: of a flattened function.
      known: 32 bytes that name each variable that it reads.
    """
    return _equation(equation, dict(known), None)


def _block(block: Block, numbers: dict[Var, Any], analysis: Analysis | None) -> bytes:
    parts = [encode([_define(v, numbers) for v in block.inputs])]
    parts += [_equation(e, numbers, analysis) for e in block.equations]
    parts.append(encode([_atom(a, numbers) for a in block.outputs]))
    return tagged_hash("block", *parts)


def _equation(equation: Equation, numbers: dict[Var, Any], analysis: Analysis | None) -> bytes:
    params = {k: equation.params[k] for k in sorted(equation.params)}
    inputs = [_atom(a, numbers) for a in equation.inputs]
    bodies = [_block(b, numbers, analysis) for b in equation.bodies]
    outputs = [_define(v, numbers) for v in equation.outputs]
    claimed = analysis is not None and equation in analysis.by_equation
    kind = [equation.kind, SEMANTICS.get(equation.kind, 1)]
    content = [kind, _parameters(equation.kind, params), inputs, bodies, outputs, claimed]
    return tagged_hash("equation", encode(content))


def _define(var: Var, numbers: dict[Var, Any]) -> list[Any]:
    numbers[var] = len(numbers)
    return [numbers[var], list(var.shape), _type_name(var)]


def _type_name(var: Var) -> str:
    """The name of a type; for keys of random numbers with their version, if it is not 1."""
    name = var.dtype.name
    if not name.startswith("key<"):
        return name
    if name not in _KEYS:
        raise TypeError(
            f"expected random numbers of {', '.join(RANDOM)}, got keys of type {name}: another "
            "process could not tell their implementation by its name"
        )
    version = RANDOM[_KEYS[name]]
    return name if version == 1 else f"{name} {version}"


def _atom(atom: Atom, numbers: dict[Var, Any]) -> Any:
    if isinstance(atom, Var):
        return numbers[atom]
    return [atom.dtype.name, bytes(tensor_bytes(atom.value))]


def _parameters(kind: str, params: Mapping[str, Any]) -> bytes:
    # If the jaxpr of a function is a parameter too, the function itself adds nothing.
    has_program = any(True for _ in from_jax.subprograms(params))
    defaults = _DEFAULTS.get(kind, {})
    canonical = {
        name: _canonical(value, f"{kind}[{name}]")
        for name, value in params.items()
        if not (has_program and callable(value) and not from_jax.is_jaxpr(value))
        and not (value is None or name in _IDLE)
        and not (name in defaults and defaults[name] == value)
    }
    return encode(canonical)


def _canonical(value: Any, where: str) -> Any:
    """A parameter in the data model of `encoding`: different parameters, different values."""
    if value is None or isinstance(value, bool | str | bytes):
        return value
    if isinstance(value, enum.Enum):
        return ["enum", type(value).__qualname__, value.name]
    if isinstance(value, int):
        return ["int", str(int(value))]
    if isinstance(value, float):
        return ["float", float(value).hex()]
    if from_jax.is_jaxpr(value):
        return ["program", _function(from_jax.flatten(value))]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return ["array", array.dtype.name, list(array.shape), bytes(tensor_bytes(array))]
    if type(value).__name__ == "PRNGImpl":  # a named tuple of functions
        if value.name not in RANDOM:
            raise TypeError(f"expected random numbers of {', '.join(RANDOM)}, got {value.name}")
        return ["prng", str(value.name), RANDOM[value.name]]
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value)
        pairs = sorted((str(k), encode(_canonical(v, where))) for k, v in items.items())
        return ["map", [list(p) for p in pairs]]
    if isinstance(value, set | frozenset):
        members = cast("set[Any] | frozenset[Any]", value)
        return ["set", sorted(encode(_canonical(v, where)) for v in members)]
    if isinstance(value, tuple | list):
        items = cast("Sequence[Any]", value)
        return [
            type(value).__name__,
            tagged_hash("items", *(encode(_canonical(v, where)) for v in items)),
        ]
    if isinstance(value, np.dtype):
        return ["dtype", str(value.name)]
    name = getattr(value, "dtype", None)
    if isinstance(value, type) and isinstance(name, np.dtype):
        return ["dtype", str(name.name)]
    text = repr(value)
    if callable(value) or " at 0x" in text or " object>" in text:
        raise TypeError(
            f"expected parameters with a canonical form, got {where} = {text}: a program with a "
            "callback or an opaque object has no id that another process could compute"
        )
    return ["object", type(value).__qualname__, text]
