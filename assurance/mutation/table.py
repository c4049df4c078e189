"""The modules that judge, and the tests of each: those that compile nothing first.

Tests of the vectors come last: they import the whole library, and only survivors come so far.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

VECTORS = "tests/test_vectors.py::test_library_agrees_with_every_case"


def _vectors(*families: str) -> tuple[str, ...]:
    return tuple(f"{VECTORS}[{family}]" for family in families)


def _tests(folder: str, names: str) -> tuple[str, ...]:
    """Files of tests, named as modules are: `test_` goes before the last part of each name."""
    paths = (Path("tests", folder, name) for name in names.split())
    return tuple(str(path.with_name(f"test_{path.name}.py")) for path in paths)


_MERKLE = _tests("verifiable/merkle", "tree proofs cheats hashing") + _vectors(
    "trees", "multiproofs"
)
_BLS = _tests("verifiable/bls", "keys curve signatures batches vectors") + _vectors("bls")
_VOTING = _tests("verifiable/voting", "decide agreement quorum trust")
_JOURNAL = _tests("protocols/journal", "codec commitments keys lock machines stores sqlite runs")
_SETTLEMENT = _tests(
    "protocols/settlement",
    "statements verdicts ballots_three ballots committee votes submission attempts receipts "
    "heads step",
)
_CLAIMS = "verifiable/claims"

TESTS: dict[str, tuple[str, ...]] = {
    "verifiable.encoding": _tests("verifiable", "encoding encoding_tensors")
    + _vectors("encoding", "tensors"),
    "verifiable.field": _tests("verifiable", "field") + _vectors("exact"),
    "verifiable.challenge": _tests("verifiable", "challenge") + _vectors("draws"),
    **{
        f"verifiable.merkle.{name}": _MERKLE
        for name in "hashing multiproofs paths proofs tree".split()
    },
    **{f"verifiable.bls.{name}": _BLS for name in "curve keys signatures".split()},
    **{
        f"verifiable.voting.{name}": _VOTING
        for name in "agreement assurance decide quorum tokens trust".split()
    },
    "verifiable.claims.products.far_norms": _tests(
        _CLAIMS, "products/far_norms products/freivalds products/freivalds_extremes"
    ),
    "verifiable.claims.products.freivalds": _tests(
        _CLAIMS,
        "products/freivalds products/freivalds_extremes products/float32_test contraction "
        "products/freivalds_integers products/biased",
    )
    + _vectors("exact"),
    "verifiable.claims.roundings.rounding": _tests(
        _CLAIMS + "/roundings", "rounding rounding_rows row_error steps cheap_test room"
    )
    + _tests("verifiable/check/freedom", "steered_roundings")
    + _vectors("roundings"),
    "verifiable.claims.decisions.decision": _tests(_CLAIMS + "/decisions", "decision")
    + _vectors("decisions"),
    "verifiable.claims.lookup": _tests(_CLAIMS, "lookup") + _vectors("lookups"),
    "verifiable.claims.cut": _tests(_CLAIMS, "cut selected_rows"),
    "verifiable.check.judging.verdict": _tests("verifiable/check/judging", "verdict second_look")
    + _tests("verifiable", "report"),
    "verifiable.check.judging.second_look": _tests(
        "verifiable/check",
        "judging/second_look judging/sheltered judging/reading partial/restrict "
        "judging/allowed_rows freedom/steered_roundings",
    )
    + _tests(_CLAIMS + "/decisions", "trips"),
    "verifiable.check.judging.evidence": _tests(
        "verifiable/check/judging", "evidence evidence_rows reading"
    )
    + _tests(_CLAIMS + "/decisions", "trips")
    + _vectors("evidence"),
    "verifiable.check.partial.restrict": _tests(
        "verifiable/check/partial", "restrict rows layers audit"
    ),
    **{
        f"protocols.journal.{name}": _JOURNAL
        for name in "codec commitments keys lock log machines member runs sqlite store".split()
    },
    **{
        f"protocols.settlement.{name}": _SETTLEMENT
        for name in (
            "attempts ballots committee receipts signer state statements step submission "
            "verdicts votes"
        ).split()
    },
}
"""Test files, or single tests, of each module, in the order in which they are run."""


def source(module: str) -> Path:
    """The file of a module."""
    return ROOT / Path(*module.split(".")).with_suffix(".py")
