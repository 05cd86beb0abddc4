"""What an import did that its user would not guess: printed beside what came in."""

from __future__ import annotations

from dataclasses import dataclass, field

from robot_rl.types import CameraSpec


@dataclass
class Account:
    """Filled while a recording is read; `lines` are complete when all of it is."""

    left_out: dict[str, str] = field(default_factory=dict)  # a key of the recording, and why
    notes: list[str] = field(default_factory=list)
    sizes: dict[str, dict[str, str]] = field(default_factory=dict)  # camera -> size of pictures -> where it came first
    stored: dict[str, str] = field(default_factory=dict)  # camera -> the size of all that is stored
    cut_episodes: int = 0
    cut_steps: int = 0

    def leave_out(self, key: str, why: str) -> None:
        """`key` of the recording is not imported."""
        self.left_out.setdefault(key, why)

    def note(self, line: str) -> None:
        """Say `line`, once."""
        if line not in self.notes:
            self.notes.append(line)

    def picture(self, camera: CameraSpec, shape: tuple[int, ...], where: str) -> None:
        """A picture (h, w, ...) of `camera` was read; of more sizes than one all but one are stretched or shrunk."""
        self.sizes.setdefault(camera.name, {}).setdefault(f"{shape[0]} x {shape[1]}", where)
        self.stored[camera.name] = f"{camera.height} x {camera.width}"

    def cut(self, steps: int) -> None:
        """An episode lost so many steps behind its first success."""
        if steps:
            self.cut_episodes, self.cut_steps = self.cut_episodes + 1, self.cut_steps + steps

    def lines(self) -> list[str]:
        """What to print: what was decided, and in one line what was left out."""
        told = [*self.notes]
        if self.cut_episodes:
            told.append(
                f"cut at the first success: {self.cut_steps} steps behind it, of {self.cut_episodes} episodes, are "
                "dropped, as our worlds end there"
            )
        for camera, found in self.sizes.items():
            if len(found) > 1:
                first = ", ".join(f"{size} ({where})" for size, where in [*found.items()][:4])
                more = ", ..." if len(found) > 4 else ""
                told.append(
                    f"pictures of camera '{camera}' have {len(found)} sizes, {first}{more}: "
                    f"all are resized to {self.stored[camera]}; split the recording if they should not be"
                )
        reasons: dict[str, list[str]] = {}
        for key, why in self.left_out.items():
            reasons.setdefault(why, []).append(key)
        parts = [f"{', '.join(keys)} ({why})" for why, keys in reasons.items()]
        return [*told, f"left out: {'; '.join(parts)}"] if parts else told
