"""`report.html`: one file that shows what a run did. It holds its pictures and videos, and needs no network."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)
from matplotlib.axes import Axes  # noqa: E402

from robot_rl import journal  # noqa: E402
from robot_rl.evaluate import evaluate_once, in_words  # noqa: E402
from robot_rl.rollout import rollout  # noqa: E402
from robot_rl.runs import atomically  # noqa: E402
from robot_rl.types import Player  # noqa: E402
from robot_rl.video import write_video  # noqa: E402
from robot_rl.workers import MakeEnv, MakePlayer  # noqa: E402

WINDOW = 20  # practice episodes over which the learning curve is averaged
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.3rem .9rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}pre{background:#f5f5f5;padding:1rem;overflow:auto;font-size:13px}
img,video{max-width:100%}.big{font-size:1.3rem}"""


@dataclass(frozen=True)
class Report:
    """What a report shows; whatever is empty is left out."""

    title: str
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # label -> result of `evaluate`
    curves: tuple[Path, ...] = ()  # metrics.jsonl files
    videos: dict[str, Path] = field(default_factory=dict)  # caption -> mp4
    config: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """One HTML file, atomically."""
        parts = [f"<h1>{html.escape(self.title)}</h1>"]
        if self.evaluations:
            parts += [_verdict(self.evaluations), _table(self.evaluations), _image(partial(_bars, self.evaluations))]
        for curve in (c for c in self.curves if c.exists()):  # a run of no steps logged nothing
            rows = journal.rows(Path(curve))
            if rows:
                parts.append(f"<h2>{html.escape(curve.parent.name)}: learning curve</h2>")
                parts += [
                    _image(partial(_curve, rows, key, label))
                    for key, label in CURVES.items()
                    if any(key in r for r in rows)
                ]
        for caption, video in self.videos.items():
            parts.append(f"<h2>{html.escape(caption)}</h2>{_video(video)}")
        if self.config:
            parts.append(f"<h2>Settings</h2><pre>{html.escape(json.dumps(self.config, indent=2))}</pre>")
        page = f"<!doctype html><meta charset='utf-8'><title>{html.escape(self.title)}</title><style>{STYLE}</style>"
        atomically(path, lambda part: part.write_text(page + "\n".join(parts)))
        return path


@dataclass
class Comparison:
    """Agents that play the same start states in turn, and the page that shows them beside each other."""

    out: Path
    make_env: MakeEnv
    episodes: int
    seed: int = 0
    workers: int = 1
    players: dict[str, MakePlayer] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def play(self, label: str, player: MakePlayer) -> None:
        """Evaluate one more agent, or read the result of an earlier run into the same folder."""
        self.players[label] = player
        self.results[label] = evaluate_once(
            self.out / f"evaluation_{label}.json",
            self.make_env,
            player,
            episodes=self.episodes,
            seed=self.seed,
            workers_=self.workers,
            label=label,
        )

    def report(self, title: str, curves: tuple[Path, ...], videos: int, config: dict[str, Any] | None = None) -> Path:
        """Film the first and the last agent on `videos` telling start states, and write the page."""
        films = {}
        if videos:
            left, right = list(self.players)[0], list(self.players)[-1]
            seeds = telling_seeds(self.results[left], self.results[right], videos)
            players = [self.players[left](), self.players[right]()]
            film = side_by_side(self.make_env, players, seeds, self.out / "side_by_side.mp4")
            films[f"{left} (left) and {right} (right), the same {len(seeds)} start states"] = film
        return Report(title, self.results, curves, films, config or {}).write(self.out / "report.html")


CURVES = {
    "success": f"success in practice, mean of {WINDOW} episodes",
    "length": f"episode length in practice [steps], mean of {WINDOW} episodes",
    "residual": "mean size of the residual",
    "q": "mean value of the critics",
    "loss": "imitation loss",
}


