"""Files that attack: none runs code, reads outside itself, or takes memory; each is refused by name.

What would run code here writes a file of its own, and nothing else.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest
import zarr

from robot_rl import imports, memory, unpacking, zarr_metadata
from robot_rl.episodes import EpisodeStore, repair
from robot_rl.formats import diffusion_policy, robomimic
from robot_rl.types import CameraSpec, Channel, RobotRLError, Spec
from robot_rl.zarr_files import Folder, Loaded
from sim.worlds import WorldConfig
from tests.test_episodes import SPEC as STORE_SPEC
from tests.test_episodes import contents, make

PLANE = Spec("pusht", "", (Channel("x", "m", -1, 1),) * 2, (Channel("dx", "m", -1, 1),), (), 10.0, 100)


class Marker:
    """Unpickled, it makes a file: the harmless stand-in for what an attacker would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# ------------------------------------------------------------------------------------------------------------- zarr


def zarray(shape, chunks=None, **other) -> dict:
    told = {"zarr_format": 2, "shape": shape, "chunks": chunks or shape, "dtype": "<f4", "compressor": None}
    return told | {"fill_value": 0, "filters": None, "order": "C"} | other


def v3(shape, chunks=None, codecs=None, **other) -> dict:
    told = {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float32", "fill_value": 0}
    told["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": chunks or shape}}
    told["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "/"}}
    return told | {"codecs": codecs or [{"name": "bytes", "configuration": {"endian": "little"}}]} | other


def sharded(inner: list[int], codecs=None, **other) -> list[dict]:
    plain = [{"name": "bytes", "configuration": {"endian": "little"}}]
    told = {"chunk_shape": inner, "codecs": codecs or plain, "index_codecs": [*plain, {"name": "crc32c"}]}
    return [{"name": "sharding_indexed", "configuration": told | other}]


def put(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root


def hostile_buffer(root: Path, key: str = "data/state", **files: object) -> Path:
    """A Diffusion Policy buffer, whole but for the array `key`, which `files` replace."""
    diffusion_policy.write(root, PLANE, [plain_episode()])
    for old in (root / key).iterdir():
        old.unlink()
    return put(root, {f"{key}/{name}": content for name, content in files.items()})


def plain_episode():
    episode = make(9, spec=PLANE)
    episode.obs["state"], episode.action[:] = episode.obs["state"][:, :2], 0.5
    return episode


def imported(path: Path) -> None:
    spec, episodes = imports.recordings(path, WorldConfig(world=""))
    list(episodes)


@pytest.mark.parametrize("part", ["compressor", "filters", "dtype", "consolidated"])
def test_fault_f49_a_pickle_in_a_zarr_runs_nothing(tmp_path, part):
    marker = tmp_path / "ran"
    objects = pickle.dumps([np.array([Marker(marker)], object), (1,), "|O"])
    spoilt = {
        "compressor": zarray([1], compressor={"id": "pickle", "protocol": 5}),
        "filters": zarray([1], filters=[{"id": "pickle", "protocol": 5}], dtype="|O"),
        "dtype": zarray([1], dtype="|O", filters=[{"id": "pickle"}]),
        "consolidated": zarray([1], filters=[{"id": "pickle", "protocol": 5}], dtype="|O"),
    }[part]
    path = hostile_buffer(tmp_path / "b.zarr", **{".zarray": spoilt, "0": objects})
    if part == "consolidated":  # what zarr believes, while the array's own metadata are innocent
        files = {k: json.loads((path / k).read_text()) for k in (".zgroup", "data/.zgroup", "meta/.zgroup")}
        files |= {"data/state/.zarray": spoilt}
        put(path, {".zmetadata": {"zarr_consolidated_format": 1, "metadata": files}})
        put(path, {"data/state/.zarray": zarray([1])})
    with pytest.raises(RobotRLError, match=r"data/state|\.zmetadata"):
        imported(path)
    assert not marker.exists()


def test_fault_f49_a_store_of_ours_with_a_pickle_in_it_runs_nothing(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "store"
    with EpisodeStore.create(path, STORE_SPEC) as store:
        store.append(make())
    told = json.loads((path / "000000/action/.zarray").read_text())
    put(path, {"000000/action/.zarray": told | {"compressor": {"id": "pickle"}}})
    put(path, {"000000/action/0.0": pickle.dumps(Marker(marker))})
    with pytest.raises(RobotRLError, match="compressor 'pickle' is not taken"):
        EpisodeStore.open(path)[0]
    assert "no step of it could be saved" in repair(path)[0]
    assert not marker.exists()


REFUSED = {
    "object": zarray([3], dtype="|O"),
    "text": zarray([3], dtype="<U9"),
    "structure": zarray([3], dtype=[["a", "<f4"]]),
    "dates": zarray([3], dtype="<M8[s]"),
    "complex": zarray([3], dtype="<c8"),
    "long double": zarray([3], dtype="<f16"),
    "json": zarray([3], filters=[{"id": "json2"}]),
    "vlen": zarray([3], filters=[{"id": "vlen-array", "dtype": "<f4"}]),
    "growing delta": zarray([3], filters=[{"id": "delta", "dtype": "<f4", "astype": "<f8"}]),
    "lzma": zarray([3], compressor={"id": "lzma"}),
    "jpegxl": zarray([3], compressor={"id": "imagecodecs_jpegxl"}),
    "fill": zarray([3], fill_value={"a": 1}),
    "negative": zarray([-1]),
    "no chunk": zarray([3], [0]),
    "true": zarray([True]),
    "unlike": zarray([3], [3, 3]),
    "dimensions": zarray([1] * 40),
    "no object": [],
    "deep": b"[" * 200_000,
    "not JSON": b"\xff",
    "version": zarray([3]) | {"zarr_format": 4},
    "v3 text": v3([3], data_type="string"),
    "v3 structure": v3([3], data_type={"name": "structured"}),
    "v3 pickle": v3([3], codecs=[{"name": "numcodecs.pickle"}]),
    "v3 vlen": v3([3], codecs=[{"name": "vlen-utf8"}]),
    "v3 twice packed": v3([3], codecs=[{"name": "bytes"}, {"name": "gzip"}, {"name": "zstd"}]),
    "v3 grid": v3([3]) | {"chunk_grid": {"name": "rectilinear"}},
    "v3 transformers": v3([3], storage_transformers=[{"name": "x"}]),
    "shard in shard": v3([4], codecs=sharded([2], sharded([1]))),
    "shard of pickles": v3([4], codecs=sharded([2], [{"name": "numcodecs.pickle"}])),
    "torn shard": v3([5], codecs=sharded([2])),
    "v3 consolidated": {"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": {
        "a": v3([3], data_type="string")}}},
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_fault_f49_metadata_that_are_no_numbers_are_refused_by_name(case):
    content = REFUSED[case]
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    three = isinstance(content, dict) and content.get("zarr_format") == 3
    name = "data/state/zarr.json" if three else "data/state/.zarray"
    with pytest.raises(RobotRLError, match=f"^a store: {name}"):
        zarr_metadata.require_safe(Loaded("a store", {name: raw}))


CODECS = {
    "blosc": numcodecs.Blosc("zstd", 3, 2), "zstd": numcodecs.Zstd(3), "lz4": numcodecs.LZ4(), "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(), "none": None,
}  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("filters", [None, [{"id": "delta", "dtype": "<f4"}], [{"id": "shuffle", "elementsize": 4}]])
def test_what_people_store_is_taken(tmp_path, codec, filters):
    values = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    given = CODECS[codec]
    told = zarray([300, 3], [128, 3], compressor=given and given.get_config(), filters=filters, fill_value="NaN")
    put(tmp_path, {".zgroup": {"zarr_format": 2}, "a/.zarray": told})
    zarr.open_group(str(tmp_path), mode="r+")["a"][:] = values
    group, arrays = zarr_metadata.open_group(tmp_path)
    assert np.allclose(group["a"][:], values, atol=1e-5)  # delta rounds
    assert (arrays["a"].shape, arrays["a"].nbytes) == ((300, 3), 3600)
    with zipfile.ZipFile(tmp_path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in tmp_path.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(tmp_path))
    assert np.allclose(zarr_metadata.open_group(tmp_path.with_suffix(".zip"))[0]["a"][:], values, atol=1e-5)


@pytest.mark.skipif(int(zarr.__version__[0]) < 3, reason="zarr 2 does not read version 3")
def test_shards_of_version_3_are_taken_and_their_lies_are_not(tmp_path):
    values = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    zarr.create_array(str(tmp_path / "s.zarr"), name="a", data=values, chunks=(8, 8), shards=(32, 8))
    assert np.array_equal(zarr_metadata.open_group(tmp_path / "s.zarr")[0]["a"][:], values)
    shard = next((tmp_path / "s.zarr" / "a" / "c").rglob("0"))
    shard = shard if shard.is_file() else shard / "0"
    whole = shard.read_bytes()
    for place, value, match in ((-4 - 16, 2**40, "beyond its end"), (-4 - 8, 2**40, "beyond its end")):
        shard.write_bytes(whole[:place] + value.to_bytes(8, "little") + (whole[place + 8 :]))
        with pytest.raises(RobotRLError, match=match):
            zarr_metadata.open_group(tmp_path / "s.zarr")


def peak(action) -> int:
    tracemalloc.start()
    try:
        action()
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


BOMBS = {
    "8 TiB without a chunk": (zarray([2**41, 1], [2**20, 1]), b""),
    "8 TiB in one chunk": (zarray([2**41, 1]), b""),
    "a chunk of 8 GiB": (zarray([9, 2**31]), b"x"),
    "a million million chunks": (zarray([2**24, 1], [1, 1]), b""),
    "Blosc that says more": (zarray([9, 2], compressor={"id": "blosc"}), b"\2\1!\4" + b"\xff\xff\xff\x7f" + b"\0" * 30),
    "lz4 that says more": (zarray([9, 2], compressor={"id": "lz4"}), b"\xff\xff\xff\x7f" + b"\0" * 30),
    "zstd that says more": (
        zarray([9, 2], compressor={"id": "zstd"}), b"\x28\xb5\x2f\xfd\xe0" + (2**43).to_bytes(8, "little") + b"\0" * 30,
    ),
    "zstd that says nothing": (zarray([9, 2], compressor={"id": "zstd"}), b"\x28\xb5\x2f\xfd\x00\x58" + b"\0" * 30),
    "gzip of 140 MB": (zarray([9, 2], compressor={"id": "gzip"}), None),
    "gzip of two members": (zarray([9, 2], compressor={"id": "gzip"}), "twice"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_fault_f52_a_zarr_that_asks_for_memory_is_refused_before_it_is_taken(tmp_path, bomb):
    told, chunk = BOMBS[bomb]
    if not isinstance(chunk, bytes):
        zeros = gzip.compress(b"\0" * 140_000_000, 6)
        chunk = zeros + zeros if chunk == "twice" else gzip.compress(b"\0" * 140_000_000, 6)
    path = hostile_buffer(tmp_path / "b.zarr", **{".zarray": told, **({"0.0": chunk} if chunk else {})})

    def attempt():
        with pytest.raises(RobotRLError, match=r"data/state.*(GiB|bytes|chunk files)"):
            imported(path)

    assert peak(attempt) < 20 * 2**20


def test_fault_f52_a_zip_that_asks_for_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("data/state/0.0", b"\0" * 10**6)
    with pytest.raises(RobotRLError, match="neither stored nor deflated"):
        zarr_metadata.open_group(tmp_path / "b.zip")


@pytest.mark.parametrize("place", ["data/state/0.0", "data/action", "meta"])
def test_fault_f50_a_zarr_with_a_link_out_of_it_is_refused(tmp_path, place):
    diffusion_policy.write(tmp_path / "b.zarr", PLANE, [plain_episode()])
    os.rename(tmp_path / "b.zarr" / place, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "b.zarr" / place)
    with pytest.raises(RobotRLError, match="link out of its dataset"):
        imported(tmp_path / "b.zarr")


@pytest.mark.parametrize("place", [".zattrs", "action", "action/0.0", "obs"])
def test_fault_f50_a_store_of_ours_reads_no_link_and_no_pipe(tmp_path, place):
    with EpisodeStore.create(tmp_path / "s", STORE_SPEC) as store:
        store.append(make())
    inside = tmp_path / "s" / "000000" / place
    os.rename(inside, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", inside)
    with pytest.raises(RobotRLError, match="link out of its dataset"):
        EpisodeStore.open(tmp_path / "s")[0]
    inside.unlink()
    os.mkfifo(inside)  # reading it would wait for ever
    with pytest.raises(RobotRLError, match="pipe|Not a directory"):
        EpisodeStore.open(tmp_path / "s")[0]
    assert "no step of it could be saved" in repair(tmp_path / "s")[0]


def forged(path: Path, change) -> None:
    """An episode's attributes changed by one who knows how their checksum is made."""
    from robot_rl import episode_files

    told = json.loads(path.read_text())
    told.pop("crc32")
    change(told)
    path.write_text(json.dumps(told | {"crc32": episode_files.checksum(told)}))


FORGERIES = {
    "names another folder": lambda t: t["checksums"].update({"../../elsewhere": [1]}),
    "checksums are no table": lambda t: t.update(checksums=[1]),
    "length is no number": lambda t: t.update(length="70"),
    "another length": lambda t: t.update(length=10**12),
    "meta is a list": lambda t: t.update(meta=[]),
    "lacks an array": lambda t: t["checksums"].pop("action"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_fault_f50_a_forged_episode_is_refused(tmp_path, forgery):
    with EpisodeStore.create(tmp_path, STORE_SPEC) as store:
        store.append(make(seed=0))
        store.append(make(seed=1))
    forged(tmp_path / "000000" / ".zattrs", FORGERIES[forgery])
    with pytest.raises(RobotRLError, match="episode .*000000 is"):
        EpisodeStore.open(tmp_path)[0]
    repair(tmp_path)
    assert contents(EpisodeStore.open(tmp_path)[-1]) == contents(make(seed=1))


# ------------------------------------------------------------------------------------------------------------- HDF5


def demonstrations(path: Path, change) -> Path:
    """A file of robomimic's, whole but for what `change` makes of its only demonstration."""
    spec = Spec("robomimic:Lift", "Panda", PLANE.state, PLANE.action * 7, (CameraSpec("front", 6, 8),), 20.0, 100)
    episode = make(9, spec=spec)
    episode.obs["state"] = episode.obs["state"][:, :2]
    robomimic.write(path, spec, [episode])
    with h5py.File(path, "a") as file:
        change(file["data/demo_0"], path)
    return path


def external_link(demo: h5py.Group, path: Path) -> None:
    with h5py.File(path.with_name("other.hdf5"), "w") as file:
        file["secret"] = np.zeros((9, 7), np.float32)
    del demo["actions"]
    demo["actions"] = h5py.ExternalLink("other.hdf5", "secret")


def external_storage(demo: h5py.Group, path: Path) -> None:
    path.with_name("secret").write_bytes(bytes(9 * 7 * 4))
    del demo["actions"]
    demo.create_dataset("actions", (9, 7), "f4", external=[(str(path.with_name("secret")), 0, 9 * 7 * 4)])


def virtual(demo: h5py.Group, path: Path) -> None:
    with h5py.File(path.with_name("other.hdf5"), "w") as file:
        file["secret"] = np.zeros((9, 7), np.float32)
    layout = h5py.VirtualLayout((9, 7), "f4")
    layout[:] = h5py.VirtualSource(str(path.with_name("other.hdf5")), "secret", (9, 7))
    del demo["actions"]
    demo.create_virtual_dataset("actions", layout)


def linked_group(demo: h5py.Group, path: Path) -> None:
    external_link(demo, path)
    del demo["actions"]
    demo.file["mask"] = h5py.ExternalLink("other.hdf5", "/")
    demo["actions"] = h5py.SoftLink("/mask/secret")


@pytest.mark.parametrize("change", [external_link, external_storage, virtual, linked_group])
def test_fault_f50_an_hdf5_file_that_reads_others_is_refused(tmp_path, change):
    with pytest.raises(RobotRLError, match="(another file|other files).*nothing outside the file is read"):
        imported(demonstrations(tmp_path / "d.hdf5", change))


def test_soft_links_in_a_file_are_followed(tmp_path):
    def moved(demo: h5py.Group, path: Path) -> None:
        demo.file["there"] = demo["actions"]
        del demo["actions"]
        demo["actions"] = h5py.SoftLink("/there")

    imported(demonstrations(tmp_path / "d.hdf5", moved))


def replaced(key: str, *shape: int, dtype="f4", **options):
    def change(demo: h5py.Group, path: Path) -> None:
        del demo[key]
        demo.create_dataset(key, shape, dtype, **options)

    return change


def many(demo: h5py.Group, path: Path) -> None:
    for i in range(100):
        demo.create_dataset(f"obs/more_{i}", (9, 3_600_000), "f4", chunks=(1, 3_600_000))


def wide_attribute(demo: h5py.Group, path: Path) -> None:
    del demo.attrs["meta"]
    demo.attrs.create("meta", ["{}"] * 2000, dtype=h5py.string_dtype())


HDF5_BOMBS = {
    "8 TiB": (replaced("actions", 2**40, 2, chunks=(2**10, 2)), r"actions.*8,192\.00 GiB"),
    "8 TiB of pictures": (replaced("obs/front_image", 2**31, 64, 64, 1, dtype="u1", chunks=True), r"8,192\.00 GiB"),
    "a chunk of 3 GiB": (replaced("actions", 9, 7, chunks=(2**14, 2**15), maxshape=(None, None)), "a chunk of.*GiB"),
    "wide elements": (replaced("actions", 2**20, dtype=np.dtype(("f4", (2**20,))), chunks=(1,)), "GiB"),
    "many datasets": (many, "its datasets.*GiB"),
    "many texts": (wide_attribute, "the attribute 'meta'.*texts"),
}


@pytest.mark.parametrize("bomb", HDF5_BOMBS)
def test_fault_f52_an_hdf5_file_that_asks_for_memory_is_refused_before_it_is_taken(tmp_path, bomb):
    change, words = HDF5_BOMBS[bomb]
    path = demonstrations(tmp_path / "d.hdf5", change)
    assert path.stat().st_size < 200_000

    def attempt():
        with pytest.raises(RobotRLError, match=words):
            imported(path)

    assert peak(attempt) < 20 * 2**20


def test_fault_f52_texts_where_numbers_should_be_are_refused(tmp_path):
    with pytest.raises(RobotRLError, match="actions.*must hold rows of numbers"):
        imported(demonstrations(tmp_path / "d.hdf5", replaced("actions", 9, 7, dtype=h5py.string_dtype())))


def test_memory_is_judged_by_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 3 * memory.GIB)
    memory.require(3 * memory.GIB, "this")
    with pytest.raises(RobotRLError, match=r"this would need 4\.0 GiB of memory, and 3\.0 GiB are available"):
        memory.require(4 * memory.GIB, "this")
    with pytest.raises(RobotRLError, match=r"that would need 4\.0 GiB"):
        unpacking.require_plausible(4 * memory.GIB, 10**9, "that")
    unpacking.require_plausible(unpacking.UNQUESTIONED, 0, "small")


def test_every_file_of_a_folder_counts(tmp_path):
    put(tmp_path, {"a/b/0.0": b"xy", ".zgroup": b"{}"})
    assert Folder(tmp_path).sizes == {"a/b/0.0": 2, ".zgroup": 2}
