"""Where the tests find the project's own files, and vectors that are not part of it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = Path(os.environ.get("VERIFIABLE_VECTORS", ROOT.parent / "shared" / "vectors"))


def needs_vectors(folder: str, cases: int) -> pytest.MarkDecorator:
    """Skip a test, and say how many cases did not run, where a folder of vectors is absent."""
    path = VECTORS / folder
    return pytest.mark.skipif(
        not path.exists(), reason=f"0 of {cases} third-party cases ran: there is no {path}"
    )
