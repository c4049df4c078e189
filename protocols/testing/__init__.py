"""Property tests of a coordinator: a fleet of workers plays against it, and two laws must hold.

    adapter       CoordinatorAdapter: what you write; FleetJob, CommitSent, RunSent, Ledger
    scenario      who takes part, what each does, what the network does to it
    fleet         fleet, Fleet: plays scenarios against your coordinator
    pool          runs of all workers, and the verdicts that they must get
    game          one scenario, event by event; `party`: who signs, and what each has sent
    laws          LawBroken; what a ledger may hold; how often a sampled cheat may pass
    strategies    scenarios, receipts, ballots, beacons, drawn by hypothesis (extra `testing`)

The laws: no honest worker is ever punished; no cheat is ever paid beyond the stated corridor, nor,
where a coordinator samples, more often than it states. Only `strategies` imports hypothesis. All of
it needs JAX. docs/testing.md shows how to use it.
"""

from __future__ import annotations

from protocols.testing.adapter import CommitSent, CoordinatorAdapter, FleetJob, Ledger, RunSent
from protocols.testing.fleet import Fleet, fleet
from protocols.testing.laws import LawBroken
from protocols.testing.scenario import Delivery, JobPlan, Role, Scenario, WorkerPlan

__all__ = [
    "CommitSent",
    "CoordinatorAdapter",
    "Delivery",
    "Fleet",
    "FleetJob",
    "JobPlan",
    "LawBroken",
    "Ledger",
    "Role",
    "RunSent",
    "Scenario",
    "WorkerPlan",
    "fleet",
]
