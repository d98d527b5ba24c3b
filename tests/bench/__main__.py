"""`python -m tests.bench [NAME...] [--quick] [--json FILE]`: take the figures; a table on the terminal, JSON in a file.

Without names: all. Exit status 1 when a figure misses its limit or a bench failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.bench import (
    block,
    boot,
    cycles,
    density,
    links,
    net,
    net_stream,
    qcow2,
    qmp,
    qmp_loaded,
    registers,
    start,
    tcg,
    wire,
)
from tests.bench.harness import Bench, Figure, Options, UnavailableError, host

BENCHES: dict[str, Bench] = {
    "registers": registers.bench,
    "start": start.bench,
    "command": start.bench_command,
    "memory": density.bench_memory,
    "idle": density.bench_idle,
    "cycles": cycles.bench,
    "boot": boot.bench,
    **block.BENCHES,
    **qcow2.BENCHES,
    **net.BENCHES,
    "net-stream": net_stream.bench,
    "links": links.bench,
    "wire": wire.bench,
    "qmp": qmp.bench,
    "qmp-start": qmp.bench_start,
    **qmp_loaded.BENCHES,
    "tcg-boot": tcg.bench_boot,
    "tcg-programs": tcg.bench_programs,
    "tcg-stops": tcg.bench_stops,
    "tcg-endurance": tcg.bench_endurance,
}


def take(name: str, options: Options) -> dict[str, Any]:
    """Run one bench: figures, or why there are none."""
    started = time.monotonic()
    result: dict[str, Any] = {"bench": name, "figures": []}
    try:
        for figure in BENCHES[name](options):
            print(row(figure), flush=True)
            result["figures"].append(figure.as_json())
    except UnavailableError as exc:
        result["unavailable"] = str(exc)
        print(f"{name}: not available: {exc}", flush=True)
    except Exception as exc:
        result["failed"] = traceback.format_exc()
        print(f"{name}: failed: {exc}\n{result['failed']}", flush=True)
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def row(figure: Figure) -> str:
    """One line of the table."""
    compared = "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.reference:.4g}"
    bound = "" if figure.limit is None else f"<= {figure.limit:g}{' x' if figure.ratio is not None else ''}"
    verdict = {None: "", True: "met", False: "MISSED"}[figure.is_met]
    return (
        f"{figure.name:<58} {figure.value:>10.4g} {figure.unit:<6} {compared:<16} {bound:<10} {verdict} {figure.note}"
    )


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write host, figures and every sample")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    report: dict[str, Any] = {"host": host(), "quick": args.quick, "benches": []}
    for name in args.names or BENCHES:
        report["benches"].append(take(name, Options(args.quick)))
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    missed = [f for b in report["benches"] for f in b["figures"] if f["met"] is False]
    return 1 if missed or any("failed" in b for b in report["benches"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
