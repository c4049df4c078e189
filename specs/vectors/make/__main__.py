"""Write the vectors of specs/vectors/: `uv run python specs/vectors/make [--check] [MODULE ...]`.

With `--check`, files are compared and not written.

What is made here imports nothing of the library: hashes, trees, encodings, integers and points are
computed from the specifications with hashlib, blake3, struct, integers and py_ecc.
"""

from __future__ import annotations

import importlib
import sys

MODULES = (
    "encoding trees tensors noise receipts bls statements draws claims roundings audit partial "
    "evidence"
).split()


def main() -> None:
    wanted = set(sys.argv[1:])
    check = "--check" in wanted
    wanted.discard("--check")
    if unknown := wanted.difference(MODULES):
        raise SystemExit(f"no such module: {', '.join(unknown)}; there are {', '.join(MODULES)}")
    for name in MODULES:
        if not wanted or name in wanted:
            for family in importlib.import_module(f"{name}_cases").make():
                print(family.write(check=check))


if __name__ == "__main__":
    main()
