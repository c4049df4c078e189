"""`python -m protocols.contracts.build`: compile `Settlement.vy` into `Settlement.json`.

The result holds the ABI, the bytecode and the selectors, so submitting needs no compiler. Needs
vyper 0.4.3; the source names that version, and no other compiles it.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("Settlement.vy")
COMPILED = Path(__file__).with_name("Settlement.json")


def compiled() -> dict[str, Any]:
    """Contents of `Settlement.json`, compiled now. Raises ImportError without vyper."""
    formats = ["abi", "bytecode", "method_identifiers"]
    made = import_module("vyper").compile_code(SOURCE.read_text(), output_formats=formats)
    # The compiler writes a selector as a number, and each function here has one selector.
    selectors = {
        name.partition("(")[0]: f"0x{int(number, 16):08x}"
        for name, number in made["method_identifiers"].items()
    }
    return {"abi": made["abi"], "bytecode": made["bytecode"], "selectors": selectors}


if __name__ == "__main__":
    COMPILED.write_text(json.dumps(compiled(), indent=1) + "\n")
