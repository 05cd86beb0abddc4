"""Replay: whole episodes in contiguous arrays, sampled as n-step transitions without per-item Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robot_rl.types import Episode, RobotRLError

Batch = dict[str, Tensor]
Kind = Literal["all", "human", "success", "decision"]  # which steps: of whom, of which episodes, of which rows
Look = Callable[[Episode], np.ndarray]
KINDS: tuple[Kind, ...] = ("all", "human", "success", "decision")


class Table:
    """The steps of many episodes, one row an observation: T + 1 rows an episode of T actions.

    The last row of an episode is only ever a successor: its action is empty, but its observation and extras are
    there, so a time-out can bootstrap from them. No transition spans a change of hands between agent and human: it ends
    there and bootstraps. `images` keeps those too; else they stay on disk. `look` gives the rows (T + 1, S + F) that
    are kept as "state" of an episode where these are more than its states.
    """

    def __init__(self, images: bool = False, look: Look | None = None) -> None:
        self._images, self._look = images, look
        self._columns: dict[str, np.ndarray] = {}  # each (capacity, ...)
        self._rows = 0
        self._starts: dict[Kind, np.ndarray] = {kind: np.zeros(0, np.int64) for kind in KINDS}
        self.longest = 0  # episode [steps]
        self.episodes = self.successes = 0

    def __len__(self) -> int:
        """Transitions held."""
        return self.count("all")

    def count(self, kind: Kind) -> int:
        """Steps of a kind: all; the human's; of successes, from where on nobody helped; of the agent's decisions.

        An agent whose decisions matter one by one marks them in its extras: "decision" (T + 1,), above 0 at one.
        """
        return len(self._starts[kind])

    def add(self, episode: Episode, only: np.ndarray | None = None) -> None:
        """Append an episode whole; with `only` (T,) transitions start at those of its steps alone.

        The latter are copies of what another table holds: they count among "all", and are no other kind here.
        """
        T = len(episode)
        rows = {
            "state": episode.obs["state"] if self._look is None else self._look(episode),
            "action": np.concatenate([episode.action, np.zeros_like(episode.action[:1])]),
            "reward": np.append(episode.reward, np.float32(0)),
            "first": np.full(T + 1, self._rows, np.int64),
            "last": np.full(T + 1, self._rows + T, np.int64),
            "end": self._rows + _changes_of_hands(episode.intervened),
            "terminal": np.full(T + 1, episode.terminated, np.float32),
            **{f"extra/{key}": value for key, value in episode.extras.items()},
            **{key: value for key, value in episode.obs.items() if self._images and key.startswith("image/")},
        }
        if self._columns and set(rows) != set(self._columns):
            raise RobotRLError(f"episodes of one replay must agree: {sorted(rows)} against {sorted(self._columns)}")
        for key, value in rows.items():
            self._reserve(key, value)
            self._columns[key][self._rows : self._rows + T + 1] = value
        original = np.full(T, only is None)
        decided = episode.extras.get("decision", np.ones(T + 1))[:T] > 0
        of_kind: dict[Kind, np.ndarray] = {
            "all": original if only is None else only,
            "human": original & episode.intervened,
            "success": original & (episode.success & (np.arange(T) >= _hands_back(episode.intervened))),
            "decision": original & decided & ~episode.intervened,
        }
        for kind, steps in of_kind.items():
            self._starts[kind] = np.append(self._starts[kind], self._rows + np.flatnonzero(steps))
        self._rows += T + 1
        self.longest = max(self.longest, T)
        self.episodes += 1
        self.successes += episode.success

    def sample(
        self,
        size: int,
        n_step: int,
        gamma: float,
        generator: torch.Generator,
        *,
        history: int = 0,
        kind: Kind = "all",
        summed: str | None = None,
    ) -> Batch:
        """`size` n-step transitions, uniformly.

        "state", "action", "extra/*" at t; "next/state", "next/extra/*" at t + m; images likewise; "reward"
        (B,), the sum over k < m of gamma^k r; "discount" (B,), gamma^m, or 0 past a success. m is n_step, less at an
        episode's end and at a change of hands: time-outs and hands bootstrap there, success does not.

        With `history`, what a critic of chunks needs too: "history" and "next/history" (B, history, S), newest last,
        and "chunk" (B, n_step, A), the actions executed from t on; the last one before t + m is repeated past it.
        `summed` names an extra (T + 1,) that is a reward or a cost: "sum/<extra>" (B,), summed as the reward is.
        """
        at = self._draw(size, generator, kind)
        end = self._columns["end"][at]
        then = np.minimum(at + n_step, end)
        steps = np.arange(n_step)
        within = at[:, None] + steps < end[:, None]  # (B, n)
        during = np.minimum(at[:, None] + steps, end[:, None])
        rewards = self._columns["reward"][during] * within
        over = (then == self._columns["last"][at]) * self._columns["terminal"][at]
        batch = {
            "action": self._columns["action"][at],
            "reward": rewards @ (gamma**steps),
            "discount": gamma ** (then - at) * (1.0 - over),
        }
        if summed is not None:
            batch[f"sum/{summed}"] = (self._columns[f"extra/{summed}"][during] * within) @ (gamma**steps)
        for key in ["state", *(k for k in self._columns if k.startswith(("extra/", "image/")))]:
            batch[key], batch[f"next/{key}"] = self._columns[key][at], self._columns[key][then]
        if history:
            batch["history"], batch["next/history"] = self._history(at, history), self._history(then, history)
            batch["chunk"] = self._columns["action"][np.minimum(at[:, None] + steps, end[:, None] - 1)]
        return _tensors(batch)

    def windows(self, size: int, horizon: int, history: int, generator: torch.Generator, kind: Kind = "all") -> Batch:
        """What imitation learns from (`Policy.loss`): "state" (B, history, S) and "action" (B, horizon, A).

        The first observation repeats before an episode's start; the last action past its end, and past a change of
        hands: nobody is shown what another did.
        """
        return self._windows(self._draw(size, generator, kind), horizon, history)

    def worth_imitating(self, horizon: int, history: int) -> Batch:
        """The windows of all of the human's and successes' steps, in the order in which they came; see `windows`."""
        return self._windows(np.union1d(self._starts["human"], self._starts["success"]), horizon, history)

    def _windows(self, at: np.ndarray, horizon: int, history: int) -> Batch:
        future = np.minimum(at[:, None] + np.arange(horizon), self._columns["end"][at][:, None] - 1)
        return _tensors({"state": self._history(at, history), "action": self._columns["action"][future]})

    def _draw(self, size: int, generator: torch.Generator, kind: Kind) -> np.ndarray:
        starts = self._starts[kind]
        if not len(starts):
            which = "" if kind == "all" else f" of steps of the kind '{kind}'"
            raise RobotRLError(f"the replay is empty{which}: record or collect episodes before learning from them")
        return starts[torch.randint(len(starts), (size,), generator=generator).numpy()]

    def _history(self, rows: np.ndarray, length: int) -> np.ndarray:
        back = rows[:, None] + np.arange(1 - length, 1)
        return self._columns["state"][np.maximum(back, self._columns["first"][rows][:, None])]

    def _reserve(self, key: str, value: np.ndarray) -> None:
        """Room for one more episode; capacity doubles, so that appending stays linear."""
        value = np.asarray(value)
        column = self._columns.get(key, np.empty((0, *value.shape[1:]), value.dtype))
        needed = self._rows + len(value)
        if needed > len(column):
            room = np.empty((max(needed, 2 * len(column), 4096) - len(column), *column.shape[1:]), column.dtype)
            self._columns[key] = np.concatenate([column, room])


def _hands_back(intervened: np.ndarray) -> int:
    """The first step from which on nobody helped any more; 0 where nobody did."""
    return int(np.flatnonzero(intervened).max(initial=-1)) + 1


def _changes_of_hands(intervened: np.ndarray) -> np.ndarray:
    """(T + 1,): for each step (T,) the first later one in other hands, or T; T for the last row."""
    T = len(intervened)
    borders = np.append(np.flatnonzero(np.diff(intervened)) + 1, T)
    return borders[np.searchsorted(borders, np.minimum(np.arange(T + 1), T - 1), side="right")]


def _tensors(batch: dict[str, np.ndarray]) -> Batch:
    kinds = {key: None if "image/" in key else np.float32 for key in batch}  # pictures stay as they are
    return {key: torch.from_numpy(np.asarray(value, kinds[key])) for key, value in batch.items()}


class Replay:
    """Demonstrations and online episodes side by side (RLPD, 2302.02948: each gradient step sees half of both)."""

    def __init__(self, images: bool = False, look: Look | None = None) -> None:
        self.demos, self.online = Table(images, look), Table(images, look)

    def remember(self, episode: Episode) -> None:
        """Add an episode of practice. The human's steps go to the demonstrations too (HIL-SERL, 2410.21845)."""
        self.online.add(episode)
        if episode.intervened.any():
            self.demos.add(episode, only=episode.intervened)

    def sample(
        self,
        size: int,
        demo_share: float,
        n_step: int,
        gamma: float,
        generator: torch.Generator,
        *,
        history: int = 0,
        summed: str | None = None,
    ) -> Batch:
        """Of `size` transitions, a share of `demo_share` comes from the demonstrations, all before there is practice.

        See `Table.sample`.
        """
        longest = max(self.demos.longest, self.online.longest)
        if n_step > longest > 0:
            raise RobotRLError(
                f"the replay is too small for transitions of {n_step} steps: its longest episode has {longest}. "
                "Lower n_step, or execute fewer actions of a chunk."
            )
        n_demos = round(size * demo_share) if len(self.online) else size
        return _joined(
            [
                table.sample(n, n_step, gamma, generator, history=history, summed=summed)
                for table, n in ((self.demos, n_demos), (self.online, size - n_demos))
                if n > 0
            ]
        )

    def imitation(
        self,
        size: int,
        horizon: int,
        history: int,
        generator: torch.Generator,
        *,
        success_weight: float = 1.0,
        human_weight: float = 2.0,
    ) -> Batch:
        """Windows worth imitating: of demonstrations, of own successes and of the human's steps; see `Table.windows`.

        A step of the latter two is drawn so many times as often as one of a demonstration. What the agent did before
        a human helped for the last time is not among them, whether the episode succeeded or not; nor is that of a
        store of practice that is given beside demonstrations.
        """
        wanted: list[tuple[Table, Kind, float]] = [
            (self.demos, "success", 1.0),
            (self.demos, "human", 1.0),
            (self.online, "success", success_weight),
            (self.online, "human", human_weight),
        ]
        weights = np.array([weight * table.count(kind) for table, kind, weight in wanted])
        shares = (size * weights / max(weights.sum(), 1e-9)).astype(int)
        shares[weights.argmax()] += size - shares.sum()
        return _joined(
            [
                table.windows(int(n), horizon, history, generator, kind)
                for (table, kind, _), n in zip(wanted, shares, strict=True)
                if n > 0
            ]
        )


def _joined(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
