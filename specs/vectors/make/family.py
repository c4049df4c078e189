"""A family of cases, and the file that it becomes: one case a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]


class Family:
    """Collects the cases of one file, and refuses to hold one twice."""

    def __init__(self, name: str, specification: str):
        self.name, self.specification = name, specification
        self.cases: list[dict[str, Any]] = []
        self.shared: dict[str, Any] = {}
        self._seen: set[str] = set()

    def accept(self, description: str, operation: str, output: Any = None, **given: Any) -> None:
        """A case that must pass, with the output that it must have, if it has one."""
        self._add(description, operation, "ok", given, output)

    def refuse(self, reason: str, description: str, operation: str, **given: Any) -> None:
        """A case that must fail for this reason."""
        self._add(description, operation, reason, given, None)

    def _add(self, description: str, operation: str, expect: str, given: Any, output: Any) -> None:
        case = {
            "id": f"{self.name}-{len(self.cases) + 1}",
            "description": description,
            "operation": operation,
            "expect": expect,
            "input": _plain(given),
        }
        if output is not None:
            case["output"] = _plain(output)
        content = json.dumps([operation, case["input"]], sort_keys=True)
        if content in self._seen:
            raise ValueError(f"{self.name}: twice the same case: {description}")
        self._seen.add(content)
        self.cases.append(case)

    def text(self) -> str:
        """The file."""
        about: dict[str, Any] = {"family": self.name, "specification": self.specification}
        if self.shared:
            about["shared"] = _plain(self.shared)
        head = json.dumps(about)[:-1]
        lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in self.cases)
        return f'{head}, "cases": [\n{lines}\n]}}\n'

    def write(self, *, check: bool = False) -> str:
        """Write the file, or compare it, and say what it has."""
        text, path = self.text(), FOLDER / f"{self.name}.json"
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            raise ValueError(f"{path.name} is not what this script makes")
        failing = sum(case["expect"] != "ok" for case in self.cases)
        return f"{self.name}: {len(self.cases)} cases, {failing} must fail, {len(text)} bytes"


def _plain(value: Any) -> Any:
    """Bytes as hexadecimal text; integers that a double cannot hold as {"int": text}."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if type(value) is int and abs(value) > 2**53:
        return {"int": str(value)}
    return value
