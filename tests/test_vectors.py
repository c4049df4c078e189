"""Every case of specs/vectors: the library must find what independent scripts wrote down.

A case has an operation, an input, and `expect`: "ok", or the reason for which it must fail.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.vectors import OPERATIONS
from verifiable.errors import VerificationError

FOLDER = ROOT / "specs" / "vectors"
FILES = sorted(FOLDER.glob("*.json"))


def outcome(operation: str, given: dict[str, Any]) -> tuple[str, Any]:
    """What the library says: "ok" and an output, or a reason and None."""
    try:
        return "ok", OPERATIONS[operation](given)
    except VerificationError as error:
        reason = str(getattr(error, "reason", ""))
        if re.fullmatch("[a-z0-9-]+", reason):  # a code, and not a sentence
            return reason, None
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower(), None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_library_agrees_with_every_case(path):
    found = json.loads(path.read_text())
    wrong: list[str] = []
    for case in found["cases"]:
        given = found.get("shared", {}) | case["input"]
        got, output = outcome(f"{found['family']}/{case['operation']}", given)
        if (got, output) != (case["expect"], case.get("output")):
            wrong.append(f"{case['id']} ({case['description']}): {got} {output}")
    assert not wrong


def test_there_are_600_cases_of_which_70_percent_must_fail():
    cases = [case for path in FILES for case in json.loads(path.read_text())["cases"]]
    failing = [case for case in cases if case["expect"] != "ok"]
    assert len(cases) >= 600
    assert len(failing) >= 0.7 * len(cases)
    assert len({case["id"] for case in cases}) == len(cases)


def test_files_are_what_their_script_makes():
    """Those that take less than a second; noise, receipts and signatures take several."""
    quick = "encoding trees tensors draws claims roundings audit partial evidence".split()
    script = [sys.executable, FOLDER / "make", "--check", *quick]
    subprocess.run(script, check=True, capture_output=True)  # noqa: S603 - our own script
