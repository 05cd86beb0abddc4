"""Episodes on disk: one directory, one zarr group (format 2) an episode, readable by anything that reads zarr.

store/.zattrs               what this is, the version of the format, the Spec
store/.lock                 held by the one writer; the kernel frees it when the writer is killed
store/000000/.zattrs        terminated, truncated, success, length, meta, a checksum of every chunk
store/000000/obs/state      (T + 1, S); a "/" of a key is a folder, so "image/front" is obs/image/front
store/000000/action, ...    (T, A); reward, score and intervened (T,); extras/... (T + 1, ...)
store/.tmp-000001           being written, then renamed: an episode is there whole or not at all
store/damaged/              originals that `repair` replaced
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from robot_rl import control, episode_files, outputs
from robot_rl.atomic import atomically, discard
from robot_rl.formats import paths
from robot_rl.types import Episode, RobotRLError, Spec

FORMAT = "robot-rl episodes"
VERSION, BEFORE = 2, 1  # the one before had no checksum in the store's own .zattrs
GIB = 2**30


class EpisodeStore:
    """Episodes of one Spec, in the order they were made. Made by `create` (to write) or `open` (to read)."""

    def __init__(self, path: Path, spec: Spec, lock: outputs.Lock | None) -> None:
        self.path, self.spec, self._lock = path, spec, lock
        self._stored = spec.action  # the ranges in which actions are stored
        self._made: list[Path] | None = None  # the folders made for it, where `create` began it
        self._names: list[str] = []
        self._syncing = threading.Thread()
        self.refresh()
        if lock is not None:
            _writers.add(self)

    @classmethod
    def create(cls, path: Path | str, spec: Spec) -> EpisodeStore:
        """Open for writing: a new store, or one with the same Spec to continue. One writer at a time.

        One that holds no episode takes the Spec of whoever writes to it: nothing in it is of another.
        """
        path = Path(path)
        try:
            made = outputs.folders_made(path)
            if not (path / ".zattrs").exists():
                _require_fresh(path)
            lock = _lock(path)
        except OSError as error:
            raise RobotRLError(f"{path} cannot hold a store: {outputs.refusal(path, error)}") from error
        try:
            begun = not (path / ".zattrs").exists()
            if not begun and (_names(path) or (path / "damaged").exists()):
                _spec(path).require(spec, f"the store {path}", "this run")
            elif begun or _spec(path) != spec:
                _write_root(path, spec)
            _sweep(path)
            store = cls(path, spec, lock)
        except BaseException:
            lock.close()
            raise
        store._made = made if begun else None
        return store

    @classmethod
    @contextmanager
    def begun(cls, path: Path | str, spec: Spec) -> Iterator[EpisodeStore]:
        """`create`, of which nothing is left where it ends in an error or is interrupted before there is an episode."""
        with cls.create(path, spec) as store:
            try:
                yield store
            except BaseException:
                store.forget()
                raise

    @classmethod
    def open(cls, path: Path | str) -> EpisodeStore:
        """Open for reading, whether or not a writer is at work."""
        return cls(Path(path), _spec(Path(path)), None)

    def express(self, spec: Spec) -> None:
        """From now on give episodes in the ranges of `spec`, which hold those of this store; see `joint.join`."""
        if self._lock is not None:
            raise RobotRLError(f"{self.path} is open for writing; what is stored in it keeps its ranges")
        self.spec = replace(self.spec, state=spec.state, action=spec.action)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> Episode:
        return self.read(i)

    def __iter__(self) -> Iterator[Episode]:
        return (self.read(i) for i in range(len(self)))

    def read(self, i: int, *, images: bool = True) -> Episode:
        """Episode i, checked against its checksums; without `images` they are neither read nor in `obs`."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"episode {i} of {len(self)} in {self.path}")
        episode = episode_files.read(self.path / self._names[i], self.spec, images=images)
        episode.action = control.reexpressed(episode.action, self._stored, self.spec.action)
        return episode

    def append(self, episode: Episode) -> int:
        """Store an episode and return its index.

        It then survives the end of this process, and is on its way to the disk: what a power cut tears before it is
        there reads as damaged, never as sound. A malformed episode, a full disk and a failing one raise RobotRLError
        and leave the store as it was.
        """
        self._require_writer()
        name = f"{int(self._names[-1]) + 1 if self._names else 0:06d}"
        temporary = self.path / f".tmp-{name}"
        episode_files.write(temporary, episode_files.encode(episode, self.spec))
        os.rename(temporary, self.path / name)
        self._names.append(name)
        if not self._syncing.is_alive():  # not waited for: 10 ms on an idle disk are seconds on a busy one
            self._syncing = threading.Thread(target=episode_files.sync, args=(self.path / name,), daemon=True)
            self._syncing.start()
        return len(self) - 1

    def lacks_room(self, free: float, held: int = 0) -> str:
        """Why not even `held` bytes can be stored so that `free` bytes stay free on the disk; "": they can."""
        try:
            left = shutil.disk_usage(self.path).free - held
        except OSError as error:
            return f"{self.path} is gone: {error.strerror}"
        if left >= free:
            return ""
        return f"only {max(left, 0) / GIB:.2f} GiB are left for {self.path}, and {free / GIB:g} GiB are to stay free"

    def truncate(self, n: int) -> None:
        """Keep the first n episodes."""
        self._require_writer()
        if not 0 <= n <= len(self):
            raise RobotRLError(f"{self.path} holds {len(self)} episodes; it cannot be cut to {n}")
        while len(self) > n:  # from the end, each at one stroke: killed midway, what is left has no gap
            name = self._names.pop()
            os.rename(self.path / name, self.path / f".tmp-{name}")
        _sweep(self.path)

    def refresh(self) -> int:
        """See what the writer appended since; return the number of episodes."""
        self._names = _names(self.path)
        return len(self)

    def lengths(self, episodes: int | None = None) -> list[int]:
        """Steps of the first `episodes`, or of all, as their attributes tell; no array is read."""
        try:
            return [int(json.loads(self._attributes(name))["length"]) for name in self._names[:episodes]]
        except (KeyError, TypeError, ValueError) as error:
            raise RobotRLError(f"{self.path} has a damaged episode ({error}); `robot-rl inspect --repair`") from error

    def fingerprint(self, episodes: int | None = None) -> str:
        """SHA-256 of the first `episodes`, or of all: of their names, attributes and checksums; nothing is decoded."""
        names = self._names[:episodes]
        if episodes is not None and len(names) < episodes:
            raise RobotRLError(f"{self.path} holds {len(names)} episodes and not {episodes} any more")
        sha = hashlib.sha256()
        for name in names:
            sha.update(f"{name} ".encode() + self._attributes(name))
        return sha.hexdigest()

    def recorded(self) -> list[str]:
        """The checksums of each episode's states and actions: alike where the same was recorded, however it came here.

        They are read from its attributes; no array is.
        """
        try:
            sums = [json.loads(self._attributes(name))["checksums"] for name in self._names]
            return [json.dumps([each["obs/state"], each["action"]]) for each in sums]
        except (KeyError, TypeError, ValueError) as error:
            raise RobotRLError(f"{self.path} has a damaged episode ({error}); `robot-rl inspect --repair`") from error

    def follow(self, poll: float = 0.5, timeout: float | None = None) -> Iterator[Episode]:
        """Every episode, those to come too; looks every `poll` s and ends after `timeout` s without a new one."""
        last = time.monotonic()
        for i in itertools.count():
            while i >= len(self) and i >= self.refresh():
                if timeout is not None and time.monotonic() - last >= timeout:
                    return
                time.sleep(poll)
            yield self.read(i)
            last = time.monotonic()

    def forget(self) -> None:
        """Remove the store where this process began it and it holds no episode, and close it; else only close it."""
        if self._lock is not None and self._made is not None and not self._names:
            _sweep(self.path)
            for name in (".zattrs", ".zgroup", ".lock"):  # a directory without the first is no store
                (self.path / name).unlink(missing_ok=True)
            outputs.remove_empty(self._made)
        self.close()

    def close(self) -> None:
        """Let another process write; reading still works."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attributes(self, name: str) -> bytes:
        try:
            return (self.path / name / ".zattrs").read_bytes()
        except OSError as error:
            raise RobotRLError(
                f"episode {name} of {self.path} cannot be read ({error.strerror}); `robot-rl inspect --repair`"
            ) from error

    def _require_writer(self) -> None:
        if self._lock is None:
            raise RobotRLError(f"{self.path} is open for reading; open it with EpisodeStore.create to change it")


def repair(path: Path | str) -> list[str]:
    """Mend a store that no process writes to; return what was done, a line each (none: all was well).

    Leftovers of a killed writer are removed. Each damaged episode is replaced by its longest prefix of steps in
    which every array is readable and matches its checksums; the original goes to `damaged/`.
    """
    path = Path(path)
    spec = _spec(path, repairing=True)
    with _lock(path):
        lines = [f"removed {name}, left by a killed writer" for name in _sweep(path)]
        if json.loads((path / ".zattrs").read_bytes()).get("version") == BEFORE:
            _write_root(path, spec)
            lines.append(f"its .zattrs was of version {BEFORE}, and is now of version {VERSION}, with a checksum")
        for name in _names(path):
            try:
                episode_files.read(path / name, spec, images=True)
            except RobotRLError as error:
                lines.append(f"episode {name}: {error.__cause__ or error}; {_mend(path, spec, name)}")
    return lines


def _mend(path: Path, spec: Spec, name: str) -> str:
    """Replace a damaged episode by its whole prefix; what was done, in words."""
    prefix, temporary = episode_files.read_prefix(path / name, spec), path / f".tmp-{name}"
    if prefix is not None:
        episode_files.write(temporary, episode_files.encode(prefix, spec))
    (path / "damaged").mkdir(exist_ok=True)
    places = (path / "damaged" / f"{name}.{i}" for i in itertools.count())
    kept = next(place for place in places if not place.exists())
    os.rename(path / name, kept)
    if prefix is None:
        return f"no step of it could be saved; it is now in {kept}"
    os.rename(temporary, path / name)
    return f"{prefix.meta['repaired']}; the original is now in {kept}"


# ---------------------------------------------------------------------------------------- the store's directory


def _spec(path: Path, *, repairing: bool = False) -> Spec:
    """The Spec of the store at `path`, or RobotRLError saying what is there instead.

    `repairing` takes a store of the version before, too.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RobotRLError(f"{path} {what}; a store of episodes is a directory made by collect, refine or import")
    try:
        root = json.loads(paths.inside(path, ".zattrs").read_bytes())
    except FileNotFoundError:
        raise RobotRLError(_what_else(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RobotRLError(
            f"{path}/.zattrs is damaged ({error}): copy .zattrs from a store made with the same world, arm and cameras"
        ) from error
    if not isinstance(root, dict) or root.get("format") != FORMAT:
        raise RobotRLError(f"{path} is a zarr group, but not a store of robot-rl: bring it in with `robot-rl import`")
    version = root.get("version")
    if version != VERSION and not (repairing and version == BEFORE):
        remedy = "`robot-rl inspect --repair` brings it to that" if version == BEFORE else "update robot-rl"
        raise RobotRLError(f"{path} has version {version} of the format; this robot-rl reads {VERSION}: {remedy}")
    if version == VERSION and root.pop("crc32", None) != episode_files.checksum(root):
        raise RobotRLError(
            f"{path}/.zattrs is damaged (it does not match its checksum): copy .zattrs from a store made with the same "
            "world, arm and cameras"
        )
    return Spec.from_dict(root.get("spec", {}))


def _what_else(path: Path) -> str:
    if _names(path):
        return f"{path} holds episodes but its .zattrs is missing: copy it from a store made with the same world"
    held = sorted(p.name for p in path.iterdir())[:5] or "nothing"
    return f"{path} is no store of episodes: it has no .zattrs; it holds {held}. collect, refine and import make stores"


def _require_fresh(path: Path) -> None:
    own = (".lock", ".zgroup", ".zattrs", ".part-.z")  # what a writer killed at its very start leaves
    if any(not p.name.startswith(own) for p in path.iterdir()):
        raise RobotRLError(f"{_what_else(path)}; to begin one, choose an empty directory")


def _write_root(path: Path, spec: Spec) -> None:
    """.zattrs comes last and at one stroke: a directory that has it is a store."""
    atomically(path / ".zgroup", lambda part: part.write_text(json.dumps({"zarr_format": 2})))
    root = {"format": FORMAT, "version": VERSION, "spec": spec.to_dict()}
    root["crc32"] = episode_files.checksum(root)
    atomically(path / ".zattrs", lambda part: part.write_text(json.dumps(root, indent=1)))


def _names(path: Path) -> list[str]:
    return sorted((e.name for e in os.scandir(path) if re.fullmatch(r"\d{6,}", e.name)), key=int)


def _sweep(path: Path) -> list[str]:
    """Remove what a killed writer left; only for the holder of the lock."""
    left = sorted(e.name for e in os.scandir(path) if e.name.startswith((".tmp-", ".part-.z")))
    for name in left:
        discard(path / name)
    return left


def _lock(path: Path) -> outputs.Lock:
    """The writer's lock; its file stays."""
    return outputs.Lock(path / ".lock", path, keep=True)


_writers: weakref.WeakSet[EpisodeStore] = weakref.WeakSet()


def _let_go() -> None:
    """A forked child (a data loader's worker) shares the lock: it would keep it when the writer is killed."""
    for store in list(_writers):
        if store._lock is not None:
            store._lock.forget()
            store._lock = None


os.register_at_fork(after_in_child=_let_go)
