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
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
