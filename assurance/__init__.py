"""Evidence that the tests and the checks are worth their name: mutation testing and fuzzing.

No part of the library: `specs/assurance.md` says what was run, when and on what machine.
"""

import sys
from pathlib import Path
from types import ModuleType


def find_tests() -> None:
    """Make `tests` this project's own: a package that merkletools installs has the same name."""
    own = ModuleType("tests")
    own.__path__ = [str(Path(__file__).parents[1] / "tests")]
    sys.modules.setdefault("tests", own)
