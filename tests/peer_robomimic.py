"""Lets robomimic itself read a file that robot-rl exported, and compares every value. Run by hand, not by pytest.

python -m venv /tmp/robomimic && /tmp/robomimic/bin/pip install robomimic==0.3.0     # its own environment
/tmp/robomimic/bin/python tests/peer_robomimic.py FILE.hdf5                          # robot-rl is not needed there
"""

import json
import sys

import h5py
import numpy as np
import robomimic.utils.file_utils as file_utils
import robomimic.utils.obs_utils as obs_utils
import torch
from robomimic.utils.dataset import SequenceDataset

KEYS = ("actions", "rewards", "dones")
WINDOW = 3  # steps of a sequence


def main(path: str) -> None:
    """Metadata, every window of every demonstration, and a shuffled batch."""
    with h5py.File(path, "r") as file:
        spec = json.loads(file["data"].attrs["robot_rl_spec"])
        demos = {name: _arrays(group) for name, group in file["data"].items()}
    images = [f"{camera['name']}_image" for camera in spec["cameras"]]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"], "rgb": images}})
    _compare_metadata(path, spec)
    dataset = SequenceDataset(path, ["state", *images], KEYS, seq_length=WINDOW, hdf5_cache_mode="low_dim")
    compared = _compare_windows(dataset, demos, ["state", *images])
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True)))
    assert batch["actions"].shape[1:] == (WINDOW, len(spec["action"])), batch["actions"].shape
    assert batch["obs"]["state"].shape[1:] == (WINDOW, len(spec["state"])), batch["obs"]["state"].shape
    print(f"robomimic reads {len(demos)} demonstrations, {len(dataset)} windows, {compared} values: all equal")


def _compare_metadata(path: str, spec: dict) -> None:
    environment = file_utils.get_env_metadata_from_dataset(path)
    assert spec["world"] in (environment["env_name"], f"robosuite:{environment['env_name']}"), environment
    shapes = file_utils.get_shape_metadata_from_dataset(path)
    assert shapes["ac_dim"] == len(spec["action"]) and shapes["use_images"] == bool(spec["cameras"]), shapes
    assert shapes["all_shapes"]["state"] == [len(spec["state"])], shapes
    print("metadata:", environment, dict(shapes["all_shapes"]))


def _compare_windows(dataset: SequenceDataset, demos: dict[str, dict[str, np.ndarray]], observed: list[str]) -> int:
    index = compared = 0
    for name in sorted(demos, key=lambda n: int(n[5:])):
        length = len(demos[name]["actions"])
        for start in range(length):
            rows = np.minimum(np.arange(start, start + WINDOW), length - 1)  # robomimic repeats the last step
            item = dataset[index]
            read = {key: item[key] for key in KEYS}
            read |= {f"{group}/{key}": item[group][key] for group in ("obs", "next_obs") for key in observed}
            for key, values in read.items():
                assert np.array_equal(values, demos[name][key][rows]), f"{name}, step {start}: {key} differs"
                compared += values.size
            index += 1
    assert index == len(dataset), f"{index} steps are in the file, {len(dataset)} in robomimic's data set"
    return compared


def _arrays(demo: h5py.Group) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    demo.visititems(lambda key, item: found.update({key: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
