"""Lets lerobot itself read a dataset that robot-rl exported, and compares every value. Run by hand, not by pytest.

python3.11 -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install lerobot==0.4.4 zarr numcodecs    # its own environment
PYTHONPATH=. /tmp/lerobot/bin/python tests/peer_lerobot.py DATASET STORE                # STORE is what was exported
"""

import sys

import av
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from robot_rl import control
from robot_rl.episodes import EpisodeStore


def main(folder: str, source: str) -> None:
    """Metadata, then every row and picture of every episode."""
    store = EpisodeStore.open(source)
    spec = store.spec
    dataset = LeRobotDataset("local/peer", root=folder, video_backend="pyav")
    meta = dataset.meta
    assert (meta.total_episodes, meta.fps, meta.robot_type) == (len(store), spec.rate, spec.arm), meta.info
    assert dataset.features["action"]["names"] == [c.name for c in spec.action], dataset.features["action"]
    assert meta.camera_keys == [f"observation.images.{c.name}" for c in spec.cameras], meta.camera_keys
    states, compared, errors, row = [], 0, [], 0
    for number, episode in enumerate(store):
        films = {c.name: _film(dataset.root / meta.get_video_file_path(number, _key(c))) for c in spec.cameras}
        action = control.to_physical(episode.action, spec.action)
        for t in range(len(episode) + 1):
            item = dataset[row]
            assert (item["episode_index"], item["frame_index"]) == (number, t), f"row {row}"
            assert np.array_equal(item["observation.state"], episode.obs["state"][t]), f"row {row}: state"
            done = min(t, len(episode) - 1)  # the last row repeats
            assert np.allclose(item["action"], action[done], atol=1e-6), f"row {row}: action"
            assert item["next.success"] == (episode.reward[done] > 0) and item["next.reward"] == episode.reward[done]
            compared += len(spec.state) + len(spec.action) + 2
            for camera in spec.cameras:
                seen = np.rint(item[_key(camera)].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
                assert np.array_equal(seen, films[camera.name][t]), f"row {row}: picture of {camera.name}"
                ours = episode.obs[f"image/{camera.name}"][t].astype(float)
                errors.append(np.mean((seen - ours) ** 2))
                compared += seen.size
            row += 1
        states.append(episode.obs["state"])
    assert row == len(dataset), f"{row} rows are in the store, {len(dataset)} in lerobot's dataset"
    _compare_statistics(meta.stats["observation.state"], np.concatenate(states))
    loss = f"; pictures at {10 * np.log10(255**2 / np.mean(errors)):.1f} dB" if errors else ""
    print(f"lerobot reads {len(store)} episodes, {row} rows, {compared} values: all equal{loss}")


def _compare_statistics(told: dict[str, np.ndarray], state: np.ndarray) -> None:
    state = state.astype(np.float64)
    wanted = {"min": state.min(0), "max": state.max(0), "mean": state.mean(0), "std": state.std(0)}
    for name, value in wanted.items():
        assert np.allclose(told[name], value, atol=1e-5), f"{name} of the state"


def _key(camera) -> str:
    return f"observation.images.{camera.name}"


def _film(path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


if __name__ == "__main__":
    main(*sys.argv[1:])