def side_by_side(make_env: MakeEnv, players: Sequence[Player], seeds: Sequence[int], path: Path) -> Path:
    """A video of the same start states played by each of `players`, left to right; a finished one stands still."""
    env = make_env()
    frames: list[np.ndarray] = []
    try:
        for seed in seeds:
            takes: list[list[np.ndarray]] = []
            for player in players:
                takes.append([])
                rollout(env, player, explore=False, seed=seed, video=takes[-1])
            longest = max(len(take) for take in takes)
            padded = [take + [take[-1]] * (longest - len(take) + int(env.spec.rate / 2)) for take in takes]
            frames += [np.concatenate(pictures, 1) for pictures in zip(*padded, strict=True)]
        write_video(path, frames, env.spec.rate)
    finally:
        env.close()
    return path


def telling_seeds(before: dict[str, Any], after: dict[str, Any], count: int = 3) -> list[int]:
    """Start states to show: first those where only the second succeeds, then the others in order."""
    pairs = zip(before["episodes"], after["episodes"], strict=True)
    ranked = sorted(pairs, key=lambda pair: not (pair[1]["success"] and not pair[0]["success"]))
    return [first["seed"] for first, _ in ranked[:count]]


def _verdict(evaluations: dict[str, dict[str, Any]]) -> str:
    lines = [f"<b>{html.escape(label)}</b>: {html.escape(in_words(result))}" for label, result in evaluations.items()]
    return "<p class=big>" + "<br>".join(lines) + "</p>"


def _table(evaluations: dict[str, dict[str, Any]]) -> str:
    header = "".join(f"<th>{html.escape(label)}</th>" for label in evaluations)
    rows = []
    for key, (name, form) in FIGURES.items():
        values = [result["summary"][key] for result in evaluations.values()]
        cells = "".join(f"<td>{'-' if v is None else form.format(v)}</td>" for v in values)
        rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    return f"<table><tr><th></th>{header}</tr>{''.join(rows)}</table>"


FIGURES = {
    "success_rate": ("success rate", "{:.1%}"),
    "wilson_low": ("95 % Wilson interval, from", "{:.1%}"),
    "wilson_high": ("to", "{:.1%}"),
    "episodes": ("start states", "{}"),
    "mean_best_score": ("mean best score", "{:.3f}"),
    "mean_success_length": ("length of a success [steps]", "{:.1f}"),
    "mean_roughness": ("roughness of the actions (RMS second difference)", "{:.3f}"),
}


def _bars(evaluations: dict[str, dict[str, Any]], axes: Axes) -> None:
    summaries = [result["summary"] for result in evaluations.values()]
    rates = np.array([s["success_rate"] for s in summaries])
    low, high = np.array([s["wilson_low"] for s in summaries]), np.array([s["wilson_high"] for s in summaries])
    spread = np.clip(np.stack([rates - low, high - rates]), 0, None)
    axes.bar(list(evaluations), rates, width=0.5, color="#7aa6d8")
    axes.errorbar(list(evaluations), rates, yerr=spread, fmt="none", capsize=6, color="#222")
    axes.set(ylabel="success rate, 95 % Wilson interval", ylim=(0, 1.05))


def _curve(rows: list[dict[str, Any]], key: str, label: str, axes: Axes) -> None:
    known = [(row["step"], row[key]) for row in rows if key in row]
    steps, values = np.array(known).T
    width = min(WINDOW if "mean of" in label else 1, len(values))
    axes.plot(steps[width - 1 :], np.convolve(values, np.ones(width) / width, "valid"), color="#2a5d9f")
    axes.set_title(label, loc="left", fontsize="medium")
    axes.set_xlabel("steps")
    axes.grid(alpha=0.3)


def _image(draw: Callable[[Axes], None]) -> str:
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    draw(axes)
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


def _video(path: Path) -> str:
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return f"<video controls loop muted src='data:video/mp4;base64,{data}'></video>"
