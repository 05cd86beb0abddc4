"""The verb `evaluate`: play fresh start states without exploration, and say how sure the success rate is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl import cluster, journal, ranges, vector
from robot_rl.progress import told
from robot_rl.runs import atomically
from robot_rl.seeds import episode_seed
from robot_rl.statistics import wilson
from robot_rl.types import Episode, RobotRLError
from robot_rl.workers import MakeEnv, MakePlayer


def evaluate(
    make_env: MakeEnv,
    make_player: MakePlayer,
    *,
    episodes: int = 100,
    seed: int = 0,
    workers_: int = 1,
    label: str = "evaluate",
    ray: str | None = None,
) -> dict[str, Any]:
    """Play the `episodes` start states of `seed`; the same for every agent, so results are paired.

    With `ray`, "auto" or an address, a Ray cluster plays them instead of the workers, and the results are the same.
    Returns {"summary": ..., "episodes": [...]}; see `summary` for the figures.
    """
    ranges.require_value("episodes", episodes, "evaluate")
    seeds = start_states(seed, episodes)
    if ray is None:
        played = vector.episodes(make_env, make_player, seeds, workers_)
    else:
        played = cluster.episodes(vector.Share(make_env, make_player), seeds, ray)
    rows = [describe(e) for e in told(played, label, episodes)]
    return {"summary": summary(rows), "episodes": rows}


def start_states(seed: int, episodes: int) -> list[int]:
    """The seeds of the start states that `seed` stands for; none of them is ever practised or demonstrated."""
    return [episode_seed("evaluate", seed, i) for i in range(episodes)]


def evaluate_once(
    file: Path,
    make_env: MakeEnv,
    make_player: MakePlayer,
    *,
    episodes: int,
    seed: int = 0,
    workers_: int = 1,
    label: str = "evaluate",
) -> dict[str, Any]:
    """As `evaluate`, kept in `file` and told; a result of the same start states that is there is not played again.

    One that was changed since is played anew: it decides which agent is promoted.
    """
    known = journal.settings(file) if file.exists() else {}
    if fresh := not _is_of(known, start_states(seed, episodes)):
        known = evaluate(make_env, make_player, episodes=episodes, seed=seed, workers_=workers_, label=label)
    print(f"{label}: {in_words(known)}", flush=True)
    if fresh:
        write(known, file)  # after it was told: a full disk loses nothing
    return known


def _is_of(result: dict[str, Any], seeds: list[int]) -> bool:
    """Whether a result that was read is of these start states, and whole: its summary is that of its episodes."""
    rows = result.get("episodes")
    try:
        return [row["seed"] for row in rows or ()] == seeds and result.get("summary") == summary(rows or [])
    except (KeyError, TypeError, ValueError, ArithmeticError):  # of a file that was changed
        return False


def describe(episode: Episode) -> dict[str, Any]:
    """One episode in numbers."""
    return {
        "seed": episode.meta["seed"],
        "success": episode.success,
        "length": len(episode),
        "best_score": float(episode.score.max()),
        "roughness": roughness(episode.action),
    }


def roughness(action: np.ndarray) -> float:
    """How uneven a motion (T, A) is: root mean square of the second difference of its actions, 0 for a constant."""
    return float(np.sqrt(np.mean(np.diff(action, 2, axis=0) ** 2))) if len(action) > 2 else 0.0


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Successes with their 95 % Wilson interval, and means over episodes; lengths of successes only."""
    successes = sum(row["success"] for row in rows)
    low, high = wilson(successes, len(rows))
    lengths = [row["length"] for row in rows if row["success"]]
    return {
        "episodes": len(rows),
        "successes": successes,
        "success_rate": successes / len(rows),
        "wilson_low": low,
        "wilson_high": high,
        "mean_best_score": float(np.mean([row["best_score"] for row in rows])),
        "mean_success_length": float(np.mean(lengths)) if lengths else None,
        "mean_roughness": float(np.mean([row["roughness"] for row in rows])),
    }


def in_words(result: dict[str, Any]) -> str:
    """The summary in one line."""
    s = result["summary"]
    length = "-" if s["mean_success_length"] is None else f"{s['mean_success_length']:.0f} steps"
    return (
        f"{s['successes']}/{s['episodes']} succeed ({100 * s['success_rate']:.0f} %, 95 % interval "
        f"{100 * s['wilson_low']:.0f}-{100 * s['wilson_high']:.0f}), best score {s['mean_best_score']:.3f}, "
        f"length of a success {length}, roughness {s['mean_roughness']:.3f}"
    )


def require_replaceable(path: Path) -> None:
    """Raise where at `path` is something else than a result: a policy, a config, a device is not overwritten by one."""
    try:
        free = path.is_dir() or not os.path.lexists(path)  # of a folder `outputs.file` says what it is
        known = free or (path.is_file() and "summary" in journal.settings(path))
    except RobotRLError:
        known = False
    if not known:
        raise RobotRLError(f"{path} exists and is no result of evaluate: it is not overwritten. Choose another name")


def write(result: dict[str, Any], path: Path) -> None:
    """Keep a result as JSON, atomically."""
    atomically(path, lambda part: part.write_text(json.dumps(result, indent=1) + "\n"))
