"""The promotion gate: a refined agent becomes `best.pt` only if it is not worse than its base on the same start states.

Paired, because both play the same ones: only those count at which one succeeds and the other does not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

from robot_rl.report import Comparison
from robot_rl.runs import atomically
from robot_rl.types import Player, RobotRLError

Result = dict[str, Any]  # of `evaluate`


def play_and_promote(
    comparison: Comparison, base: Path, refined: dict[str, Path], load: Callable[[Path], Player]
) -> str:
    """Let the file `base` and the files `refined`, by label, play the same start states, and `promote`."""
    for label, file in {"base": base, **refined}.items():
        comparison.play(label, partial(load, file))
    return promote(comparison.out, base, comparison.results, refined)


def promote(out: Path, base: Path, results: dict[str, Result], candidates: dict[str, Path]) -> str:
    """Write `best.pt` and `promotion.json` into `out`; return the label of what was promoted, "base" where nothing was.

    `results` by label, "base" among them; `candidates` are the files of the others. The candidate with most successes
    is promoted if it wins at least as many start states from the base as it loses.
    """
    compared = {label: compare(results["base"], results[label]) for label in candidates}
    passed = [label for label, c in compared.items() if c["gained"] >= c["lost"]]
    chosen = max(passed, key=lambda label: results[label]["summary"]["successes"], default="base")
    file = candidates.get(chosen, base)
    atomically(out / "best.pt", lambda part: shutil.copyfile(file, part))
    verdict = {"promoted": chosen, "against_base": compared}
    atomically(out / "promotion.json", lambda part: part.write_text(json.dumps(verdict, indent=1) + "\n"))
    return chosen


def compare(base: Result, refined: Result) -> dict[str, float]:
    """Start states "gained" and "lost", and the "p" of so many losses or more if both were equally good (sign test)."""
    if [row["seed"] for row in base["episodes"]] != [row["seed"] for row in refined["episodes"]]:
        raise RobotRLError("these evaluations are of different start states and cannot be compared; play both again")
    pairs = list(zip(base["episodes"], refined["episodes"], strict=True))
    gained = sum(r["success"] and not b["success"] for b, r in pairs)
    lost = sum(b["success"] and not r["success"] for b, r in pairs)
    n = gained + lost
    return {"gained": gained, "lost": lost, "p": sum(comb(n, k) for k in range(lost, n + 1)) / 2**n}
