"""Training images a second of lerobot's own loader, from a dataset that robot-rl exported. Run by hand, not by pytest.

/tmp/lerobot/bin/python tests/peer_lerobot_images.py DATASET     # its own environment, see peer_lerobot.py

Histories of 2 pictures and chunks of 16 actions in batches of 64, as `benchmarks/images.py STORE` reads them from the
store; lerobot decodes them from video, which is what its format keeps.
"""

import sys
import time

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

BATCH, N_OBS, HORIZON, SECONDS = 64, 2, 16, 20.0


def main(folder: str) -> None:
    """Batches for so many seconds of CPU."""
    torch.set_num_threads(1)
    meta = LeRobotDataset("local/peer", root=folder, video_backend="pyav").meta
    history, chunk = [-k / meta.fps for k in range(N_OBS)][::-1], [k / meta.fps for k in range(HORIZON)]
    stamps = dict.fromkeys([*meta.camera_keys, "observation.state"], history) | {"action": chunk}
    dataset = LeRobotDataset("local/peer", root=folder, video_backend="pyav", delta_timestamps=stamps)
    count, begin = 0, time.process_time()
    while time.process_time() < begin + SECONDS:
        for batch in torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0):
            count += sum(batch[key].shape[0] * batch[key].shape[1] for key in meta.camera_keys)
            if time.process_time() > begin + SECONDS:
                break
    print(f"lerobot: {count / (time.process_time() - begin):.0f} images for each second of CPU")


if __name__ == "__main__":
    main(sys.argv[1])
