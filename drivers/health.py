"""Is a stream well? Its rate, age, jitter and losses, and whether its picture still changes.

Two clocks are read, because either alone fails open: stamps are compared with the clock they were made by, which may
step or stand still; arrivals with the steady clock (`time.monotonic`), which does neither.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from robot_rl.types import RobotRLError

LOOKED_AT = 10_000  # about so many pixels of a picture are compared with those of the one before
LOST_SHARE = 0.1  # of a stream's readings
SLOW_SHARE = 0.8  # of the rate it should have


class Level(IntEnum):
    """As diagnostic_msgs/DiagnosticStatus counts them."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class HealthLimits:
    """When a stream is no longer well. The defaults are a camera's at 30 Hz; distance moved unseen is speed x age."""

    rate: float = 30.0
    """it should have [Hz]"""
    warn_age: float = 0.1
    """[s]"""
    stop_age: float = 0.2
    """[s]; nothing may move by an older reading, or when none has come for so long"""
    jitter: float = 0.01
    """of the arrivals, 95 % of them [s]"""
    ahead: float = 0.02
    """a stamp may be in the future [s]"""
    frozen: float = 0.15
    """so long the picture may be the same to the bit [s]; inf for rendered scenes, where nothing may really move"""
    dark: float = 4.0
    """mean grey value of a picture that shows nothing, when it is so for as long as `frozen`"""
    window: float = 2.0
    """what rate, jitter and losses are taken over [s]"""


def camera_limits(rate: float) -> HealthLimits:
    """Those of a camera that takes `rate` pictures a second; a slow one's readings may be older."""
    period = 1 / _positive(rate)
    ages = max(0.1, 2 * period), max(0.2, 4 * period)
    return HealthLimits(rate, *ages, frozen=max(0.15, 2.5 * period), window=max(2.0, 20 * period))


def joint_limits(rate: float) -> HealthLimits:
    """Those of an arm's state, which has no pictures."""
    period = 1 / _positive(rate)
    return HealthLimits(rate, max(0.03, 2 * period), max(0.06, 4 * period), jitter=0.003)


def digest(image: np.ndarray) -> int:
    """Of a picture (H, W, C): another number for another picture, and noise makes each of a real camera's so."""
    return zlib.crc32(_some_of(image).tobytes())


class _Arrival(NamedTuple):
    steady: float
    number: int | None


