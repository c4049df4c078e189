"""Verify, off-chain, AI inference that untrusted devices ran in JAX.

    import verifiable as vf

    program = vf.compile(model, params, x)               # both sides, once
    root = vf.parameter_root(params)                     # names the weights, in every job
    submission = program.prove(params, x)                # device: y, trace and their commitment
    key = program.setup(params, vf.challenge.secret())   # coordinator, once an epoch
    report = program.verify(key, x, submission, commitment=received, parameters=root)
    answer = report.require().y                          # raises unless accepted

Everything is imported on first use, so that what needs no JAX loads without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from verifiable._version import __version__

if TYPE_CHECKING:
    from verifiable import (
        audits,
        bls,
        challenge,
        encoding,
        errors,
        family,
        freivalds,
        generation,
        key,
        merkle,
        policy,
        program,
        report,
        submission,
        testing,
        trace,
        voting,
    )
    from verifiable.check.judging.evidence import Evidence, evidence_of, verify_evidence
    from verifiable.family import Family, compile_family
    from verifiable.key import VerifierKey
    from verifiable.policy import Policy
    from verifiable.program import Program, compile, parameter_root
    from verifiable.report import Report, Verdict
    from verifiable.submission import Submission
    from verifiable.trace import Commitment

__all__ = [
    "Commitment",
    "Evidence",
    "Family",
    "Policy",
    "Program",
    "Report",
    "Submission",
    "Verdict",
    "VerifierKey",
    "__version__",
    "audits",
    "bls",
    "challenge",
    "compile",
    "compile_family",
    "encoding",
    "errors",
    "evidence_of",
    "family",
    "freivalds",
    "generation",
    "key",
    "merkle",
    "parameter_root",
    "policy",
    "program",
    "report",
    "submission",
    "testing",
    "trace",
    "verify_evidence",
    "voting",
]

_HOMES = {
    "Commitment": "trace",
    "Evidence": "check.judging.evidence",
    "Family": "family",
    "Policy": "policy",
    "Program": "program",
    "Report": "report",
    "Submission": "submission",
    "Verdict": "report",
    "VerifierKey": "key",
    "compile": "program",
    "compile_family": "family",
    "evidence_of": "check.judging.evidence",
    "parameter_root": "program",
    "verify_evidence": "check.judging.evidence",
}
_MODULES = frozenset(
    "audits bls challenge check claims encoding errors family field freivalds generation jaxpr key "
    "merkle policy program report submission testing trace voting".split()
)


if not TYPE_CHECKING:  # otherwise a type checker would accept every name

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif name in _MODULES:
            value = importlib.import_module(f"{__name__}.{name}")
        else:
            errors = importlib.import_module(f"{__name__}.errors")
            hint = f": write verifiable.errors.{name}" if hasattr(errors, name) else ""
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
