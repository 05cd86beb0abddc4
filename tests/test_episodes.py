"""Laws of the store: what is written is read, bit for bit; a killed writer loses at most the running episode."""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robot_rl import episode_files, episodes
from robot_rl.episodes import EpisodeStore, repair
from robot_rl.rollout import rollout
from robot_rl.types import CameraSpec, Channel, Episode, RobotRLError, Spec
from sim.toy import ToyEnv, ToyOperator

CAMERAS = (CameraSpec("front", 6, 8), CameraSpec("wrist", 4, 4))
SPEC = Spec("toy", "", (Channel("x", "m", -1, 1),) * 3, (Channel("dx", "m", -1, 1),) * 2, CAMERAS, 10.0, 100)
quickly = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make(steps: int = 70, seed: int = 0, spec: Spec = SPEC) -> Episode:
    """Any episode of `spec`; 70 steps make three chunks of images."""
    rng = np.random.default_rng(seed)
    images = {
        f"image/{c.name}": rng.integers(0, 255, (steps + 1, c.height, c.width, 3), np.uint8) for c in spec.cameras
    }
    state = rng.normal(size=(steps + 1, len(spec.state))).astype(np.float32)
    return Episode(
        obs={"state": state, "stamp/state": np.arange(steps + 1) / 10, **images},
        action=rng.uniform(-1, 1, (steps, len(spec.action))).astype(np.float32),
        reward=np.float32(np.arange(steps) == steps - 1),
        score=np.linspace(0, 1, steps, dtype=np.float32),
        intervened=rng.random(steps) < 0.5,
        terminated=True,
        truncated=False,
        extras={"base": rng.normal(size=(steps + 1, 2))},
        meta={"seed": seed, "by": "test"},
    )


def toy(seed: int) -> Episode:
    return rollout(ToyEnv(), ToyOperator(0.5), explore=False, seed=seed)


def toys(start: int, stop: int) -> list[dict]:
    return [contents(toy(seed)) for seed in range(start, stop)]


def contents(episode: Episode) -> dict:
    """Everything in an episode, comparable with ==, to the last bit."""
    own = {k: getattr(episode, k) for k in ("action", "reward", "score", "intervened")}
    arrays = (
        {f"obs {k}": v for k, v in episode.obs.items()} | {f"extra {k}": v for k, v in episode.extras.items()} | own
    )
    exact = {name: (a.dtype.str, a.shape, np.ascontiguousarray(a).tobytes()) for name, a in arrays.items()}
    return {**exact, "flags": (episode.terminated, episode.truncated), "meta": episode.meta}


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}


# ------------------------------------------------------------------------------------------- writing, then reading

rows = st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint16", "bool"])
names = st.lists(st.sampled_from(["a", "noise", "base.1", "0", "0.0", "q_7-b"]), min_size=1, max_size=3).map("/".join)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def array(draw, dtype, shape, low=None, high=None):
    kind = np.dtype(dtype).kind
    limits = {"allow_nan": False, "allow_infinity": False, "min_value": low, "max_value": high} if kind == "f" else {}
    return draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype), **limits)))


@st.composite
def any_episode(draw) -> tuple[Spec, Episode]:
    steps, n_state, n_action = draw(st.integers(1, 40)), draw(st.integers(0, 3)), draw(st.integers(0, 3))
    spec = replace(
        SPEC,
        state=SPEC.state[:n_state],
        action=(SPEC.action * 2)[:n_action],
        cameras=CAMERAS[: draw(st.integers(0, 2))],
    )
    images = {f"image/{c.name}": array(draw, "uint8", (steps + 1, c.height, c.width, 3)) for c in spec.cameras}
    state, stamp = array(draw, "float32", (steps + 1, n_state)), array(draw, "float64", (steps + 1,))
    extra_shape = (steps + 1, *draw(st.lists(st.integers(0, 3), max_size=2)))
    episode = Episode(
        obs={"state": state, "stamp/state": stamp, **images},
        action=array(draw, "float32", (steps, n_action), -1, 1),
        reward=array(draw, "float32", (steps,)),
        score=array(draw, "float32", (steps,)),
        intervened=array(draw, "bool", (steps,)),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        extras={"own/" + draw(names): array(draw, draw(rows), extra_shape)},
        meta=draw(st.dictionaries(st.text(), plain, max_size=3)),
    )
    return spec, episode


