"""What a recording is that no importer reads, and what is read instead: "copy it again" would help nobody."""

from __future__ import annotations

from pathlib import Path

from robot_rl.formats import guard

READ = (
    "Read are LeRobot datasets (v2.0 to v3.0), diffusion_policy zarrs, HDF5 of robomimic, robosuite (1.0 on), "
    "MimicGen, LIBERO and ALOHA, and bags (rosbag2, MCAP) with --robot"
)
ENDINGS = {
    ".pkl": "a Python pickle, which can run code when it is opened",
    ".pickle": "a Python pickle, which can run code when it is opened",
    ".pt": "a PyTorch file, which is a pickle",
    ".pth": "a PyTorch file, which is a pickle",
    ".npy": "a numpy array",
    ".npz": "numpy arrays",
    ".bag": "a bag of ROS 1; `rosbags-convert` makes a rosbag2 of it",
    ".tfrecord": "TensorFlow records (RLDS, as Open X-Embodiment is)",
    ".parquet": "a parquet file alone; a LeRobot dataset is the folder that has meta/info.json",
    ".mp4": "a video; a LeRobot dataset is the folder that has meta/info.json",
    ".csv": "a table in text",
    ".json": "JSON",
    ".rrd": "a recording of rerun",
    ".tar": "an archive; unpack it first",
    ".gz": "an archive; unpack it first",
    ".zip": "a zip in which there is no zarr; unpack it first",
}
RLDS = (
    "an RLDS dataset (TensorFlow records, as Open X-Embodiment is); LeRobot's converters make a LeRobot dataset of it"
)
MOST_FILES = 10_000  # looked at in a folder


def what_it_is(path: Path) -> str:
    """A sentence about the file or folder `path`, and what is read instead."""
    if path.is_file():
        guard.require_file(path)
        return f"{path} is {_file(path)}. {READ}"
    return f"{path} {_folder(path)}. {READ}"


def _file(path: Path) -> str:
    if ".tfrecord" in path.name:
        return ENDINGS[".tfrecord"]
    kind = ENDINGS.get(path.suffix.lower())
    if kind is None and path.suffix.lower() in (".hdf5", ".h5"):
        return "no whole HDF5 file; copy or download it again"
    return kind or "neither a folder nor a whole HDF5 file"


def _folder(path: Path) -> str:
    files = [f for f, _ in zip(path.rglob("*"), range(MOST_FILES), strict=False) if f.is_file()]
    names = {f.name for f in files}
    if any(".tfrecord" in name for name in names) or {"dataset_info.json", "features.json"} & names:
        return f"is {RLDS}"
    if (path / "meta").is_dir() and (path / "data").is_dir():
        return "looks like a LeRobot dataset without meta/info.json: the copy is incomplete, download it again"
    if inner := [f.parent.parent for f in files if f.parent.name == "meta" and f.name == "info.json"]:
        return f"is no LeRobot dataset, but holds one: give {inner[0]}"
    if inner := [f.parent for f in files if f.name in (".zgroup", "zarr.json")]:
        return f"is no zarr, but holds one: give {min(inner, key=lambda p: len(p.parts))}"
    for ending in (".hdf5", ".h5", ".pkl", ".pickle", ".npz", ".npy", ".bag", ".zip", ".parquet", ".csv"):
        if found := sorted(f for f in files if f.suffix.lower() == ending):
            if ending in (".hdf5", ".h5"):
                guard.require_file(found[0])
                return f"is a folder of HDF5 files that are not ALOHA's: give one of them, such as {found[0]}"
            return f"is a folder of {ending} files, {ENDINGS[ending]}"
    if not files:
        return "is an empty folder"
    return f"is a folder of no known format; it holds {', '.join(sorted(p.name for p in path.iterdir())[:6])}"
