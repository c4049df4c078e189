"""Draws from seeds, and challenges."""

from __future__ import annotations

from tests.helpers.vectors.values import Given, Operations, Refused, number, octets, require_value
from verifiable import challenge
from verifiable.audits import sampling


def draw(given: Given) -> None:
    seed, population, audits = octets(given["seed"]), given["population"], given["audits"]
    drawn = sampling.draw(seed, population, audits, label=given["label"])
    require_value(given["drawn"], list(drawn))


def each(given: Given) -> None:
    drawn = sampling.draw_each(octets(given["seed"]), given["rates"], label=given["label"])
    require_value(given["drawn"], list(drawn))


def select(given: Given) -> None:
    weights = [number(weight) for weight in given["weights"]]
    chosen = sampling.select(octets(given["seed"]), weights, given["seats"], label=given["label"])
    require_value(given["chosen"], list(chosen))


def secret(given: Given) -> None:
    made = challenge.secret(octets(given["random"]))
    require_value(given["id"], made.id.hex())
    residues = made.residues(given["label"], (given["count"],))
    require_value([number(x) for x in given["residues"]], residues.tolist())


def public(given: Given) -> None:
    log = challenge.ClosedLog(
        root=octets(given["log_root"]),
        size=given["log_size"],
        chain=given["log_chain"],
        closed_at=given["closed_at"],
    )
    value, names = octets(given["value"]), ("program", "policy", "parameters")
    beacon = challenge.Beacon(chain=given["chain"], round=given["round"], value=value)
    bound = {name: octets(given[name]) for name in names}
    try:
        made = challenge.public(log, beacon, **bound)
    except ValueError as error:
        raise Refused("known-beacon") from error
    require_value(given["id"], made.id.hex())


OPERATIONS: Operations = {
    "draws/draw": draw,
    "draws/each": each,
    "draws/select": select,
    "draws/secret": secret,
    "draws/public": public,
}
