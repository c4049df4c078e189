"""Where the tests find the project's own files, and vectors that are not part of it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
VECTORS = Path(os.environ.get("VERIFIABLE_VECTORS", ROOT.parent / "shared" / "vectors"))