class StreamHealth:
    """Watches one stream. `now` [s] is read off the clock of the stamps, `steady` [s] off the one that never steps."""

    def __init__(self, limits: HealthLimits) -> None:
        self.limits = limits
        self._arrivals: deque[_Arrival] = deque()
        self._stamp = -math.inf
        self._stamp_moved = self._picture_changed = self._was_bright = math.inf  # when, by the steady clock
        self._digest: int | None = None
        self.counted = True  # the device's own count tells what is lost

    @property
    def rate(self) -> float:
        """Readings a second, by their arrival [Hz]; 0 before there are two."""
        gaps = self._gaps()
        return len(gaps) / gaps.sum() if gaps.sum() > 1e-6 else 0.0

    @property
    def jitter(self) -> float:
        """95 % of the gaps between arrivals differ by less than this from the usual gap [s]."""
        gaps = self._gaps()
        return float(np.percentile(np.abs(gaps - np.median(gaps)), 95)) if len(gaps) else 0.0

    @property
    def drops(self) -> int:
        """Readings that are missing by the device's own count."""
        numbers = [a.number for a in self._arrivals if a.number is not None and self.counted]
        return sum(max(b - a - 1, 0) for a, b in zip(numbers, numbers[1:], strict=False))

    def age(self, now: float) -> float:
        """Of the last reading's stamp [s]; inf before there is one."""
        return now - self._stamp

    def add(self, stamp: float, steady: float, *, number: int | None = None, image: np.ndarray | None = None) -> None:
        """A reading of the moment `stamp` [s] arrived at `steady`; `image` (H, W, C) is looked at, not kept."""
        if stamp > self._stamp or not self._arrivals:
            self._stamp_moved = steady
        self._stamp = stamp
        self._arrivals.append(_Arrival(steady, number))
        while self._arrivals[0].steady < steady - self.limits.window:
            self._arrivals.popleft()
        if image is not None:
            self._look(image, steady)

    def verdict(self, now: float, steady: float) -> tuple[Level, str]:
        """The worst that is wrong, and all that is as bad, in words."""
        found = list(self._stale(steady)) or [*self._wrong(now, steady), *self._doubtful(now)]
        level = max((level for level, _ in found), default=Level.OK)
        said = [text for its_level, text in found if its_level == level]
        return level, "; ".join(said) or f"{self.rate:.1f} Hz, {1000 * self.age(now):.0f} ms old"

    def values(self, now: float) -> dict[str, float]:
        """The numbers behind the verdict, by name and unit."""
        return {
            "rate [Hz]": self.rate,
            "age [s]": self.age(now),
            "jitter p95 [s]": self.jitter,
            "drops": float(self.drops),
        }

    def _look(self, image: np.ndarray, steady: float) -> None:
        seen = digest(image)
        if seen != self._digest:
            self._digest, self._picture_changed = seen, steady
        if self._was_bright == math.inf or _some_of(image).mean() >= self.limits.dark:
            self._was_bright = steady

    def _stale(self, steady: float) -> Iterator[tuple[Level, str]]:
        if not self._arrivals:
            yield Level.STALE, "nothing has come yet"
        elif (silent := steady - self._arrivals[-1].steady) > self.limits.stop_age:
            yield Level.STALE, f"nothing has come for {silent:.2f} s"

    def _wrong(self, now: float, steady: float) -> Iterator[tuple[Level, str]]:
        limits, age = self.limits, self.age(now)
        if not math.isfinite(age):
            yield Level.ERROR, f"its stamp is {self._stamp}"
        if age > limits.stop_age:
            yield Level.ERROR, f"{age:.2f} s old (limit {limits.stop_age:g} s): compare the two computers' clocks"
        if -age > limits.ahead:
            yield Level.ERROR, f"stamped {-age:.2f} s in the future: compare the two computers' clocks"
        if steady - self._stamp_moved > limits.stop_age:
            yield Level.ERROR, f"stamps stand still for {steady - self._stamp_moved:.2f} s"
        if (frozen := self._arrivals[-1].steady - self._picture_changed) > limits.frozen:
            yield Level.ERROR, f"frozen: the same picture for {frozen:.2f} s"
        if self._arrivals[-1].steady - self._was_bright > limits.frozen:
            yield Level.ERROR, "black picture: is the lens covered?"

    def _doubtful(self, now: float) -> Iterator[tuple[Level, str]]:
        limits, age = self.limits, self.age(now)
        if limits.warn_age < age <= limits.stop_age:
            yield Level.WARN, f"{age:.2f} s old"
        if len(self._arrivals) < 10:
            return  # too few to judge by
        if self.rate < SLOW_SHARE * limits.rate:
            yield Level.WARN, f"{self.rate:.1f} Hz, and {limits.rate:g} Hz were asked for"
        if self.jitter > limits.jitter:
            yield Level.WARN, f"jitter {1000 * self.jitter:.0f} ms"
        if self.drops > LOST_SHARE * (len(self._arrivals) + self.drops):
            yield Level.WARN, f"{self.drops} of {len(self._arrivals) + self.drops} lost"

    def _gaps(self) -> np.ndarray:
        return np.diff([a.steady for a in self._arrivals])


def _some_of(image: np.ndarray) -> np.ndarray:
    step = max(1, round(math.sqrt(image.shape[0] * image.shape[1] / LOOKED_AT)))
    return image[::step, ::step]


def _positive(rate: float) -> float:
    if not 0 < rate < math.inf:
        raise RobotRLError(f"a stream's rate is a positive number of readings a second: {rate}")
    return rate
