"""Draws docs/refiners_can.png and refiners_square.png from the tables of docs/results.md: tests/benchmarks/curves.py.

So the figures show what the tables say, whichever machines the runs were made on. Rows whose name ends in * are left
out: they were not started by `refiners.py` as it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from robot_rl.statistics import wilson

DOCS = Path(__file__).parents[2] / "docs"
PLAYED = 100  # start states behind each number


def main() -> None:
    """One figure a task."""
    text = (DOCS / "results.md").read_text()
    for task in ("Can", "Square"):
        _figure(_table(text, f"{task}: refiner"), _table(text, f"{task}: more demonstrations")).savefig(
            DOCS / f"refiners_{task.lower()}.png", dpi=100
        )


def _table(text: str, title: str) -> list[list[str]]:
    """The cells of the first table with that title, its head first; an empty name is the one above it."""
    lines = text[text.index(f"| {title} |") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("|--")]
    for above, row in zip(rows, rows[1:], strict=False):
        row[0] = row[0] or above[0]
    return rows


def _figure(refiners: list[list[str]], demonstrations: list[list[str]]) -> plt.Figure:
    """Left success by control steps, all seeds of a refiner together; right by the human's steps, a point a run."""
    head, *rows = refiners
    marks = [0, *(_number(title) for title in head[3:-2])]
    runs = defaultdict(list)
    for name, _, *won, _, human in rows:
        if not name.endswith("*"):
            runs[name].append(([_number(cell) for cell in won], _number(human)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), sharey=True, layout="constrained")
    for name, of_seeds in runs.items():
        won = np.sum([successes for successes, _ in of_seeds], 0)
        played = PLAYED * len(of_seeds)
        (line,) = left.plot(marks, won / played, marker="o", label=f"{name.replace('`', '')} ({len(of_seeds)})")
        left.fill_between(
            marks, *zip(*(wilson(w, played) for w in won), strict=True), color=line.get_color(), alpha=0.1
        )
        at = [(human, successes[-1] / PLAYED) for successes, human in of_seeds if human]
        right.plot(*zip(*at, strict=True), "o", color=line.get_color()) if at else None
    extra = sorted((_number(steps), _number(won)) for _, steps, won in demonstrations[1:])
    right.plot(*np.divide(extra, (1, PLAYED)).T, "kx", label="demonstrations alone, the base anew")
    left.set(xlabel="control steps, those of the base alone counted", ylabel="success", ylim=(0, 1))
    right.set(xlabel="human steps beside the base's 24 demonstrations")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _number(cell: str) -> int:
    """The first number of a cell such as "**93** (86-97 %)" or "3,615"."""
    return int(re.findall(r"[\d,]+", cell)[0].replace(",", ""))


if __name__ == "__main__":
    main()
