"""What a key holds: the shapes of its arrays, and their names, by what they are computed from.

Two programs of a family, such as one model at two lengths, need mostly the same of the parameters.
So an array of a key is named by the *definition* of its value: a digest of the equations that lead
to it from parameters and constants, as in `program_id`; for a projection, of its far operand and
all else that enters it. Equal names are equal values, under one challenge, policy and parameters.

A value that a scan carries from one iteration to the next is named by the program, too: it has no
name in common with values of another program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from verifiable.check.analysis.partition import Frame
from verifiable.check.analysis.program_id import constant_digest, equation_digest
from verifiable.check.replay import replay
from verifiable.check.specification import Specification
from verifiable.check.trees import entries
from verifiable.encoding import encode, tagged_hash
from verifiable.jaxpr.blocks import Array, Atom, Block, Equation, Literal, Var
from verifiable.jaxpr.graph import uses

_DIGITS = 32  # of a digest, in a name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyLayout:
    """The arrays of a program's keys.

    Attributes:
      tree: shapes and dtypes for a secret challenge, as the tree that a check reads: `vectors` by
        label, `residual` and `moves` of the outermost frame.
      names: of the leaves of the tree: `vectors/LABEL`, `kept/DIGEST`, `projected/DIGEST/FIELD`,
        and `moves/...` of the latter two.
    """

    tree: dict[str, Any]
    names: tuple[str, ...]

    @staticmethod
    def of(program: Specification, tree: dict[str, Any]) -> KeyLayout:
        """The layout of a key with a tree of shapes and dtypes."""
        known = _Definitions(program).by_variable
        paths = [entries(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        return KeyLayout(tree=tree, names=tuple(_name(program, known, path) for path in paths))

    @property
    def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes by name."""
        return self.by_name(self.tree)

    def by_name(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The leaves of a tree like this one by name."""
        return dict(zip(self.names, jax.tree.leaves(tree), strict=True))

    def as_tree(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """The arrays of a key, as the tree that a check reads."""
        leaves = [arrays[name] for name in self.names]
        return jax.tree.unflatten(jax.tree.structure(self.tree), leaves)


def _name(program: Specification, known: Mapping[Var, bytes], path: Sequence[Any]) -> str:
    """The name of a leaf by its path, such as `residual/children/0/projected/1/image`."""
    first, *rest = path
    if first == "vectors":
        return "/".join(path)
    frame: Frame = program.analysis.frame
    trips: list[int] = []
    while rest[0] == "children":
        equation, frame = list(frame.children.items())[rest[1]]
        trips.append(equation.params["length"])
        rest = rest[2:]
    what, i, *fields = rest
    if what == "kept":
        content = [trips, known[frame.kept[i]]]
        if first == "moves" and frame.kept[i] in frame.tables:
            what = "table"
    else:
        content = [trips, *_projection(program, known, frame, i)]
    digest = tagged_hash("array of a key", encode([what, *content])).hex()[:_DIGITS]
    return "/".join([*(["moves"] if first == "moves" else []), what, digest, *fields])


def _projection(
    program: Specification, known: Mapping[Var, bytes], frame: Frame, index: int
) -> list[Any]:
    """All that a projection depends on, in the data model of `encoding`."""
    far, projects, vectors = list(frame.projected)[index]
    claim = replay.projecting(frame, program.policy)[index]
    eps = program.policy.eps_of(claim, claim.name)
    return [known[far], repr(projects), vectors, float(eps).hex()]


class _Definitions:
    """The digests of the known values of a program.

    Attributes:
      by_variable: the digest of each known variable.
    """

    def __init__(self, program: Specification):
        """Number the parameters, and follow the equations."""
        constants = program.function.constants
        self.analysis = program.analysis
        self.program = program.id
        self.by_variable = {
            v: constant_digest(constants[i])
            if i < len(constants)
            else self._digest("parameter", i - len(constants))
            for i, v in enumerate(program.function.block.inputs)
            if self.analysis.facts[v].known
        }
        self._follow(program.function.block)

    def _follow(self, block: Block) -> None:
        for equation in block.equations:
            if self.analysis.known(equation) and equation.outputs:
                digest = equation_digest(equation, self._read(equation))
                for i, v in enumerate(equation.outputs):
                    self.by_variable[v] = self._digest("result", digest, i)
                continue
            if equation.kind == "scan":
                self._enter(equation)
            if equation.kind in ("scan", "cond"):
                for body in equation.bodies:
                    self._follow(body)
                self._leave(equation)

    def _read(self, equation: Equation) -> dict[Var, bytes]:
        """The digests of the variables that a known equation reads."""
        return {a: self.by_variable[a] for a in uses(equation) if isinstance(a, Var)}

    def _enter(self, equation: Equation) -> None:
        """Digests of the known inputs of the body of a scan of which something is not known."""
        [body] = equation.bodies
        for i, (v, atom) in enumerate(zip(body.inputs, equation.inputs, strict=True)):
            if not self.analysis.facts[v].known:
                continue
            if i < equation.params["num_carry"]:
                self.by_variable[v] = self._looped("carried", equation, i)
            else:
                self.by_variable[v] = self._digest("slice", self._atom(atom))

    def _leave(self, equation: Equation) -> None:
        """Digests of the known results of an equation of which something is not known."""
        for i, v in enumerate(equation.outputs):
            if self.analysis.facts[v].known:
                self.by_variable[v] = self._looped("of a loop", equation, i)

    def _atom(self, atom: Atom) -> bytes:
        return constant_digest(atom.value) if isinstance(atom, Literal) else self.by_variable[atom]

    def _looped(self, kind: str, equation: Equation, index: int) -> bytes:
        return self._digest(kind, self.program, equation.number, index)

    @staticmethod
    def _digest(*content: Any) -> bytes:
        return tagged_hash("known value", encode(list(content)))
