"""Replay: whole episodes in contiguous arrays, sampled as n-step transitions without per-item Python."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robot_rl.types import Episode, RobotRLError

Batch = dict[str, Tensor]


class Table:
    """The steps of many episodes, one row an observation: T + 1 rows an episode of T actions.

    The last row of an episode is only ever a successor: its action is empty, but its observation and extras are
    there, so a time-out can bootstrap from them. `images` keeps those too; else they stay on disk.
    """

    def __init__(self, images: bool = False) -> None:
        self._images = images
        self._columns: dict[str, np.ndarray] = {}  # each (capacity, ...)
        self._rows = 0
        self._starts = np.zeros(0, np.int64)  # rows that start a transition
        self.episodes = 0

    def __len__(self) -> int:
        """Transitions held."""
        return len(self._starts)

    def add(self, episode: Episode) -> None:
        """Append an episode whole."""
        T = len(episode)
        rows = {
            "state": episode.obs["state"],
            "action": np.concatenate([episode.action, np.zeros_like(episode.action[:1])]),
            "reward": np.append(episode.reward, np.float32(0)),
            "begin": np.full(T + 1, self._rows, np.int64),
            "end": np.full(T + 1, self._rows + T, np.int64),
            "bootstrap": np.full(T + 1, not episode.terminated, np.float32),
            **{f"extra/{key}": value for key, value in episode.extras.items()},
            **{key: value for key, value in episode.obs.items() if self._images and key.startswith("image/")},
        }
        if self._columns and set(rows) != set(self._columns):
            raise RobotRLError(f"episodes of one replay must agree: {sorted(rows)} against {sorted(self._columns)}")
        for key, value in rows.items():
            self._reserve(key, value)
            self._columns[key][self._rows : self._rows + T + 1] = value
        self._starts = np.append(self._starts, np.arange(self._rows, self._rows + T))
        self._rows += T + 1
        self.episodes += 1

    def sample(self, size: int, n_step: int, gamma: float, generator: torch.Generator, *, history: int = 0) -> Batch:
        """`size` n-step transitions, uniformly.

        "state", "action", "extra/*" at t; "next/state", "next/extra/*" at t + m; images, uint8, likewise; "reward"
        (B,), the sum over k < m of gamma^k r; "discount" (B,), gamma^m, or 0 past a success. m is n_step, less at an
        episode's end: time-outs bootstrap there, success does not.

        With `history`, what a critic of chunks needs too: "history" and "next/history" (B, history, S), newest last,
        and "chunk" (B, n_step, A), the actions executed from t on; an episode's last one is repeated past its end.
        """
        if not len(self):
            raise RobotRLError("the replay is empty: record or collect episodes before learning from them")
        at = self._starts[torch.randint(len(self), (size,), generator=generator).numpy()]
        end = self._columns["end"][at]
        then = np.minimum(at + n_step, end)
        steps = np.arange(n_step)
        within = at[:, None] + steps < end[:, None]  # (B, n)
        rewards = self._columns["reward"][np.minimum(at[:, None] + steps, end[:, None])] * within
        bootstrap = np.where(then == end, self._columns["bootstrap"][at], 1.0)
        batch = {
            "action": self._columns["action"][at],
            "reward": rewards @ (gamma**steps),
            "discount": gamma ** (then - at) * bootstrap,
        }
        for key in ["state", *(k for k in self._columns if k.startswith(("extra/", "image/")))]:
            batch[key], batch[f"next/{key}"] = self._columns[key][at], self._columns[key][then]
        if history:
            back = np.arange(1 - history, 1)
            for key, rows in (("history", at), ("next/history", then)):
                batch[key] = self._columns["state"][
                    np.maximum(rows[:, None] + back, self._columns["begin"][at][:, None])
                ]
            batch["chunk"] = self._columns["action"][np.minimum(at[:, None] + steps, end[:, None] - 1)]
        kinds = {key: np.uint8 if "image/" in key else np.float32 for key in batch}
        return {key: torch.from_numpy(np.asarray(value, kinds[key])) for key, value in batch.items()}

    def _reserve(self, key: str, value: np.ndarray) -> None:
        """Room for one more episode; capacity doubles, so that appending stays linear."""
        value = np.asarray(value)
        column = self._columns.get(key, np.empty((0, *value.shape[1:]), value.dtype))
        needed = self._rows + len(value)
        if needed > len(column):
            room = np.empty((max(needed, 2 * len(column), 4096) - len(column), *column.shape[1:]), column.dtype)
            self._columns[key] = np.concatenate([column, room])


class Replay:
    """Demonstrations and online episodes side by side (RLPD, 2302.02948: each gradient step sees half of both)."""

    def __init__(self, images: bool = False) -> None:
        self.demos, self.online = Table(images), Table(images)

    def sample(
        self,
        size: int,
        demo_share: float,
        n_step: int,
        gamma: float,
        generator: torch.Generator,
        *,
        history: int = 0,
    ) -> Batch:
        """Of `size` transitions, a share of `demo_share` comes from the demonstrations. See `Table.sample`."""
        n_demos = round(size * demo_share)
        parts = [
            table.sample(n, n_step, gamma, generator, history=history)
            for table, n in ((self.demos, n_demos), (self.online, size - n_demos))
            if n > 0
        ]
        if len(parts) == 1:
            return parts[0]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