@quickly
@given(any_episode())
def test_read_gives_what_was_written(tmp_path_factory, drawn):
    spec, episode = drawn
    path = tmp_path_factory.mktemp("store")
    with EpisodeStore.create(path, spec) as store:
        assert store.append(episode) == 0
        assert contents(store[0]) == contents(episode)
    again = EpisodeStore.open(path)
    assert again.spec == spec
    assert contents(again[-1]) == contents(episode)
    assert again[0].success == episode.success
    assert repair(path) == []


def test_minus_zero_and_all_zero_chunks_survive(tmp_path):
    episode = make()
    episode.reward[:] = -0.0
    episode.obs["image/front"][:] = 0
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(episode)
        assert contents(store[0]) == contents(episode)
    for chunk in ("reward/0", "obs/image/front/0.0.0.0"):  # whichever zarr wrote them
        assert (tmp_path / "000000" / chunk).exists()


def test_any_zarr_reader_can_read_it(tmp_path):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(make())
    group = zarr.open_group(str(tmp_path), mode="r")
    assert np.array_equal(group["000000/obs/image/front"][...], make().obs["image/front"])
    assert group["000000/obs/image/front"].chunks[0] == 32
    assert group["000000"].attrs["meta"] == {"seed": 0, "by": "test"}
    assert (group["000000"].attrs["success"], group["000000"].attrs["length"]) == (True, 70)
    assert Spec.from_dict(group.attrs["spec"]) == SPEC


def test_reading_without_images_opens_none(tmp_path):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(make())
    shutil.rmtree(tmp_path / "000000" / "obs" / "image")
    episode = EpisodeStore.open(tmp_path).read(0, images=False)
    assert sorted(episode.obs) == ["stamp/state", "state"]
    assert contents(episode).items() <= contents(make()).items()


