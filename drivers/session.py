"""A person demonstrates: what a session is about (`Session`, pure), and the loop that makes episodes (`Collector`).

waiting     nothing moves; "start" prepares the world, and recording begins with the first motion of the hand
recording   every control step is kept; while the dead-man is up the arm holds, and that is kept as the step it is
paused      the arm holds and nothing is kept; the next step follows what is seen when the pause ends
judging     the episode is over, by the time limit or because the arm stopped: the person says what it was
done        the store is full, or the person quit; a running episode is then not kept

"success" and "failure" end the running episode there; "discard" forgets it. A simulated world that sees success ends
it by itself. What was stored last can still be discarded until the next start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from drivers.assisted import Interrupted, Person
from drivers.observer import Clock
from drivers.take import Mark, marked
from drivers.teleop import DeviceLost, DeviceSilent, Event, Screen, State, Status, hint_of
from robot_rl import control
from robot_rl.episodes import EpisodeStore
from robot_rl.rollout import play
from robot_rl.seeds import episode_seed
from robot_rl.types import Decision, Env, Episode, Obs, RobotRLError, Step

LOOK = 0.05  # how often a person who waits is looked after [s]
NEXT: dict[tuple[State, Event], State] = {
    ("waiting", "start"): "recording",
    ("waiting", "quit"): "done",
    ("recording", "pause"): "paused",
    ("paused", "pause"): "recording",
    ("paused", "start"): "recording",
}
MARKS: dict[Event, Mark] = {"success": "success", "failure": "failure", "discard": "discard", "quit": "discard"}


class Session:
    """What the session is about, moved by what is pressed and by what the world does."""

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.mark: Mark = ""  # that ends the running episode; "": none does
        self.message = "press start"

    def press(self, event: Event) -> None:
        """What the person pressed; what means nothing now is told and changes nothing."""
        before = self.state
        if before in ("recording", "paused", "judging") and event in MARKS:
            self.mark, self.state = MARKS[event], "done" if event == "quit" else "waiting"
        elif (before, event) in NEXT:
            self.state = NEXT[before, event]
        else:
            self.message = f"'{event}' means nothing while {before}"
            return
        told = {"recording": "preparing: the arm may move by itself", "paused": "pause: the arm holds"}
        self.message = told.get(self.state, event)

    def solved(self) -> None:
        """The world says success."""
        self.mark, self.state, self.message = "success", "waiting", "the world says success"

    def stopped(self, why: str) -> None:
        """The episode cannot go on; the person shall judge it."""
        self.state, self.message = "judging", f"{why}: success, failure or discard?"


class Robot(Env, Interrupted, Protocol):
    """What a person can demonstrate on: `RealEnv` or `Assisted`."""

    aborted: str
    executed: np.ndarray

    def stay(self) -> Obs:
        """Hold for a period, without a step."""

    def end(self) -> None:
        """End the episode: hold the arm for good."""


@dataclass(frozen=True)
class Wanted:
    """What a session shall bring."""

    episodes: int
    """that the store holds at the end"""
    free: float = 2.0**30
    """bytes that stay free on its disk"""
    seed: int = 0
    """of the start states, where the world is simulated"""
    keep_failures: bool = False
    """else only the count of the session knows them"""


class Collector:
    """Runs a session. Where the device goes, the arm is held and `DeviceLost` raised; the running episode is lost.

    One that is only silent (`DeviceSilent`) holds the arm until it speaks again.
    """

    def __init__(
        self, env: Robot, person: Person, screen: Screen, store: EpisodeStore, clock: Clock, wanted: Wanted,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.env, self.screen, self.store, self.clock = env, screen, store, clock
        self.wanted, self.session, self.person, self.device = wanted, Session(), person, person.device
        self._asked = asked  # to end, by a signal
        attempts = (store.read(i, images=False).meta.get("attempt", -1) for i in range(len(store)))
        self._attempt = 1 + max(attempts, default=-1)
        self._beats: deque[float] = deque()  # when the steps of the last second were made [s]
        self._obs: Obs = {}
        self._silent = ""  # why the device says nothing, though it may come back
        self._steps = self._idle = self._bytes = 0  # of the running episode; idle: with the dead-man up
        self._pauses: list[int] = []  # steps after which there was one
        self._undo = False  # the last episode can still be discarded

    def run(self) -> None:
        """Until all episodes are there, or the person quits."""
        try:
            while self.session.state != "done" and len(self.store) < self.wanted.episodes:
                self._wait()
                if self.session.state == "recording":
                    self._episode()
        except DeviceLost as error:
            self.env.end()
            self._show("lost", str(error))
            raise
        self._show("done")

    def _wait(self) -> None:
        """For a start."""
        while self.session.state == "waiting":
            self._look()
            if self.session.state == "recording" and (lacking := self.store.lacks_room(self.wanted.free)):
                self.session.state, self.session.message = "waiting", lacking
            self._hand()
            self._show()
            self.clock.sleep_until(self.clock.steady() + LOOK)

    def _hand(self) -> np.ndarray | None:
        """What the person wants; a device that is silent but may come back is as one that nobody holds."""
        self._silent, hand = "", None
        try:
            # Before the first episode the fingers are nobody's yet.
            hand = self.person(self.env.executed) if self._obs else self.device.hand()
        except DeviceSilent as error:
            self._silent = str(error)
        self.person.held = hand is not None
        return hand

    def _look(self) -> None:
        """At what was pressed."""
        events: list[Event] = ["quit"] if self._asked() else self.device.events()
        for event in events:
            if event == "discard" and self.session.state == "waiting" and self._undo:
                self.store.truncate(len(self.store) - 1)
                self._undo, self.session.message = False, "the last episode was discarded"
            else:
                self.session.press(event)

    def _episode(self) -> None:
        self._steps = self._idle = self._bytes = 0
        self._undo, self._pauses = False, []
        seed = episode_seed("collect", self.wanted.seed, self._attempt)
        try:
            self.env.reset(seed)
        except DeviceLost:
            raise
        except RobotRLError as error:  # the arm's node says no: the person mends it, and starts again
            self.session.state, self.session.message = "waiting", str(error)
            return
        late, first = self.env.late, self._ready()
        if first is not None:
            meta = {"seed": seed, "attempt": self._attempt, "actor": "person", "device": self.device.name}
            episode = self._play(first, meta)
            self._attempt += 1
            episode.meta.update(idle=self._idle, pauses=self._pauses, late=self.env.late - late)
            self._keep(episode, self.session.mark)
        self.session.mark = ""

    def _ready(self) -> Obs | None:
        """Hold until the hand moves: what is seen then; None: it was ended before."""
        self.session.message = "move to begin"
        while self.session.state in ("recording", "paused"):
            self._obs = self.env.stay()
            if self.env.aborted:
                self.session.state, self.session.message = "waiting", self.env.aborted
                return None
            moves = self._hand() is not None
            self._look()
            self._show()
            if moves and self.session.state == "recording":
                self.session.message = "success, failure or discard ends it"
                return self._obs
        self.env.end()
        return None

    def _play(self, first: Obs, meta: dict[str, Any]) -> Episode:
        """The loop of every other episode, with the person as the player."""
        loop = play(first, 1, self.env.spec.max_steps, meta)
        wish = next(loop)
        try:
            while True:
                wish = loop.send(self._decision() if isinstance(wish, dict) else self._step(wish))
        except StopIteration as end:
            episode: Episode = end.value
            return episode

    def _decision(self) -> Decision:
        still = control.hold(self.env.spec.action, self.env.executed)
        wanted = None if self.session.mark else self._hand()
        self._idle += wanted is None and not self.session.mark
        return Decision((still if wanted is None else wanted)[None])

    def _step(self, action: np.ndarray) -> Step:
        """A step of the world, and all that may come between it and the next."""
        step = self.env.step(action)
        self._obs, self._steps = step.obs, self._steps + 1
        self._beats.append(self.clock.steady())
        self._bytes += sum(value.nbytes for value in step.obs.values())
        lacking = self.store.lacks_room(self.wanted.free, self._bytes)
        if step.terminated and step.reward > 0:
            self.session.solved()
        elif step.terminated or step.truncated or lacking:
            self.session.stopped(lacking or self.env.aborted or "the time limit")
        self._look()
        if self.session.state == "paused":
            self._pauses.append(self._steps)
            step = replace(step, obs=self._pause())
        self._judge()
        self._show()
        if not self.session.mark:
            return step
        self.env.end()
        return replace(step, terminated=True, truncated=False)

    def _pause(self) -> Obs:
        """Hold until it is over; what is seen then."""
        while self.session.state == "paused":
            self._obs = self.env.stay()
            if self.env.aborted:
                self.session.stopped(self.env.aborted)
            self._hand()
            self._look()
            self._show()
        return self._obs

    def _judge(self) -> None:
        """Wait for what the person says of an episode that is over."""
        if self.session.state == "judging":
            self.env.end()
        while self.session.state == "judging":
            self._hand()
            self._look()
            self._show()
            self.clock.sleep_until(self.clock.steady() + LOOK)

    def _keep(self, episode: Episode, mark: Mark) -> None:
        what = f"{mark}, {len(episode)} steps"
        if mark == "discard" or (mark == "failure" and not self.wanted.keep_failures):
            self.session.message = f"not kept: {what}"
            return
        index = self.store.append(marked(episode, mark))
        self._undo, self.session.message = True, f"episode {index} stored: {what}; start the next, or discard this one"

    def _show(self, state: State | None = None, message: str = "") -> None:
        now = self.clock.steady()
        while self._beats and self._beats[0] <= now - 1.0:
            self._beats.popleft()
        self.screen.show(
            Status(
                state or self.session.state, len(self.store), self.wanted.episodes, self._steps, self.person.held,
                float(len(self._beats)), self.env.age, self.env.late, self.env.lagging,
                message or self._silent or hint_of(self.device) or self.session.message, self.env.pictures,
            )
        )  # fmt: skip
