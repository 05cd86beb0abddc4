"""Eyes of a policy: one encoder a camera, and what is done to pictures before it.

In training each sample is seen through a window of its own: shifted by a few pixels with the edge repeated (DrQ,
2004.13649), cut out anywhere where `crop` asks for less than the whole, and in other colours where `jitter` does; the
same for all pictures of one camera in its history, since motion between them means something. In play the window is in
the middle and colours are as they are. Pictures stay bytes up to here. A depth camera is one more camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from policies.encoders import ConvConfig, VitConfig
from policies.resnet import Resnet, ResnetConfig
from robot_rl.types import CameraSpec, RobotRLError

EncoderConfig = ConvConfig | ResnetConfig | VitConfig
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which pretrained weights expect
HALF, QUARTER = 0.5, 0.25  # what depth in [0, 1] is centred on, and divided by
GREY = (0.299, 0.587, 0.114)  # brightness of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class VisionConfig:
    """How pictures are seen."""

    encoder: EncoderConfig = field(default_factory=ConvConfig)
    """of each camera; every camera has its own"""
    crop: int | None = None
    """side of the square that is cut out [pixels]: anywhere in training, in the middle in play; None: all is seen"""
    shift: int = 4
    """in training the picture moves by so many pixels at most, its edge repeated; 0: it does not"""
    jitter: float = 0.0
    """in training brightness, contrast and saturation change by factors of 1 - jitter to 1 + jitter; depth does not"""
    far: float = 2.0
    """of a depth camera: what is farther looks as if it were there [m]"""

    def build(self, cameras: Sequence[CameraSpec]) -> Vision:
        """The eyes for these cameras."""
        return Vision(self, cameras)


class Vision(nn.Module):
    """Pictures of all cameras in, features out; `size` is how many."""

    def __init__(self, config: VisionConfig, cameras: Sequence[CameraSpec]) -> None:
        super().__init__()
        _require_possible(config, cameras)
        self.config, self.cameras = config, tuple(cameras)
        sides = [(config.crop or c.height, config.crop or c.width) for c in cameras]
        self.encoders = nn.ModuleList(
            [config.encoder.build(*side, c.shape[2]) for c, side in zip(cameras, sides, strict=True)]
        )
        self.size = config.encoder.features * len(cameras)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """ "image/<camera>" (B, To, H, W, 3) uint8, of depth (B, To, H, W, 1) uint16, to features (B, To, size).

        Raises `RobotRLError` where a camera is missing, or its pictures have another size or type.
        """
        pairs = zip(self.cameras, self.encoders, strict=True)
        return torch.cat(
            [self._encoded(_pictures(obs, camera), encoder, camera.depth) for camera, encoder in pairs], -1
        )

    def start(self) -> None:
        """Take over pretrained weights, where there are some; when training begins, and not when a file is read."""
        for encoder in self.encoders:
            if isinstance(encoder, Resnet):
                encoder.start()

    def _encoded(self, pictures: Tensor, encoder: nn.Module, depth: bool) -> Tensor:
        x = self.windowed(pictures).flatten(0, 1).permute(0, 3, 1, 2).to(self.mean)  # channels last in memory
        if depth:
            x = ((x / (1000 * self.config.far)).clamp(max=1.0) - HALF) / QUARTER
        else:
            x = x / 255
            if self.training and self.config.jitter:
                x = jittered(x, self.config.jitter, pictures.shape[1])
            x = (x - self.mean) / self.deviation
        return encoder(x).unflatten(0, pictures.shape[:2])

    def windowed(self, pictures: Tensor) -> Tensor:
        """(B, To, H, W, C) to the part of them that is looked at, (B, To, crop, crop, C)."""
        H, W = pictures.shape[2:4]
        height, width = self.config.crop or H, self.config.crop or W
        if not self.training:
            top, left = (H - height) // 2, (W - width) // 2
            return pictures[:, :, top : top + height, left : left + width]
        shift = self.config.shift
        if (height, width, shift) == (H, W, 0):
            return pictures
        pictures = edged(pictures, shift)
        tops, lefts = (_starts(len(pictures), whole - part, shift) for whole, part in ((H, height), (W, width)))
        windows = zip(pictures, tops, lefts, strict=True)
        return torch.stack([p[:, top : top + height, left : left + width] for p, top, left in windows])


def edged(pictures: Tensor, width: int) -> Tensor:
    """Pictures (B, To, H, W, C) with their edge repeated `width` times: (B, To, H + 2 * width, W + 2 * width, C)."""
    B, To, H, W, C = pictures.shape
    wide = pictures.new_empty(B, To, H + 2 * width, W + 2 * width, C)
    wide[:, :, width : width + H, width : width + W] = pictures
    for k in range(width):  # columns first, then whole rows, corners with them
        wide[:, :, width : width + H, k] = pictures[:, :, :, 0]
        wide[:, :, width : width + H, width + W + k] = pictures[:, :, :, -1]
    for k in range(width):
        wide[:, :, k] = wide[:, :, width]
        wide[:, :, width + H + k] = wide[:, :, width + H - 1]
    return wide


def _starts(n: int, room: int, shift: int) -> list[int]:
    """Where n windows begin in pictures with an edge of `shift`: the window anywhere in the `room`, then the shift."""
    start = torch.randint(room + 1, (n,)) + torch.randint(2 * shift + 1, (n,))
    return [int(i) for i in start]


def jittered(x: Tensor, size: float, history: int) -> Tensor:
    """Pictures (B * history, 3, H, W) in [0, 1] in other colours, the same over each history."""
    factors = 1 + size * (2 * torch.rand(len(x) // history, 3) - 1)
    bright, contrast, saturation = factors.to(x).repeat_interleave(history, 0)[..., None, None, None].unbind(1)
    x = x * bright
    grey = (x * x.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    x = torch.lerp(grey, x, saturation)
    return torch.lerp(grey.mean((2, 3), keepdim=True), x, contrast).clamp(0.0, 1.0)


def _pictures(obs: dict[str, Tensor], camera: CameraSpec) -> Tensor:
    """The pictures of one camera, (B, To, H, W, 3) uint8, or of depth (B, To, H, W, 1) uint16."""
    key = f"image/{camera.name}"
    if key not in obs:
        there = ", ".join(k for k in obs if k.startswith("image/")) or "no pictures"
        raise RobotRLError(f"the policy sees camera '{camera.name}', and is shown {there}; let the world have it")
    pictures, kind = obs[key], str(obs[key].dtype).removeprefix("torch.")
    if kind != camera.dtype.name or pictures.ndim != 5 or tuple(pictures.shape[2:]) != camera.shape:
        raise RobotRLError(
            f"camera '{camera.name}' must give the policy (B, To, {', '.join(map(str, camera.shape))}) "
            f"{camera.dtype.name}, not {tuple(pictures.shape)} {kind}; set it up as in training"
        )
    return pictures


def _require_possible(config: VisionConfig, cameras: Sequence[CameraSpec]) -> None:
    if not cameras:
        raise RobotRLError("a policy with vision needs a camera, and these data have none; collect with --cameras NAME")
    if config.shift < 0 or not 0 <= config.jitter < 1:
        raise RobotRLError(f"shift must be at least 0, jitter in [0, 1): {config.shift}, {config.jitter}")
    if not config.far > 0:
        raise RobotRLError(f"far is {config.far} m; it must be above 0")
    for camera in cameras:
        if config.crop is not None and not 1 <= config.crop <= min(camera.height, camera.width):
            raise RobotRLError(
                f"crop is {config.crop}; camera '{camera.name}' gives {camera.height} x {camera.width} pixels"
            )
