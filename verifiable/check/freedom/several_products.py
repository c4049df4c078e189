"""Near-ties of choices that follow from several products, or in another block than these.

`near_ties` compares the columns of one product's rows. Here, the claims that a choice follows from
(`lineage`) are replayed up to it with how far each element may be moved (`displaced`), from

    products      spare_ij of its operands (below), and kappa sigma_iJ / w_j more in total;
    roundings     to the extremes that pass, of a value that is moved as well;
    comparisons   one, where what is compared may be moved past a tie.

An operand A of a product that is moved by m, and an operand B by n, move an element by at most

    spare_ij = ||m_i|| / w_j  +  ||A_i|| ||n_:j||        (Cauchy-Schwarz)

So a choice of a over b is turned by a deviation of

    kappa = (v_a - v_b - spare_a - spare_b) / (room_a + room_b),    room = (total - spare) / kappa

of all tests together, at most: what moves both alike is counted for each. Listed are, of each row
from which something is chosen, the closest pair; rows and elements are those of the choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check.freedom import displaced
from verifiable.check.freedom.displaced import Moved, filled, plain
from verifiable.check.freedom.easiest_flip import Turned, decided, turned
from verifiable.check.freedom.lineage import MadeChoice
from verifiable.check.freedom.steering import Steering
from verifiable.check.replay import parameter_values, replay
from verifiable.check.replay.key_layout import KeyLayout
from verifiable.check.replay.needed import Needs, needed
from verifiable.check.replay.replay import Context
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.claims.decisions.choice import ChoiceForm
from verifiable.claims.decisions.decision import Comparison, Sign
from verifiable.claims.products import freivalds
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.rounding import Rounding
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env, Equation, Var
from verifiable.report import NearTie


@dataclass(frozen=True, eq=False, kw_only=True)
class FollowedTies:
    """The near-ties of some choices of one program's runs.

    Attributes:
      program: the compiled function.
      key: the layout of a key.
      steering: its choices.
      kappa: the deviation that passes with probability 1e-9; zero without products of floats.
    """

    program: Specification
    key: KeyLayout = field(repr=False)
    steering: Steering
    kappa: float

    @property
    def choices(self) -> Sequence[MadeChoice]:
        """Those that are followed."""
        return self.steering.followed

    def of(self, arguments: Any) -> Iterator[NearTie]:
        """The near-ties of a run, given as `compiled.CheckArguments`."""
        if not self.choices:
            return
        needs, run = self._compiled
        with jax.enable_x64(True):
            given = {
                "key": arguments.key,
                "inputs": jax.tree.leaves(arguments.inputs),
                "values": {i: jnp.asarray(arguments.values[i]) for i in sorted(needs.reads)},
            }
            found = jax.device_get(run(given))
        for i, choice in enumerate(self.choices):
            rows = found[i].kappa.shape[-1]
            least, chosen, other = (np.asarray(x).reshape(-1) for x in found[i])
            for place in np.flatnonzero(least <= self.kappa).tolist():
                trip, row = divmod(place, rows)
                yield NearTie(
                    claim=choice.name,
                    trip=trip,
                    row=row,
                    chosen=int(chosen[place]),
                    other=int(other[place]),
                    kappa=float(least[place]),
                    choice=choice.name,
                )

    @cached_property
    def _compiled(self) -> tuple[Needs, Callable[[Any], dict[int, Turned]]]:
        program = self.program
        lineages = [c.lineage for c in self.choices]
        products = frozenset[int]().union(*(x.products for x in lineages))
        others = frozenset[int]().union(*(x.others | x.before for x in lineages))
        block = program.function.block
        keys = [a for c in self.choices for a in c.keys]
        needs = needed(block, program.analysis, products | others, keys)
        walk = _Following(
            needs=needs,
            sources=self.steering.movable,
            moving=products | others,
            before=others,
            kappa=max(self.kappa, 1.0),
            measured=self._measured,
        )

        def run(given: Any) -> dict[int, Turned]:
            key = parameter_values.with_moves(self.key.as_tree(given["key"]))
            env, context = replay.begin(program, key, given["inputs"], given["values"])
            found = walk.block(block, context, env)
            for i, choice in enumerate(self.choices):
                if choice.output >= 0:
                    found[i] = decided(filled(interpret.read(env, choice.keys[0])), walk.kappa)
            return found

        return needs, jax.jit(run)

    @cached_property
    def _measured(self) -> Mapping[Equation, Callable[[Env], tuple[int, Turned]]]:
        """What measures a choice, by its equation: its number and what it finds."""

        def measure(i: int, choice: MadeChoice, equation: Equation, env: Env) -> Any:
            keys = [filled(interpret.read(env, a)) for a in choice.keys]
            return i, turned(choice, equation, keys, max(self.kappa, 1.0))

        return {
            c.equation: partial(measure, i, c, c.equation)
            for i, c in enumerate(self.choices)
            if c.equation is not None
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Following:
    """A replay of what some choices need, in which values are `Moved` that a device may move."""

    needs: Needs
    sources: frozenset[Var]
    moving: frozenset[int]
    before: frozenset[int]
    kappa: float
    measured: Mapping[Equation, Callable[[Env], tuple[int, Turned]]]

    def block(self, block: Block, context: Context, env: Env) -> dict[int, Turned]:
        analysis, found = self.needs.analysis, dict[int, Turned]()
        for equation in block.equations:
            if equation in self.measured:
                number, easiest = self.measured[equation](env)
                found[number] = easiest
            claim = analysis.by_equation.get(equation)
            if claim is not None:
                self.claim(claim, context, env)
            elif analysis.known(equation) and equation.bodies:
                continue
            elif equation.kind == "scan":
                found |= self.scan(equation, context, env)
            elif not any(self.needs.evaluates(v) for v in equation.outputs):
                continue
            elif equation.kind == "cond":
                self.switch(equation, context, env)
            elif equation.kind == "while":
                values = {v: plain(x) for v, x in env.items()}
                limit = context.policy.trip_limit
                outputs, _ = interpret.while_loop(equation, values, limit)
                interpret.write(env, equation.outputs, outputs)
            else:
                interpret.replay(equation, env, displaced.apply)
        return found

    def claim(self, claim: Claim, context: Context, env: Env) -> None:
        """The outputs of a claim, and how far they may be moved."""
        equation, measured = claim.equation, claim.index in self.moving
        if not measured and not any(v in self.needs.variables for v in equation.outputs):
            return
        committed = context.claimed[claim.index]
        values: Env = {v: plain(x) for v, x in env.items()}
        if measured or equation.bodies:
            claim.prepare(committed, values, *context.of_loops(claim), interpret.apply)
        outputs = claim.outputs(committed, values)
        interpret.write(env, equation.outputs, outputs)
        [out, *_] = outputs
        if isinstance(claim.form, ChoiceForm):
            sources = [a for a in claim.sources if a is not None]
            if not any(isinstance(interpret.read(env, a), Moved) for a in sources):
                return
            given = [None if a is None else filled(interpret.read(env, a)) for a in claim.sources]
            spare, total = (
                claim.form.outputs(committed, [None if x is None else x[i] for x in given])
                for i in (1, 2)
            )
            for v, x, a, b, source in zip(
                equation.outputs, outputs, spare, total, given, strict=True
            ):
                env[v] = x if source is None else Moved(x, a, b)
        elif not measured:
            return
        elif isinstance(claim.form, Product):
            found = self.product(claim, context, env, values, out)
            # Of what is multiplied once more, all counts as spare.
            before = claim.index in self.before
            env[claim.output] = found._replace(spare=found.total) if before else found
        elif isinstance(claim.form, Rounding):
            env[claim.output] = _rounded(claim, context, env, values, out)
        elif isinstance(claim.form, Comparison | Sign):
            given = [interpret.read(env, a) for a in equation.inputs]
            found = displaced.apply(equation, given)[0]
            env[claim.output] = found._replace(value=out) if isinstance(found, Moved) else out

    def product(self, claim: Claim, context: Context, env: Env, values: Env, out: Array) -> Moved:
        """A claimed product, moved by what its test and its operands' roundings leave."""
        product: Any = claim.form
        form = product.contraction
        given = context.yardstick(claim, values)
        read = interpret.read_all(values, claim.operands)
        near, projection = product.rows_and_projection(read, given.projection)
        inverse = jnp.ones((form.batch, form.columns))
        if projection.weights is not None:
            inverse = (1 / projection.weights).reshape(inverse.shape)
        spare = jnp.zeros(form.shapes[2])
        ones = jnp.ones((*projection.image.shape[:-1], form.blocks))
        by = env.get(claim.near) if isinstance(claim.near, Var) else None
        if isinstance(by, Moved):
            change, _ = product.rows_and_projection([by.spare, *read[1:]], given.projection)
            if form.exact:
                sums = form.near_sums(change, ones) * form.extents[form.far]
            else:
                sums = jnp.sqrt(form.near_sums(change * change, ones))
            unit = 1.0 if projection.scale is None else projection.scale
            spare += form.scale_out(form.over_rows(sums * unit), inverse)
        by = env.get(claim.far) if isinstance(claim.far, Var) else None
        if isinstance(by, Moved):
            wide = near.astype(jnp.float64)
            sums = jnp.sqrt(form.near_sums(wide * wide, ones))
            columns = jnp.sqrt(form.column_sums(jnp.square(product.far_of(by.spare))))
            spare += form.scale_out(form.over_rows(sums), columns)
        total = spare
        if not form.exact:
            share = freivalds.apply(form, near, projection)
            vectors: Any = given.vectors
            _, _, sigma, _ = freivalds.deviations(
                form, share, projection, product.seen(out), vectors, given.eps
            )
            unit: Any = 1.0 if share.top is None else share.top * projection.scale
            total = spare + self.kappa * form.scale_out(form.over_rows(sigma * unit), inverse)
        spare, total = (product.unseen(x) for x in (spare, total))
        return Moved(out, *((jnp.ceil(x) if form.exact else x) for x in (spare, total)))

    def scan(self, equation: Equation, context: Context, env: Env) -> dict[int, Turned]:
        [body], needs = equation.bodies, self.needs
        count = equation.params["num_carry"]
        slots = [needs.evaluates(v) for v in body.inputs]
        stacked = [needs.evaluates(v) for v in equation.outputs[count:]]
        idle = not any(e in self.measured for e in body.walk())
        if idle and not any(slots[:count] + stacked):
            return {}
        carried = list(itertools.compress(body.inputs[:count], slots[:count]))
        wanted = list(itertools.compress(body.outputs, slots[:count] + stacked))
        frame, residual = context.children[equation]
        inside = [c.index for c in needs.analysis.claims_in(body)]
        claimed = {i: context.claimed[i] for i in inside if i in context.claimed}
        # All trips must find the carries in one form.
        start, inputs = dict(env), list(equation.inputs)
        for i, v in enumerate(body.inputs[:count]):
            if slots[i]:
                inputs[i] = first = Var(v.shape, v.dtype)
                start[first] = self._carry(v, interpret.read(env, equation.inputs[i]))
        again = replace(equation, inputs=tuple(inputs))

        def step(inner: Env, slices: Any) -> tuple[list[Array], dict[int, Turned]]:
            residual, claimed = slices
            here = replace(context, claimed=claimed).inside(frame, residual, inner)
            found = self.block(body, here, inner)
            values = interpret.read_all(inner, wanted)
            kept = [self._carry(v, x) for v, x in zip(carried, values, strict=False)]
            return [*kept, *values[len(kept) :]], found

        outputs, found = interpret.scan(
            again,
            start,
            step,
            extra=(residual, claimed),
            carried=slots[:count],
            scanned=slots[count:],
        )
        variables = itertools.compress(equation.outputs, slots[:count] + stacked)
        interpret.write(env, list(variables), outputs)
        return found

    def _carry(self, variable: Var, value: Any) -> Any:
        if variable not in self.sources:
            return jnp.asarray(plain(value))
        value = filled(value)
        return value._replace(value=jnp.asarray(value.value))

    def switch(self, equation: Equation, context: Context, env: Env) -> None:
        """The outputs of a branch, from which nothing is chosen inside of it."""
        wanted = [self.needs.evaluates(v) for v in equation.outputs]

        def branch(body: Block) -> list[Any]:
            inner = dict(env)
            self.block(body, context, inner)
            pairs = itertools.compress(zip(equation.outputs, body.outputs, strict=True), wanted)
            return [self._carry(v, interpret.read(inner, a)) for v, a in pairs]

        index = plain(interpret.read(env, equation.inputs[0]))
        branches = [partial(branch, body) for body in equation.bodies]
        outputs = lax.switch(index, branches)
        interpret.write(env, list(itertools.compress(equation.outputs, wanted)), outputs)


def _rounded(claim: Claim, context: Context, env: Env, values: Env, out: Array) -> Moved:
    """A committed rounding, moved to the extremes that pass."""
    rounding: Any = claim.form
    read = interpret.read_all(values, claim.operands)
    value = read[0].astype(rounding.wide)
    slack = rounding.slack_of(read, context.policy.eps_of(claim, claim.name))
    own, before = rounding.forward(value), filled(interpret.read(env, claim.operands[0]))

    def change(by: Array) -> Array:
        ends = rounding.extremes(value, slack + by.astype(slack.dtype))
        far = [jnp.abs(x.astype(jnp.float64) - own) for x in ends]
        # What is beyond all numbers on one side only is tested there, not here.
        return jnp.maximum(*(jnp.where(jnp.isfinite(x), x, 0) for x in far))

    return Moved(out, *(change(x).reshape(out.shape) for x in (before.spare, before.total)))
