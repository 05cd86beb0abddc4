"""Training images a second of our loader against robomimic 0.3.0's: batches of picture histories.

python tests/benchmarks/images.py STORE       # a store with pictures; without robomimic ours alone

robomimic asks for torchvision, of which there is no build for this CPU torch; a stand-in takes its place, as in
`policy.py`. It is read from the file that `robot-rl export` makes of the store. To set it up outside the environment:

    pip install --no-deps --target PEERS robomimic==0.3.0 && PYTHONPATH=PEERS python tests/benchmarks/images.py STORE
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from policy import _Finder

from robot_rl.episodes import EpisodeStore
from robot_rl.formats import robomimic
from robot_rl.windows import Windows

BATCH, N_OBS, HORIZON, SECONDS = 64, 2, 16, 5.0
EPISODES = 10
KEYS = ("actions", "rewards", "dones")


def main(path: str) -> None:
    """Turns of each, so that whoever else uses the machine disturbs all alike."""
    torch.set_num_threads(1)
    store = EpisodeStore.open(path)
    loaders = {"ours": _ours(store)}
    if importlib.util.find_spec("robomimic") is not None:
        sys.meta_path.insert(0, _Finder())
        loaders |= {f"robomimic, all cached, {n} actions": _robomimics(store, n) for n in (1, HORIZON)}
    counts = dict.fromkeys(loaders, 0)
    spent = dict.fromkeys(loaders, 0.0)
    for _ in range(5):
        for name, batches in loaders.items():
            begin = time.process_time()
            while time.process_time() - begin < SECONDS / 5:
                counts[name] += next(batches)
            spent[name] += time.process_time() - begin
    for name, count in counts.items():
        print(f"{name:40s} {count / spent[name]:10.0f} images for each second of CPU")


def _ours(store: EpisodeStore) -> Iterator[int]:
    episodes = [store.read(i, images=False) for i in range(EPISODES)]
    windows = Windows(episodes, HORIZON, N_OBS)
    windows.see(store.spec.cameras, (store[i] for i in range(EPISODES)))
    while True:
        batch = windows.batch(torch.randint(len(windows), (BATCH,)))
        yield _images(batch)


def _images(batch: dict[str, Any]) -> int:
    return sum(value.shape[0] * value.shape[1] for key, value in batch.items() if "image" in key)


def _robomimics(store: EpisodeStore, actions: int) -> Iterator[int]:
    """It loads a picture beside each action of a chunk; counted are those of the history, which a policy sees."""
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    file = Path(tempfile.mkdtemp()) / "store.hdf5"
    robomimic.write(file, store.spec, [store[i] for i in range(EPISODES)])
    images = [f"{camera.name}_image" for camera in store.spec.cameras]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"], "rgb": images}})
    dataset = SequenceDataset(
        str(file), ["state", *images], KEYS, seq_length=actions, frame_stack=N_OBS, hdf5_cache_mode="all",
        load_next_obs=False,
    )  # fmt: skip
    while True:
        for batch in torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0):
            yield sum(batch["obs"][key].shape[0] * N_OBS for key in images)


if __name__ == "__main__":
    main(sys.argv[1])
