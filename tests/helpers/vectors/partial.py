"""Audits of a part: draws, plans and openings."""

from __future__ import annotations

from typing import Any

from tests.helpers.vectors.traces import commitment_of, layout_of
from tests.helpers.vectors.values import Given, Operations, Refused, octets, require_value
from verifiable.check.judging.receive import Problem
from verifiable.check.partial.opened_rows import opened
from verifiable.trace import AuditPlan
from verifiable.trace.audit_plan import drawn, drawn_rows
from verifiable.trace.copies import Copy


def layers(given: Given) -> None:
    found = drawn(octets(given["seed"]), given["population"], given["count"])
    require_value(given["layers"], list(found))


def rows(given: Given) -> None:
    found = drawn_rows(
        octets(given["seed"]),
        given.get("layer"),
        given["length"],
        given["count"],
        block=given["block"],
        sure=given["answer"],
    )
    require_value(given["rows"], list(found))


# A layout of 400 leaves, for plans without an opening.
FLAT = {"layout": [{"dtype": "int8", "shape": [400, 1]}], "claims": 0, "leaf_bytes": 1}


def _plan(given: Given, layout: Given) -> AuditPlan:
    return AuditPlan(
        program=octets(given["program"]),
        seed=octets(given["seed"]),
        population=given["population"],
        layers=tuple(given["layers"]),
        names=tuple(map(str, given["layers"])),
        rows=tuple(map(tuple, given.get("rows", ()))),
        leaves=tuple(given["leaves"]),
        layout=layout_of(layout),
        copies=tuple(
            Copy(tensor=tensor, source=source, start=start)
            for tensor, source, start in given.get("copies", ())
        ),
    )


def plan(given: Given) -> None:
    require_value(given["plan"], _plan(given, FLAT).id.hex())


def opening(given: Given) -> Any:
    asked, data = _plan(given, given), octets(given["data"])
    found = opened(asked.layout, asked, commitment_of(given), data)
    if isinstance(found, Problem):
        raise Refused(found.reason)
    return [bytes(leaf).hex() for leaf in asked.data(data)]


OPERATIONS: Operations = {
    "partial/layers": layers,
    "partial/rows": rows,
    "partial/plan": plan,
    "partial/opening": opening,
}