@quickly
@given(st.lists(st.integers(0, 5), max_size=6))
def test_truncate_then_append_is_as_if_never_written(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("store")
    expected: list[int] = []
    with EpisodeStore.create(path, ToyEnv().spec) as store:
        for seed, cut in enumerate(cuts):
            expected = [*expected[:cut], seed]
            store.truncate(min(cut, len(store)))
            assert store.append(toy(seed)) == len(expected) - 1
    assert [e.meta["seed"] for e in EpisodeStore.open(path)] == expected
    assert all(contents(e) == contents(toy(e.meta["seed"])) for e in EpisodeStore.open(path))


def test_the_same_episodes_make_the_same_bytes(tmp_path):
    for name, extra in (("straight", 0), ("resumed", 3)):
        with EpisodeStore.create(tmp_path / name, SPEC) as store:
            for seed in [*range(2), *range(90, 90 + extra)]:
                store.append(make(seed=seed))
        with EpisodeStore.create(tmp_path / name, SPEC) as store:
            store.truncate(2)
            store.append(make(seed=2))
    assert snapshot(tmp_path / "straight") == snapshot(tmp_path / "resumed")


# --------------------------------------------------------------------------------------- other processes, killed ones

processes = multiprocessing.get_context("forkserver")  # starts a process in milliseconds: its imports are made once
processes.set_forkserver_preload(["tests.test_episodes"])


def write_toys(path: Path, n: int, pipe: Connection) -> None:
    """The body of a writing process: toy episodes up to `n`, each reported when it is stored, then wait."""
    episode_files.sync = lambda _: None  # a process cannot die before its sync returns: seconds on a busy disk
    with EpisodeStore.create(path, ToyEnv().spec) as store:
        for seed in range(len(store), n):
            store.append(toy(seed))
            pipe.send(seed)
        pipe.recv()


@contextmanager
def writer(path: Path, n: int) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that writes, killed at the end of the block; what it reported is still in the pipe then."""
    ours, its = processes.Pipe()
    process = processes.Process(target=write_toys, args=(path, n, its))
    process.start()
    its.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def reports(pipe: Connection) -> list[int]:
    """What a dead process reported; the last word may be cut."""
    said = []
    with contextlib.suppress(EOFError, OSError):
        while True:
            said.append(pipe.recv())
    return said


def test_a_follower_in_another_process_sees_every_episode(tmp_path):
    with writer(tmp_path, 25) as (_, pipe):
        assert pipe.recv() == 0
        seen = [contents(e) for e in EpisodeStore.open(tmp_path).follow(poll=0.005, timeout=1.0)]
    assert seen == [contents(toy(seed)) for seed in range(25)]


def test_follow_ends_and_refresh_counts(tmp_path):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        reader = EpisodeStore.open(tmp_path)
        assert list(reader.follow(poll=0.001, timeout=0.0)) == []
        store.append(make())
        assert (len(reader), reader.refresh(), len(reader)) == (0, 1, 1)
        store.truncate(0)
        assert reader.refresh() == 0


def test_a_writer_killed_at_100_moments_loses_at_most_the_running_episode(tmp_path):
    """Each writer goes on in the store of the one before."""
    moments, leftovers, stored = random.Random(0), 0, 0
    for turn in range(100):
        with writer(tmp_path, 10**6) as (_, pipe):
            pipe.poll(10)  # its first episode is stored: what follows is the middle of its work
            time.sleep(moments.uniform(0.0, 0.06))
            while turn % 2 and not any(name.startswith(".tmp-") for name in os.listdir(tmp_path)):
                pass  # every other one dies while it writes
        leftovers += any(tmp_path.glob(".tmp-*"))
        store = EpisodeStore.open(tmp_path)
        reported = reports(pipe)
        assert len(store) in (stored + len(reported), stored + len(reported) + 1)
        assert [contents(store[i]) for i in range(stored, len(store))] == toys(stored, len(store))
        stored = len(store)
    assert [contents(e) for e in store] == toys(0, stored)
    assert leftovers > 10
    left = [p.name for p in tmp_path.glob(".tmp-*")]
    assert repair(tmp_path) == [f"removed {name}, left by a killed writer" for name in left]


def test_a_writer_killed_while_it_makes_the_store_leaves_room_for_the_next(tmp_path):
    for wait in np.linspace(0.0, 0.03, 20):
        path = tmp_path / f"{wait}"
        with writer(path, 1):
            time.sleep(wait)
        with EpisodeStore.create(path, ToyEnv().spec) as store:
            assert [contents(e) for e in store] == toys(0, len(store))


def test_the_second_writer_hears_who_the_first_is(tmp_path):
    with writer(tmp_path, 1) as (process, pipe):
        assert pipe.recv() == 0
        for attempt in (lambda: EpisodeStore.create(tmp_path, ToyEnv().spec), lambda: repair(tmp_path)):
            with pytest.raises(RobotRLError, match=f"process {process.pid} "):
                attempt()
    with EpisodeStore.create(tmp_path, ToyEnv().spec) as store:  # the kernel took the lock from the killed one
        assert len(store) == 1


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    store = EpisodeStore.create(tmp_path, SPEC)
    pid = os.fork()
    if pid == 0:  # a data loader's worker that outlives its parent
        time.sleep(60)
        os._exit(0)
    try:
        time.sleep(0.2)  # the child has started
        store.close()
        EpisodeStore.create(tmp_path, SPEC).close()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_closed_or_reading_store_refuses_to_write(tmp_path):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        pass
    for unwritable in (store, EpisodeStore.open(tmp_path)):
        with pytest.raises(RobotRLError, match="reading"):
            unwritable.append(make())
        with pytest.raises(RobotRLError, match="reading"):
            unwritable.truncate(0)


# ----------------------------------------------------------------------------------------------------- what is refused


def with_nan(key: str):
    def spoil(episode: Episode) -> None:
        {"action": episode.action, "obs/state": episode.obs["state"], "extras/base": episode.extras["base"]}[key][
            41
        ] = np.nan

    return spoil


REFUSED = {
    "action .*NaN.* step 41": with_nan("action"),
    "obs/state .*NaN.* step 41": with_nan("obs/state"),
    "extras/base .*NaN.* step 41": with_nan("extras/base"),
    r"action leaves \[-1, 1\], first at step 7": lambda e: e.action.__setitem__((7, 1), 1.001),
    "obs/stamp/state has shape .* 71 rows": lambda e: e.obs.update({"stamp/state": np.zeros(70)}),
    "obs/state is float64": lambda e: e.obs.update(state=e.obs["state"].astype(np.float64)),
    "lacks obs/image/wrist": lambda e: e.obs.pop("image/wrist"),
    "obs/image/top comes from a camera": lambda e: e.obs.update({"image/top": e.obs["image/front"]}),
    r"reward is float32 \(69,\)": lambda e: setattr(e, "reward", e.reward[:-1]),
    "extras/name holds": lambda e: e.extras.update(name=np.array(["a"] * 71)),
    "cannot name an array": lambda e: e.extras.update({"../up": np.zeros(71)}),
    "both an array and the folder": lambda e: e.extras.update({"base/inner": np.zeros(71)}),
    "meta is not plain JSON": lambda e: e.meta.update(seed=np.int64(3)),
    "meta is not plain JSON .*Out of range": lambda e: e.meta.update(weight=float("nan")),
    "no steps": lambda e: setattr(e, "action", e.action[:0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_malformed_episode_is_refused_before_anything_is_written(tmp_path, message):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(make())
        before, episode = snapshot(tmp_path), make(seed=1)
        REFUSED[message](episode)
        with pytest.raises(RobotRLError, match=message):
            store.append(episode)
        assert snapshot(tmp_path) == before
        assert store.append(make(seed=1)) == 1


def test_another_spec_is_refused_with_both_sides(tmp_path):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(make())
    with pytest.raises(RobotRLError, match=r"(?s)rate: .*10.0.*20.0"):
        EpisodeStore.create(tmp_path, replace(SPEC, rate=20.0))
    EpisodeStore.create(tmp_path, SPEC).close()  # and the lock is free again


def write_root(path: Path, **change: object) -> None:
    root = {"format": episodes.FORMAT, "version": episodes.VERSION, "spec": SPEC.to_dict()}
    told = {**root, **change}
    (path / ".zattrs").write_text(json.dumps(told | {"crc32": episode_files.checksum(told)}))


def test_open_says_what_is_there_instead(tmp_path):
    def expect(message: str, path: Path = tmp_path) -> None:
        with pytest.raises(RobotRLError, match=message):
            EpisodeStore.open(path)

    expect("does not exist", tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    expect("is a file", tmp_path / "file")
    expect(r"no store .*\['file'\]")
    (tmp_path / ".zattrs").write_text('{"format": ')
    expect("damaged")
    (tmp_path / ".zattrs").write_text('{"description": "Push-T"}')
    expect("not a store of robot-rl")
    write_root(tmp_path, version=99)
    expect("version 99 .*update")
    write_root(tmp_path, spec={"world": "toy"})
    expect("not a Spec")
    (tmp_path / ".zattrs").unlink()
    (tmp_path / "000000").mkdir()
    expect("holds episodes but its .zattrs is missing")


def test_create_leaves_other_directories_alone(tmp_path):
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(RobotRLError, match="photo.jpg"):
        EpisodeStore.create(tmp_path, SPEC)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(RobotRLError, match="cannot hold a store"):
        EpisodeStore.create(tmp_path / "photo.jpg", SPEC)


def test_an_empty_store(tmp_path):
    EpisodeStore.create(tmp_path, SPEC).close()
    store = EpisodeStore.open(tmp_path)
    assert (len(store), list(store), repair(tmp_path)) == (0, [], [])
    with pytest.raises(IndexError):
        store[0]
    with EpisodeStore.create(tmp_path, SPEC) as store, pytest.raises(RobotRLError, match="cannot be cut to 1"):
        store.truncate(1)


# ---------------------------------------------------------------------------------------------------- full disks


def test_a_disk_with_too_little_room_is_not_touched(tmp_path, monkeypatch):
    with EpisodeStore.create(tmp_path, SPEC) as store:
        before = snapshot(tmp_path)
        monkeypatch.setattr(episode_files, "RESERVE", 2**60)
        with pytest.raises(RobotRLError, match=rf"{tmp_path}: .* are free .*in reserve"):
            store.append(make())
        assert snapshot(tmp_path) == before


def refuse_then_go_on(store: EpisodeStore, message: str) -> None:
    """Append one too large, see it refused without a trace, then append a small one."""
    store.append(make(5, seed=0))
    before = snapshot(store.path)
    large = make(5, seed=1)
    large.extras["noise"] = np.random.default_rng(0).normal(size=(6, 50_000))  # 2.4 MB that do not compress
    with pytest.raises(RobotRLError, match=message):
        store.append(large)
    assert snapshot(store.path) == before
    assert not any(store.path.glob(".tmp-*"))
    assert store.append(make(5, seed=2)) == 1
    assert [contents(e) for e in store] == [contents(make(5, seed=0)), contents(make(5, seed=2))]


def test_a_file_system_that_refuses_midway(tmp_path):
    """Real, but with EFBIG instead of ENOSPC: the kernel lets no file of this process grow beyond 1 MB."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
        with EpisodeStore.create(tmp_path, SPEC) as store:
            refuse_then_go_on(store, "File too large.* are free")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk(tmp_path, monkeypatch):
    """Real: a file system of 1 MB, where this process may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    try:
        with EpisodeStore.create(tmp_path / "store", SPEC) as store:
            monkeypatch.setattr(episode_files, "RESERVE", -(2**60))  # past the first look, into the kernel's ENOSPC
            refuse_then_go_on(store, rf"{tmp_path}.*No space left on device.* are free")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sound")
    with EpisodeStore.create(path, SPEC) as store:
        for seed in range(3):
            store.append(make(seed=seed))
    return path


def damaged_copy(sound: Path, into: Path, file: str, change) -> Path:
    """The store `sound` copied to `into`, with `file` of its episode 1 put through `change` (bytes to bytes)."""
    shutil.copytree(sound, into)
    target = into / "000001" / file
    target.write_bytes(change(target.read_bytes()))
    return into


def prefix(steps: int) -> dict:
    whole = make(seed=1)
    meta = {**whole.meta, "repaired": f"cut from 70 to {steps} steps"}
    rows = {k: getattr(whole, k)[:steps] for k in ("action", "reward", "score", "intervened")}
    obs, extras = ({k: v[: steps + 1] for k, v in arrays.items()} for arrays in (whole.obs, whole.extras))
    cut = replace(whole, terminated=False, truncated=True, meta=meta, obs=obs, extras=extras, **rows)
    return contents(cut)


@pytest.mark.parametrize(("chunk", "steps"), [("0.0.0.0", None), ("1.0.0.0", 31), ("2.0.0.0", 63)])
@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_repair_keeps_the_longest_whole_prefix(sound, tmp_path, chunk, steps, change):
    path = damaged_copy(sound, tmp_path / "store", f"obs/image/front/{chunk}", change)
    original = snapshot(path / "000001")
    with pytest.raises(RobotRLError, match="000001 is damaged.*--repair"):
        EpisodeStore.open(path)[1]
    lines = repair(path)
    assert len(lines) == 1
    assert "obs/image/front" in lines[0]
    assert str(path / "damaged" / "000001.0") in lines[0]
    assert snapshot(path / "damaged" / "000001.0") == original  # moved, not deleted
    others = [contents(make(seed=0)), contents(make(seed=2))]
    kept = [contents(e) for e in EpisodeStore.open(path)]
    assert kept == (others if steps is None else [others[0], prefix(steps), others[1]])
    assert steps is None or not EpisodeStore.open(path)[1].success
    after = snapshot(path)
    assert repair(path) == []
    assert snapshot(path) == after


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_changed_byte_goes_unseen(sound, tmp_path_factory, data):
    files = sorted(str(p.relative_to(sound / "000001")) for p in (sound / "000001").rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files))
    place, flip = data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 255))

    def change(content: bytes) -> bytes:
        i = place % len(content)
        return content[:i] + bytes([content[i] ^ flip]) + content[i + 1 :]

    path = damaged_copy(sound, tmp_path_factory.mktemp("flip") / "store", file, change)
    try:
        assert contents(EpisodeStore.open(path)[1]) == contents(make(seed=1))  # a byte without meaning, or
    except RobotRLError as error:  # a mended episode that is the beginning of the true one
        assert "damaged" in str(error)
        repair(path)
        kept = list(EpisodeStore.open(path))
        assert len(kept) == 2 or contents(kept[1]) == prefix(len(kept[1]))
    assert repair(path) == []


def test_the_same_bytes_as_another_dtype_are_damage(sound, tmp_path):
    path = damaged_copy(sound, tmp_path / "store", "action/.zarray", lambda b: b.replace(b"<f4", b"<i4"))
    with pytest.raises(RobotRLError, match="action does not match"):
        EpisodeStore.open(path)[1]
    assert "no step of it could be saved" in repair(path)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"length": 3}', b'{"zarr_format": 2}', b"\xff\xfe"])
@pytest.mark.parametrize("file", [".zattrs", "action/.zarray"])
def test_an_episode_without_sound_metadata_is_set_aside(sound, tmp_path, file, content):
    path = damaged_copy(sound, tmp_path / "store", file, lambda _: content)
    assert "no step of it could be saved" in repair(path)[0]
    assert [contents(e) for e in EpisodeStore.open(path)] == [contents(make(seed=0)), contents(make(seed=2))]
    with EpisodeStore.create(path, SPEC) as store:  # numbers are not used twice
        assert store.append(make(seed=3)) == 2
    assert (path / "000003").exists()


def test_repair_sets_a_second_original_beside_the_first(sound, tmp_path):
    path = damaged_copy(sound, tmp_path / "store", "obs/image/front/2.0.0.0", lambda _: b"")
    repair(path)
    (path / "000001" / "obs" / "image" / "front" / "1.0.0.0").write_bytes(b"")
    repair(path)
    assert sorted(p.name for p in (path / "damaged").iterdir()) == ["000001.0", "000001.1"]
    assert len(EpisodeStore.open(path)[1]) == 31


def test_repair_removes_leftovers_and_says_so(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "store")
    shutil.copytree(sound / "000000", tmp_path / "store" / ".tmp-000003")
    assert repair(tmp_path / "store") == ["removed .tmp-000003, left by a killed writer"]
    assert len(EpisodeStore.open(tmp_path / "store")) == 3


def test_the_next_writer_removes_leftovers_too(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "store")
    shutil.copytree(sound / "000000", tmp_path / "store" / ".tmp-000003")
    with EpisodeStore.create(tmp_path / "store", SPEC) as store:
        assert store.append(make(seed=3)) == 3
    assert not any((tmp_path / "store").glob(".tmp-*"))


# ---------------------------------------------------------------------------------------------------------------- speed


def test_zarr_costs_little(tmp_path):
    """An episode of 100 low-dimensional steps; limits several times what was measured."""
    spec = replace(SPEC, cameras=())
    episode = make(100, spec=spec)

    def fastest(action: Callable[[int], object]) -> float:
        times = [time.perf_counter()]
        for i in range(10):
            action(i)
            times.append(time.perf_counter())
        return min(np.diff(times))  # others may be using the machine

    with EpisodeStore.create(tmp_path, spec) as store:
        assert fastest(lambda _: store.append(episode)) < 0.05
        assert fastest(store.read) < 0.06
