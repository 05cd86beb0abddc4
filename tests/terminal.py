"""A program in a real pseudo-terminal: what a person types in, what is shown comes out."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from robot_rl.checkpoints import load_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.types import Episode

ROOT = Path(__file__).parents[1]


def help_once(*refine: object) -> Episode:
    """`refine` with a person at the keyboard, who lifts the hand in its first episode and says success; returns it."""
    with closing(Typed(*refine, "--teleop", "keyboard", "agent:corrections", "--agent.batch", 8)) as typed:
        at = typed.until(r"CORRECTING.* ([5-9]|1\d) steps", 120)
        typed.until(r"HELD \| taken over in (1[2-9]|2\d) of", 20, at, keep="r")
        typed.press("y")
        assert typed.wait(120) == 0, typed.shown
    out = Path(str(refine[refine.index("--out") + 1]))
    first, *others = EpisodeStore.open(out / "episodes")
    mine = np.flatnonzero(first.intervened)
    assert first.success and first.terminated and mine[0] >= 4 and len(mine) >= 12
    assert np.median(first.action[mine, 2]) > 0.1 > np.median(first.action[: mine[0], 2])
    assert others and not any(other.success for other in others)
    assert load_agent(out / "agent.pt").updates > 3
    return first


class Typed:
    """`python -m robot_rl.cli *arguments` in a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self._fd, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "robot_rl.cli", *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def read(self, seconds: float = 0.05) -> str:
        """What was shown until now, after having looked for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                try:
                    self.shown += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:  # the program has ended
                    break
        return self.shown

    def until(self, words: str, timeout: float, since: int = 0, keep: str = "") -> int:
        """Wait for `words`, a pattern, shown after `since`, pressing `keep` again and again; where they end."""
        end = time.monotonic() + timeout
        while not (found := re.search(words, self.read()[since:])):
            assert time.monotonic() < end, f"'{words}' not within {timeout} s; shown:\n{self.shown[-3000:]}"
            if keep:
                self.press(keep)
        return since + found.end()

    def wait(self, timeout: float) -> int:
        """Until it has ended; its return code."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end; shown:\n{self.shown[-3000:]}"
            self.read(0.1)
        self.read(0.1)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._fd)
