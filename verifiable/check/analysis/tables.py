"""Tables: which values of parameters and constants a device commits to, so that they taint nothing.

A device computes for itself what depends on no input, with its own last bits. A second look has to
move such a value by all that another library may lose; where its rounding is magnified, hardly a
cheat behind it is outside of what that explains. So a value is committed (`claims.table`) iff

    known       it depends on parameters and constants only, is a float, and is not exact;
    used        an equation reads it that is not known, otherwise than as the projected operand of
                a product: it is the last known value on its way;
    magnified   the rounding of a known value before it, or its own after it, may become a larger
                part: it was added up or went through a periodic function, or reaches one;
    small       the smallest such tables that are together at most SHARE of the trace, or LEAST.

Known values are still computed from known values. What is not known reads the committed table. A
table that does not depend on the iteration is computed before the loop, and equal tables are
committed once.

A value that is a quotient, product, root or exponential of exact ones is off by a few units in the
last place, and so is what follows, as after any other operation: it is not committed unless that is
magnified. Large tables, such as weights that are quantised in the graph, stay in the key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from verifiable.check.analysis import equal_roundings, partition
from verifiable.check.analysis.partition import Analysis
from verifiable.check.analysis.program_id import equation_digest
from verifiable.encoding import encode, tagged_hash
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Atom, Block, Equation, Function, Literal, Var
from verifiable.jaxpr.effects import FLOATS, TABLE, is_float
from verifiable.jaxpr.graph import Graph, uses

SHARE = 1 / 16  # of the bytes of all other claims
LEAST = 4096  # bytes

PERIODIC = frozenset({"cos", "sin", "tan"})
_SUMS = frozenset(
    "add add_any conv_general_dilated cumsum dot_general reduce_sum reduce_window_sum scatter-add "
    "scatter-sub scatter_add scatter_sub sub".split()
)

_MOVES = frozenset("broadcast_in_dim expand_dims reshape squeeze tile transpose".split())

Path = tuple[tuple[Equation | None, Block], ...]  # outermost first: a block and what holds it
Slot = tuple[Equation | Block, int]  # an input of an equation, or an output of a block


def analyse(function: Function, known_inputs: int, draws: int) -> Analysis:
    """Analyse a flattened function, after its tables have become equations of their own.

    Equal roundings are merged before (`equal_roundings`).

    Args:
      function: it is changed in place.
      known_inputs: how many of its leading inputs are constants or parameters.
      draws: random vectors of the check.
    """
    found = partition.analyse(function.block, known_inputs, draws)
    if equal_roundings.merge(function.block, found):
        from_jax.tidy(function.block)
        found = partition.analyse(function.block, known_inputs, draws)
    search = _Finder(found, Graph.of(function.block))
    search.enter(function.block, ((None, function.block),))
    chosen = search.chosen()
    if not chosen:
        return found
    search.commit(chosen)
    from_jax.tidy(function.block)
    return partition.analyse(function.block, known_inputs, draws)


@dataclass(slots=True, eq=False)
class _Finder:
    """Finds tables and commits to them.

    Attributes:
      analysis: of the function as it was.
      graph: of the same.
      paths: of each variable, the blocks around it.
      slices: of each scanned input of a body, what it is a slice of.
      order: position of each equation.
      slots: where equations that are not known read a known value.
      digests: what each known value is computed from.
      named: how many equations were added after each.
    """

    analysis: Analysis
    graph: Graph
    paths: dict[Var, Path] = field(default_factory=dict)
    slices: dict[Var, Atom] = field(default_factory=dict)
    order: dict[Equation, int] = field(default_factory=dict)
    slots: dict[Var, list[Slot]] = field(default_factory=dict)
    digests: dict[Var, bytes] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)

    def enter(self, block: Block, path: Path) -> None:
        """Collect what a block holds."""
        self.paths |= dict.fromkeys(block.inputs, path)
        for equation in block.equations:
            self.order[equation] = len(self.order)
            self.paths |= dict.fromkeys(equation.outputs, path)
            if equation.kind == "scan":
                count = equation.params["num_carry"]
                self.slices |= dict(
                    zip(equation.bodies[0].inputs[count:], equation.inputs[count:], strict=True)
                )
            self.read(equation)
            for body in equation.bodies:
                self.enter(body, (*path, (equation, body)))

    def read(self, equation: Equation) -> None:
        """Collect where an equation that is not known reads known values."""
        if self.analysis.known(equation) or equation in self.analysis.unread:
            return
        for owner, i in self.slots_of(equation):
            atom = owner.inputs[i] if isinstance(owner, Equation) else owner.outputs[i]
            if isinstance(atom, Var) and self.is_known(atom):
                self.slots.setdefault(atom, []).append((owner, i))

    def slots_of(self, equation: Equation) -> Iterator[Slot]:
        """The slots of an equation through which a known value becomes part of what is not."""
        claim = self.analysis.by_equation.get(equation)
        if claim is not None:
            # A rounding or decision of known values is committed itself.
            if not all(self.is_known(a) for a in equation.inputs):
                yield from ((equation, i) for i, a in enumerate(equation.inputs) if a != claim.far)
        elif equation.kind in ("scan", "while"):
            body, count = (
                equation.bodies[-1],
                equation.params.get("num_carry", len(equation.inputs)),
            )
            own = [self.is_known(v) for v in body.inputs]
            yield from ((equation, i) for i, known in enumerate(own) if not known)
            own[count:] = [self.is_known(v) for v in equation.outputs[count:]]
            yield from ((body, i) for i, known in enumerate(own) if not known)
        elif equation.kind == "cond":
            for body in equation.bodies:
                outputs = enumerate(equation.outputs)
                yield from ((body, i) for i, v in outputs if not self.is_known(v))
        else:
            yield from ((equation, i) for i in range(len(equation.inputs)))

    def is_known(self, atom: Atom) -> bool:
        return isinstance(atom, Literal) or self.analysis.facts[atom].known

    def chosen(self) -> dict[Var, list[Var]]:
        """The tables to commit to, in the order of the program, each with what is read of it."""
        found: dict[Var, list[Var]] = {}
        for v in self.paths:
            if v in self.slots and self.is_table(self.source(v)):
                found.setdefault(self.source(v), []).append(v)
        sizes: dict[bytes, int] = {}
        for v in found:
            sizes.setdefault(self.digest(v), v.nbytes * _trips(self.outward(v)))
        left = max(LEAST, SHARE * self.analysis.trace_bytes)
        small: set[bytes] = set()
        for digest, size in sorted(sizes.items(), key=lambda item: item[1]):
            left -= size
            if left < 0:
                break
            small.add(digest)
        return {v: reads for v, reads in found.items() if self.digest(v) in small}

    def source(self, v: Var) -> Var:
        """What a value is moved or spread from."""
        while (move := self.graph.producers.get(v)) is not None and move.kind in _MOVES:
            [atom] = move.inputs
            if not isinstance(atom, Var):
                break
            v = atom
        return v

    def is_table(self, v: Var) -> bool:
        """Whether a known value is worth a claim; there are none inside of `while`."""
        if v.dtype.name not in FLOATS or not v.size or self.exact(v):
            return False
        path = self.outward(v)
        loops = any(e is not None and e.kind == "while" for e, _ in path)
        return not loops and bool(_trips(path)) and self.magnified(v)

    def magnified(self, v: Var) -> bool:
        """Whether rounding before or after a value may become a larger part of it."""
        if v in self.graph.reaching(PERIODIC):
            return True
        before, leaves = self.ancestors(v)
        for equation in before:
            inexact = any(is_float(a.dtype) and not self.exact(a) for a in equation.inputs)
            if equation.bodies or (inexact and equation.kind in _SUMS | PERIODIC):
                return True
        # A scan's body reads a slice of a value before it, or a carry, which a loop leads to.
        sources = [self.slices.get(x) for x in leaves if not self.exact(x)]
        return any(not isinstance(x, Var) or self.magnified(x) for x in sources)

    def exact(self, atom: Atom) -> bool:
        return self.analysis.fact(atom).exact

    def ancestors(self, v: Var) -> tuple[list[Equation], set[Var]]:
        """The equations that lead to a known value, in order, and the variables they start from."""
        found: set[Equation] = set()
        leaves: set[Var] = set()
        todo: list[Atom] = [v]
        while todo:
            atom = todo.pop()
            equation = self.graph.producers.get(atom) if isinstance(atom, Var) else None
            if equation is None and isinstance(atom, Var):
                leaves.add(atom)
            elif equation is not None and equation not in found:
                found.add(equation)
                todo += uses(equation)
        return sorted(found, key=lambda e: self.order[e]), leaves

    def digest(self, v: Var) -> bytes:
        """Equal for values that equal equations compute from the same variables."""
        if v not in self.digests:
            equations, leaves = self.ancestors(v)
            for x in leaves - self.digests.keys():
                self.digests[x] = tagged_hash("table", encode(["leaf", len(self.digests)]))
            for equation in equations:
                read = {a: self.digests[a] for a in uses(equation) if isinstance(a, Var)}
                what = equation_digest(equation, read)
                for i, x in enumerate(equation.outputs):
                    self.digests.setdefault(x, tagged_hash("table", encode(["result", what, i])))
        return self.digests[v]

    def outward(self, v: Var) -> Path:
        """The outermost block in which a value can be computed; it leaves loops, not branches."""
        path = self.paths[v]
        equations, leaves = self.ancestors(v)
        before = set(equations)
        while len(path) > 1:
            holder, body = path[-1]
            varies = not leaves.isdisjoint(body.inputs)
            partly = not all(self.analysis.known(e) for e in body.equations if e in before)
            if holder is None or holder.kind == "cond" or varies or partly:
                break
            path = path[:-1]
        return path

    def commit(self, tables: dict[Var, list[Var]]) -> None:
        """Add an equation for each table, and let what is not known read its output."""
        made: dict[bytes, list[tuple[Block, Var]]] = {}
        for v, reads in tables.items():
            path = self.outward(v)
            same = made.setdefault(self.digest(v), [])
            around = [block for _, block in path]
            table = next((t for block, t in same if block in around), None)
            if table is None:
                self.move(v, path)
                producer = self.graph.producers.get(v)
                name = self.name(producer.name if producer else "input")
                equation = from_jax.identity(v, TABLE, name)
                _insert(equation, around[-1], producer)
                [table] = equation.outputs
                same.append((around[-1], table))
            for read in reads:
                spread = self.spread(read, v, table)
                for slot in self.slots[read]:
                    _replace(slot, spread)

    def spread(self, read: Var, source: Var, table: Var) -> Var:
        """What is read of a table: its elements moved or spread as those of its source are."""
        if read is source:
            return table
        move = self.graph.producers[read]
        [atom] = (a for a in move.inputs if isinstance(a, Var))
        before = self.spread(atom, source, table)
        out = Var(read.shape, read.dtype)
        again = replace(move, inputs=(before,), outputs=(out,), name=self.name(move.name))
        _insert(again, self.paths[read][-1][1], move)
        return out

    def name(self, name: str) -> str:
        """A name that no other equation has."""
        self.named[name] = count = self.named.get(name, 0) + 1
        return f"{name}/{TABLE}" if count == 1 else f"{name}/{TABLE}.{count}"

    def move(self, v: Var, path: Path) -> None:
        """Move what leads to a value out of the loops inside of a block, before the outermost."""
        left = self.paths[v][len(path) :]
        if not left:
            return
        before = set(self.ancestors(v)[0])
        moved: list[Equation] = []
        for _, body in left:
            moved += [e for e in body.equations if e in before]
            body.equations = [e for e in body.equations if e not in before]
        equations, (loop, _) = path[-1][1].equations, left[0]
        place = next(i for i, e in enumerate(equations) if e is loop)
        equations[place:place] = moved
        self.paths |= {x: path for e in moved for x in e.outputs}


def _trips(path: Path) -> int:
    scans = [e for e, _ in path if e is not None and e.kind == "scan"]
    return math.prod(e.params["length"] for e in scans)


def _insert(equation: Equation, block: Block, after: Equation | None) -> None:
    """Put an equation after another one, or in front of all."""
    place = 0 if after is None else block.equations.index(after) + 1
    block.equations.insert(place, equation)


def _replace(slot: Slot, table: Var) -> None:
    owner, i = slot
    if isinstance(owner, Equation):
        owner.inputs = (*owner.inputs[:i], table, *owner.inputs[i + 1 :])
    else:
        owner.outputs = (*owner.outputs[:i], table, *owner.outputs[i + 1 :])
