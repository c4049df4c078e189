"""`uv run --group fuzz python -m assurance.fuzz [NAME ...] [--seconds N | --runs N] [--jobs N]`

Fuzzes the targets whose names begin so, all without a name: each for so many seconds, or with so
many inputs. With `--runs` and one seed the same inputs are tried again. `--list` shows the targets.
Totals are printed, and written to FILE with `--out`; so is every finding, with the input in
hexadecimal. The exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import io
import json
import mmap
import os
import platform
import re
import shlex
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import assurance

try:
    import atheris
except ImportError:
    atheris = None

COUNTED = ("accepted", "refused", "documented")
PACKAGES = "jax jaxlib numpy atheris".split()
SLOW = 60  # seconds after which one input is a finding
MEMORY = 4096  # MiB after which the process is one
LONGEST = 2**14  # bytes of an input that is made up


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m assurance.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="how names of targets begin")
    parser.add_argument("--seconds", type=int, metavar="N", help="for each target")
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="for each target")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="targets at a time")
    parser.add_argument("--list", action="store_true", help="only show the targets")
    parser.add_argument("--quiet", action="store_true", help="print only totals and findings")
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    if atheris is None:
        print("atheris is not installed (it has wheels for Linux): nothing was fuzzed")
        return 0
    targets = _imported()
    chosen = [t for name, t in targets.items() if name.startswith(tuple(options.names) or "")]
    if not chosen:
        parser.error(f"no target begins with {' or '.join(options.names)}")
    if options.list:
        print("\n".join(target.name for target in chosen))
        return 0
    limit = f"-max_total_time={options.seconds}" if options.seconds else f"-runs={options.runs}"
    began = time.monotonic()
    limits = [limit, f"-seed={options.seed}"]
    results = _run_all(chosen, limits, options.jobs, quiet=options.quiet)
    command = f"{parser.prog} {shlex.join(sys.argv[1:])}"
    found = _summary(results, command, time.monotonic() - began)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    total = found["total"]
    print(
        f"{found['verdict']}: {len(chosen)} targets, {total['inputs']} inputs, "
        f"{total['accepted']} accepted, {total['refused']} refused, {found['seconds']} s"
    )
    return 1 if found["findings"] else 0


def _imported() -> Any:
    """The targets, with the branches of both packages counted."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    assurance.find_tests()
    packages = ["verifiable", "protocols"]
    instrumented = atheris.instrument_imports(include=packages, enable_loader_override=False)
    with redirect_stderr(io.StringIO()), instrumented:  # it names every module
        from assurance.fuzz.targets import TARGETS  # noqa: PLC0415
    warnings.filterwarnings("ignore")
    return TARGETS


def _run_all(
    targets: list[Any], limits: list[str], jobs: int, *, quiet: bool
) -> list[dict[str, Any]]:
    """Fuzz so many targets at a time, each in a fork; nothing was computed with JAX before."""
    results: list[dict[str, Any]] = []
    running: dict[int, tuple[Any, Path, mmap.mmap, float, int]] = {}
    waiting, free = list(targets), list(range(jobs))
    cores = sorted(os.sched_getaffinity(0))
    while waiting or running:
        while waiting and free:
            slot = free.pop()
            target, place = waiting.pop(0), Path(tempfile.mkdtemp(prefix="fuzz-"))
            counts = mmap.mmap(-1, 8 * len(COUNTED))
            child = os.fork()
            if not child:
                if jobs > 1:
                    os.sched_setaffinity(0, {cores[slot % len(cores)]})
                _fuzz(target, place, counts, limits)
            running[child] = target, place, counts, time.monotonic(), slot
        child, status = os.waitpid(-1, 0)
        target, place, counts, began, slot = running.pop(child)
        free.append(slot)
        result = _read(target.name, place, counts, os.waitstatus_to_exitcode(status))
        result["seconds"] = round(time.monotonic() - began, 1)
        results.append(result)
        if not quiet:
            print("{seconds:7.1f} s {inputs:>9} inputs  {name}".format(**result), flush=True)
        if result["finding"]:
            print(json.dumps(result["finding"], indent=1), flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return sorted(results, key=lambda result: result["name"])


def _fuzz(target: Any, place: Path, counts: mmap.mmap, limits: list[str]) -> None:
    """In a fork: write the seeds, and give the process to libFuzzer, which ends it."""
    from verifiable.errors import VerificationError  # noqa: PLC0415

    try:
        log = (place / "log").open("w")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        corpus = place / "corpus"
        corpus.mkdir()
        for i, seed in enumerate(dict.fromkeys(_useful(target, VerificationError))):
            (corpus / f"{i:05}").write_bytes(seed)

        def one(data: bytes) -> None:
            try:
                outcome = 0 if target.run(data) else 1
            except VerificationError:
                outcome = 1
            except target.allowed:
                outcome = 2
            except BaseException:
                (place / "crash").write_bytes(data)  # this process ends before libFuzzer writes it
                raise
            at = 8 * outcome
            counts[at : at + 8] = struct.pack("<Q", struct.unpack("<Q", counts[at : at + 8])[0] + 1)

        given = [f"-artifact_prefix={place}/", f"-max_len={LONGEST}", f"-timeout={SLOW}"]
        given += [f"-rss_limit_mb={MEMORY}", "-print_final_stats=1", *limits]
        atheris.Setup([target.name, *given, str(corpus)], one, internal_libfuzzer=True)
        atheris.Fuzz()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def _useful(target: Any, refusal: type[Exception]) -> list[bytes]:
    """Seeds that are accepted, and some that are not, the shortest first."""
    taken: list[bytes] = []
    refused: list[bytes] = []
    for seed in target.seeds():
        try:
            (taken if target.run(seed) else refused).append(seed)
        except (refusal, *target.allowed):
            refused.append(seed)
    return [*taken, *sorted(refused, key=len)[::40]]


def _read(name: str, place: Path, counts: mmap.mmap, status: int) -> dict[str, Any]:
    """What a fork counted, and what it found."""
    log = (place / "log").read_text(errors="replace") if (place / "log").exists() else ""
    numbers = struct.unpack(f"<{len(COUNTED)}Q", counts[:])
    covered = re.findall(r"cov: (\d+)", log)
    finding = None
    inputs = [path for path in place.iterdir() if path.name.startswith(("crash", "timeout", "oom"))]
    if status or inputs:
        raised = log.partition("=== Uncaught Python exception: ===")[2].partition("==")[0]
        finding = {
            "status": status,
            "inputs": [path.read_bytes().hex() for path in inputs],
            "error": (raised or log)[-3000:].strip(),
        }
    return {
        "name": name,
        "inputs": sum(numbers),
        **dict(zip(COUNTED, numbers, strict=True)),
        "branches": int(covered[-1]) if covered else 0,
        "finding": finding,
    }


def _summary(results: list[dict[str, Any]], command: str, seconds: float) -> dict[str, Any]:
    """All that is written down."""
    from benchmarks.harness import machine  # noqa: PLC0415

    findings = [result["name"] for result in results if result["finding"]]
    return {
        "name": "fuzzing",
        "claim": "Nothing but a VerificationError escapes what reads received bytes",
        "verdict": f"{len(findings)} findings" if findings else "no finding",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "command": command,
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "seconds": round(seconds),
        "cpu_seconds": round(sum(result["seconds"] for result in results)),
        "total": {key: sum(result[key] for result in results) for key in ("inputs", *COUNTED)},
        "findings": findings,
        "targets": results,
    }


if __name__ == "__main__":
    sys.exit(main())
