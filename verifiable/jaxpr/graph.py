"""Which equations compute and read the variables of a function, across all of its blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from verifiable.jaxpr.blocks import Atom, Block, Equation, Var

RETURNED = "return"  # no primitive has this name


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """Producers and readers of the variables of a function.

    Attributes:
      block: the outermost block.
      producers: the equation that computes a variable; inputs of blocks have none.
      readers: the equations that read a variable directly, and None for a block that returns it.
      trips: how often a variable is bound in one run, not counting loops and branches.
    """

    block: Block
    producers: dict[Var, Equation] = field(default_factory=dict)
    readers: dict[Var, list[Equation | None]] = field(default_factory=dict)
    trips: dict[Var, int] = field(default_factory=dict)
    _reaching: dict[tuple[frozenset[str], frozenset[str]], set[Var]] = field(default_factory=dict)

    @staticmethod
    def of(block: Block) -> Graph:
        """The graph of a function, given its outermost block."""
        graph = Graph(block)
        graph._add(block)
        return graph

    def _add(self, block: Block, trips: int = 1) -> None:
        self.trips.update(dict.fromkeys(block.inputs, trips))
        for equation in block.equations:
            self.producers.update(dict.fromkeys(equation.outputs, equation))
            self.trips.update(dict.fromkeys(equation.outputs, trips))
            self._read(equation.inputs, equation)
            for body in equation.bodies:
                self._add(body, trips * equation.params.get("length", 1))
        self._read(block.outputs, None)

    def _read(self, atoms: Iterable[Atom], reader: Equation | None) -> None:
        for atom in atoms:
            if isinstance(atom, Var):
                self.readers.setdefault(atom, []).append(reader)

    def only_reader(self, variable: Var) -> Equation | None:
        """The equation that alone reads a variable, if there is one and no block returns it."""
        readers = self.readers.get(variable, [])
        return readers[0] if len(readers) == 1 else None

    def reaching(
        self, kinds: Collection[str], stops: Collection[str] = (), *, returned: bool = False
    ) -> set[Var]:
        """The variables from which data flows into an operand of a primitive of these kinds.

        Args:
          kinds: names of primitives.
          stops: names of primitives through which the flow is not followed.
          returned: whether data that flows into what the function returns counts too.
        """
        key = frozenset(kinds) | ({RETURNED} if returned else frozenset()), frozenset(stops)
        if key not in self._reaching:
            outputs = self.block.outputs if returned else ()
            found = self._reaching[key] = {a for a in outputs if isinstance(a, Var)}
            _add_reaching(self.block, *key, found)
        return self._reaching[key]


def uses(equation: Equation) -> Iterator[Atom]:
    """Atoms that an equation reads, the free variables of its bodies among them."""
    yield from equation.inputs
    for body in equation.bodies:
        own: set[Atom] = set(body.inputs)
        for inner in body.equations:
            yield from (a for a in uses(inner) if a not in own)
            own.update(inner.outputs)
        yield from (a for a in body.outputs if a not in own)


def _add_reaching(
    block: Block, kinds: frozenset[str], stops: frozenset[str], found: set[Var]
) -> None:
    """Add the variables of a block, and of those around it, that reach primitives of some kinds."""

    def add(atoms: Iterable[Atom]) -> None:
        found.update(a for a in atoms if isinstance(a, Var))

    for equation in reversed(block.equations):
        reached = any(v in found for v in equation.outputs)
        follows = reached and equation.kind not in stops
        if equation.kind in kinds or (follows and not equation.bodies):
            add(equation.inputs)
        elif not equation.bodies:
            continue
        elif equation.kind == "scan":
            _add_reaching_scan(equation, kinds, stops, found)
        elif equation.kind == "cond":
            for body in equation.bodies:
                add(a for a, v in zip(body.outputs, equation.outputs, strict=True) if v in found)
                _add_reaching(body, kinds, stops, found)
        elif reached or any(e.kind in kinds for b in equation.bodies for e in b.walk()):
            add(uses(equation))


def _add_reaching_scan(
    equation: Equation, kinds: frozenset[str], stops: frozenset[str], found: set[Var]
) -> None:
    [body] = equation.bodies
    carries = body.inputs[: equation.params["num_carry"]]

    def add(atoms: Iterable[Atom], reached_as: Iterable[Var]) -> None:
        pairs = zip(atoms, reached_as, strict=False)
        found.update(a for a, v in pairs if isinstance(a, Var) and v in found)

    add(body.outputs, equation.outputs)
    before = -1
    # If a carry reaches such an operand, so does the value carried into it one iteration before.
    while len(found) > before:
        before = len(found)
        _add_reaching(body, kinds, stops, found)
        add(body.outputs, carries)
    add(equation.inputs, body.inputs)
