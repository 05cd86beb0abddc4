"""Windows of episodes for imitation: histories of observations, and the chunks of actions that followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from robot_rl import memory
from robot_rl.types import CameraSpec, Episode, RobotRLError


class Windows:
    """Every step of every episode as one training example, cut from contiguous arrays.

    Before an episode's start the first observation repeats; past its end the last action does. Pictures stay bytes,
    each kept once.
    """

    def __init__(self, episodes: Sequence[Episode], horizon: int, n_obs: int) -> None:
        if not episodes:
            raise RobotRLError("there are no episodes to learn from; `robot-rl inspect` shows what a store holds")
        lengths = np.array([len(e) for e in episodes])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.state = torch.as_tensor(np.concatenate([e.obs["state"][:-1] for e in episodes]))  # (N, S)
        self.action = torch.as_tensor(np.concatenate([e.action for e in episodes]))  # (N, A)
        self.pictures: dict[str, Tensor] = {}  # each (N, H, W, C), as the camera gives them
        self._first = torch.as_tensor(np.repeat(starts, lengths))
        self._last = torch.as_tensor(np.repeat(starts + lengths - 1, lengths))
        self._past, self._future = torch.arange(1 - n_obs, 1), torch.arange(horizon)

    def __len__(self) -> int:
        return len(self.action)

    def see(self, cameras: Sequence[CameraSpec], episodes: Iterable[Episode]) -> None:
        """Take in the pictures of `cameras` from the same episodes, one after the other: at most one is held beside.

        Raises where they do not fit into memory.
        """
        memory.require_pictures(cameras, len(self))
        for camera in cameras:
            rows = np.empty((len(self), *camera.shape), camera.dtype)
            self.pictures[f"image/{camera.name}"] = torch.from_numpy(rows)
        row = 0
        for episode in episodes:
            for key, pictures in self.pictures.items():
                pictures[row : row + len(episode)] = torch.from_numpy(episode.obs[key][:-1])
            row += len(episode)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """ "state" (B, To, S), "action" (B, H, A) and each picture (B, To, H, W, C) at the steps `index` (B,)."""
        past = torch.maximum(index[:, None] + self._past, self._first[index, None])
        future = torch.minimum(index[:, None] + self._future, self._last[index, None])
        rows = past.flatten()  # index_select copies whole pictures; indexing, seven times as slow, byte by byte
        seen = {key: p.index_select(0, rows).unflatten(0, past.shape) for key, p in self.pictures.items()}
        return {"state": self.state[past], "action": self.action[future], **seen}
