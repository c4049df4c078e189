"""`verifiable plan`: the cheapest mix of replication and audits that reaches an error."""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from protocols.cli.output import AS_JSON, fail, show
from verifiable.audits.planning import Economy, NoOption, Option, Plan
from verifiable.audits.planning import plan as make_plan
from verifiable.audits.stakes import Vanishing
from verifiable.voting import bad_among_answers

if TYPE_CHECKING:
    import typer
    from rich.console import RenderableType

_DEFAULT = Economy()


def add(app: "typer.Typer") -> None:
    """Add the command to an application."""
    import typer  # noqa: PLC0415 - an optional dependency

    as_json = typer.Option("--json", help=AS_JSON)

    @app.command()
    def plan(
        *,
        bad: Annotated[float, typer.Option(help="Bad fraction of the registered workers, 0 to 1.")],
        error: Annotated[
            float, typer.Option(help="Largest acceptable probability of a wrong answer.")
        ],
        availability: Annotated[
            float,
            typer.Option(
                help="Probability that an honest worker answers; bad workers always answer."
            ),
        ] = 1.0,
        run_cost: Annotated[
            float, typer.Option(help="Cost of one run, in any unit of account.")
        ] = _DEFAULT.run_cost,
        audit_cost: Annotated[
            float, typer.Option(help="Cost of one audit, in the same unit.")
        ] = _DEFAULT.audit_cost,
        detection: Annotated[
            float, typer.Option(help="Probability that the audit of a wrong answer fails, 0 to 1.")
        ] = _DEFAULT.detection,
        stake: Annotated[
            float, typer.Option(help="Stake that a detected cheat loses, in the same unit.")
        ] = _DEFAULT.stake,
        gain: Annotated[
            float, typer.Option(help="Gain of a worker from one cheat, in the same unit.")
        ] = _DEFAULT.gain,
        reward: Annotated[
            float, typer.Option(help="Reward for a result, in the same unit.")
        ] = _DEFAULT.reward,
        false_reject: Annotated[
            float,
            typer.Option(
                help="Measured probability that the audit of an honest answer fails, 0 to 1."
            ),
        ] = _DEFAULT.false_reject,
        outstanding: Annotated[
            int, typer.Option(help="Most unsettled results on one stake.")
        ] = _DEFAULT.outstanding,
        window: Annotated[
            int, typer.Option(help="Most results of a trusted worker that wait for audits.")
        ] = _DEFAULT.window,
        probation: Annotated[
            int, typer.Option(help="Checks that a worker must pass before it is trusted.")
        ] = _DEFAULT.probation,
        lifetime: Annotated[
            float, typer.Option(help="Average number of results from an honest identity.")
        ] = _DEFAULT.lifetime,
        agreement: Annotated[
            float,
            typer.Option(help="Probability that a cheap answer is the right one, 0 to below 1."),
        ] = 0.0,
        rational: Annotated[
            bool,
            typer.Option(
                "--rational",
                help="Include deterrence, which assumes that workers avoid losing a stake.",
            ),
        ] = False,
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Find the cheapest mix of replication and audits that reaches an error."""
        prices: dict[str, Any] = {
            "run_cost": run_cost,
            "audit_cost": audit_cost,
            "detection": detection,
            "stake": stake,
            "gain": gain,
            "reward": reward,
            "false_reject": false_reject,
            "outstanding": outstanding,
            "window": window,
            "probation": probation,
            "lifetime": lifetime,
        }
        raise typer.Exit(
            run_plan(
                bad,
                availability,
                error,
                prices,
                agreement=agreement,
                rational=rational,
                as_json=json_,
            )
        )

    del plan


def run_plan(
    bad: float,
    availability: float,
    error: float,
    prices: dict[str, Any],
    *,
    agreement: float = 0.0,
    rational: bool,
    as_json: bool,
) -> int:
    """Print all options, cheapest first, and return the exit status.

    An error names the options of the command line, whichever they are.
    """
    probabilities = {"bad": bad, "error": error, "availability": availability}
    for name, value in probabilities.items():
        always = name == "availability"
        if not 0.0 < value <= 1.0 or (value == 1.0 and not always):
            what = "above 0 and at most 1" if always else "above 0 and below 1"
            return fail(ValueError(f"--{name} must be {what}, got {value!r}"))
    if not 0.0 <= agreement < 1.0:
        return fail(ValueError(f"--agreement must be from 0 to below 1, got {agreement!r}"))
    given = f"--bad {bad:g} and --availability {availability:g}"
    answering = bad_among_answers(bad, honest_availability=availability)
    if answering >= 1.0:
        return fail(ValueError(f"with {given}, practically all answers are bad, and no plan helps"))
    try:
        economy = Economy(**prices)
        plan = make_plan(bad=answering, error=error, economy=economy, rational=rational)
    except NoOption:
        detection = prices["detection"]
        return fail(
            ValueError(
                f"no option reaches --error {error:g} with {given}, where {answering:g} of all "
                f"answers are bad, and audits of --detection {detection:g}"
            )
        )
    except ValueError as problem:
        name, _, rest = str(problem).partition(" ")
        return fail(ValueError(f"--{name.replace('_', '-')} {rest}") if name in prices else problem)
    bonds = [bond_of(option, economy, availability, agreement) for option in plan.options]
    show(plan_dict(plan, bonds), plan_table(plan, bonds), as_json=as_json)
    return 0


def bond_of(option: Option, economy: Economy, answers: float, agreement: float) -> float | None:
    """Return the no-show bond of a job whose worker can vanish when it is audited.

    None where the option audits nothing, or no bond deters.
    """
    if option.audit_rate == 0.0:
        return None
    bond = Vanishing(
        reward=economy.reward,
        cost=economy.run_cost,
        audit_rate=option.audit_rate,
        answers=answers,
        detection=economy.detection,
        agreement=agreement,
    ).least_bond
    return bond if math.isfinite(bond) else None


def plan_dict(plan: Plan, bonds: list[float | None]) -> dict[str, Any]:
    """Return the JSON object of a plan."""
    return {
        "bad": plan.bad,
        "error": plan.error,
        "assumes": plan.assumes,
        "options": [
            {
                "name": option.name,
                "how": option.how,
                "cost": option.cost,
                "runs": option.runs,
                "audits": option.audits,
                "audit_rate": option.audit_rate,
                "error": option.error,
                "deters": option.deters,
                "bond": bond,
            }
            for option, bond in zip(plan.options, bonds, strict=True)
        ],
    }


def plan_table(plan: Plan, bonds: list[float | None]) -> "Iterator[RenderableType]":
    """Draw the options of a plan, cheapest first, and what all of them assume."""
    from rich import box  # noqa: PLC0415 - an optional dependency
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("option", no_wrap=True)
    for column in ("cost", "runs", "audits", "error at most", "bond"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("how", overflow="fold")
    for option, bond in zip(plan.options, bonds, strict=True):
        table.add_row(
            option.name,
            f"{option.cost:.4g}",
            f"{option.runs:.4g}",
            f"{option.audits:.3g}",
            f"{option.error:.2g}",
            "-" if bond is None else f"{bond:.4g}",
            option.how,
            style="bold" if option is plan.best else "",
        )
    yield table
    best = plan.best
    yield Text(f"Cheapest: {best.name}, {best.cost:.4g} a job: {best.how}.", style="bold green")
    yield Text(f"Assumes: {plan.assumes}.")
    yield Text("The bond of a job is forfeit by a worker that is audited and does not answer.")
    if best.deters:
        yield Text(
            "It deters workers that avoid losing their stake; if a bad fraction of "
            f"{plan.bad:g} does not, the error is up to {best.error:.2g}.",
            style="yellow",
        )
