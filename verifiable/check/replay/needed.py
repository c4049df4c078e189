"""What the operands of some claims, and some outputs, need of a program, every claim given.

Found backwards, from the operands to the nearest claims; `operands` evaluates it. Values that
depend on parameters only are in the key; a judge, who has the parameters and no key, evaluates
them too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from verifiable.check.analysis.partition import Analysis
from verifiable.claims.claim import Claim
from verifiable.jaxpr.blocks import Atom, Block, Equation, Var
from verifiable.jaxpr.effects import CUT
from verifiable.jaxpr.graph import uses

Later = tuple[Equation, Claim]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Needs:
    """What some claims and outputs need of a program.

    Attributes:
      analysis: of the program.
      claims: indices of the claims whose operands are wanted.
      variables: all that are needed: evaluated here, held by the key, or given.
      reads: indices of the claims whose values are read.
      keyed: whether a key holds the known values that are not rebuilt.
      later: an equation, outside of branches, before which a claim is measured once more; then
        nothing else is measured.
      ended: scans of which only last carries are needed, which claims commit to; their indices,
        by the variables of these carries. Only the last iteration of such a claim is given.
    """

    analysis: Analysis
    later: Later | None = None
    claims: frozenset[int]
    variables: frozenset[Var]
    reads: frozenset[int]
    keyed: bool
    ended: Mapping[Equation, Mapping[Var, int]] = field(default_factory=dict)

    @property
    def last(self) -> dict[int, int]:
        """The claims of which only the last iteration is given, and its number."""
        found: dict[int, int] = {}
        for equation, of in self.ended.items():
            number = 0 if equation.params["reverse"] else equation.params["length"] - 1
            found |= dict.fromkeys(of.values(), number)
        return found

    def held(self, variable: Var) -> bool:
        """Whether the key holds a variable, if it is needed at all."""
        known = self.analysis.facts[variable].known
        return self.keyed and known and variable not in self.analysis.rebuilt

    def evaluates(self, variable: Var) -> bool:
        """Whether a variable is needed and not held by the key."""
        return variable in self.variables and not self.held(variable)


def needed(
    block: Block,
    analysis: Analysis,
    claims: Iterable[int],
    outputs: Iterable[Atom] = (),
    *,
    keyed: bool = True,
    later: Later | None = None,
    ends: bool = False,
) -> Needs:
    """What the operands of some claims, and some outputs, need.

    Args:
      block: the outermost block.
      analysis: of the function.
      claims: indices of claims.
      outputs: outputs of the block.
      keyed: whether a key holds the known values that are not rebuilt; else they are evaluated.
      later: see `Needs`.
      ends: whether nothing is needed of a scan but its last carries, where claims commit to them.
    """
    ended: dict[Equation, Mapping[Var, int]] | None = {} if ends else None
    search = _Search(analysis, frozenset(claims), keyed, later and later[0], ended, set(), set())
    search.want(outputs)
    before = -1
    while len(search.variables) != before:  # a carry may need another carry
        before = len(search.variables)
        search.block(block)
    return Needs(
        analysis=analysis,
        claims=search.claims,
        variables=frozenset(search.variables),
        reads=frozenset(search.reads),
        keyed=keyed,
        later=later,
        ended=ended or {},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    analysis: Analysis
    claims: frozenset[int]
    keyed: bool
    later: Equation | None
    ended: dict[Equation, Mapping[Var, int]] | None
    variables: set[Var]
    reads: set[int]

    def want(self, atoms: Iterable[Atom]) -> None:
        self.variables.update(a for a in atoms if isinstance(a, Var))

    def wanted(self, equation: Equation) -> list[bool]:
        return [v in self.variables for v in equation.outputs]

    def held(self, equation: Equation) -> bool:
        known = self.keyed and self.analysis.known(equation)
        return known and self.analysis.rebuilt.isdisjoint(equation.outputs)

    def block(self, block: Block) -> None:
        for equation in reversed(block.equations):
            claim = self.analysis.by_equation.get(equation)
            if equation is self.later:
                self.want(equation.inputs)
            if claim is not None:
                if claim.index in self.claims:
                    self.want(claim.reads)
                    if not self.keyed and claim.far is not None:
                        self.want((claim.far,))
                    self.reads.add(claim.index)
                if any(self.wanted(equation)):
                    self.want(claim.feeds)
                    self.reads.add(claim.index)
            elif self.held(equation):
                continue
            elif equation.kind == "scan":
                self.scan(equation)
            elif equation.kind == "cond":
                for body in equation.bodies:
                    self.want(itertools.compress(body.outputs, self.wanted(equation)))
                    self.block(body)
                if any(self.wanted(equation)) or self.inside(equation):
                    self.want(equation.inputs)
            elif any(self.wanted(equation)):
                self.want(uses(equation))

    def scan(self, equation: Equation) -> None:
        if self.ended is not None:
            self.ended.pop(equation, None)
            found = self.ends(equation)
            if found is not None:
                self.ended[equation] = found
                self.reads.update(found.values())
                return
        [body] = equation.bodies
        count = equation.params["num_carry"]
        self.want(itertools.compress(body.outputs, self.wanted(equation)))
        self.want(itertools.compress(body.inputs[:count], self.wanted(equation)))
        self.block(body)
        for i, v in enumerate(body.inputs):
            if v in self.variables and not (self.keyed and self.analysis.facts[v].known):
                self.want((equation.inputs[i],))
                if i < count:
                    self.want((body.outputs[i],))

    def ends(self, equation: Equation) -> dict[Var, int] | None:
        """The claims that commit to all that is needed of a scan; None if more is needed."""
        [body], count = equation.bodies, equation.params["num_carry"]
        wanted = self.wanted(equation)
        later = self.later is not None and self.later in body.walk()
        if not any(wanted) or any(wanted[count:]) or not equation.params["length"]:
            return None
        if later or self.inside(equation):
            return None
        pairs = zip(equation.outputs, body.outputs, strict=True)
        found = {v: _cut(body, a, self.analysis) for v, a in itertools.compress(pairs, wanted)}
        some = {v: i for v, i in found.items() if i is not None}
        return some if len(some) == len(found) else None

    def inside(self, equation: Equation) -> bool:
        found = (c.index for body in equation.bodies for c in self.analysis.claims_in(body))
        return not self.claims.isdisjoint(found)


def _cut(body: Block, atom: Atom, analysis: Analysis) -> int | None:
    """The claim that commits to a value of a body as it is passed on, if one does.

    Not inside of another scan: there, a claim has a last iteration for each of the outer scan.
    """
    made = (e for e in body.equations if atom in e.outputs)
    found = filter(None, map(analysis.by_equation.get, made))
    return next((c.index for c in found if c.primitive == CUT and len(c.trips) == 1), None)
