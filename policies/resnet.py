"""ResNet-18 with group normalisation and a spatial softmax: Diffusion Policy's encoder (2303.04137, section IV-A).

The residual network is He et al.'s (2015, 1512.03385). Weights can come from a file in the naming of torchvision's
`resnet18`. Those were trained with batch normalisation, y = gamma (x - mean) / deviation + beta, which is folded:
mean and deviation into the convolution before, gamma and beta into the group normalisation after, so that what reaches
the group normalisation is what batch normalisation would have normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.encoders import SpatialSoftmax, group_norm, require_size
from robot_rl import sealed
from robot_rl.types import RobotRLError

EPSILON = 1e-5  # of torchvision's batch normalisation


@dataclass(frozen=True)
class ResnetConfig:
    """ResNet-18 with group normalisation and spatial softmax; its 0.6 GFLOP a picture of 84 pixels want a GPU."""

    width: int = 64
    """channels of the first stage; each later one has twice as many. 16 is for a CPU"""
    pretrained: str = ""
    """file with weights in the naming of torchvision's resnet18, read when training begins; needs the width 64"""
    features: int = 64
    """numbers that come out"""

    def build(self, height: int, width: int, inlet: int = 3) -> nn.Module:
        """The encoder of pictures of that size and so many channels."""
        if self.width < 1 or (self.width > 16 and self.width % 16):
            raise RobotRLError(f"the width of a ResNet must be at most 16 or a multiple of it, not {self.width}")
        if self.pretrained and self.width != 64:
            raise RobotRLError(f"pretrained weights are of the width 64, not {self.width}; leave one of the two out")
        require_size(height, width, 33)  # below, nothing is left of places at the last stage
        return Resnet(self, inlet)


class Resnet(nn.Module):
    """Pictures in, features out."""

    def __init__(self, config: ResnetConfig, inlet: int = 3) -> None:
        super().__init__()
        w = config.width
        self.pretrained = config.pretrained
        self.conv1, self.bn1 = nn.Conv2d(inlet, w, 7, 2, padding=3), group_norm(w)  # torchvision's names
        stages = [(w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 2)]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(Block(inlet, outlet, stride), Block(outlet, outlet, 1)) for inlet, outlet, stride in stages
        )
        self.outlet = nn.Sequential(SpatialSoftmax(), nn.Linear(16 * w, config.features))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, features)."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        return self.outlet(self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def start(self) -> None:
        """Take over the pretrained weights, where a file was named; raises where it does not fit."""
        if self.pretrained:
            self.load_state_dict(self.state_dict() | folded(Path(self.pretrained), self))


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inlet: int, outlet: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inlet, outlet, 3, stride, padding=1), group_norm(outlet)
        self.conv2, self.bn2 = nn.Conv2d(outlet, outlet, 3, padding=1), group_norm(outlet)
        straight = inlet == outlet and stride == 1
        self.downsample = (
            nn.Identity() if straight else nn.Sequential(nn.Conv2d(inlet, outlet, 1, stride), group_norm(outlet))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inlet, H, W) to (N, outlet, H / stride, W / stride)."""
        h = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.downsample(x) + self.bn2(self.conv2(h)))


def folded(path: Path, resnet: Resnet) -> dict[str, Tensor]:
    """The weights of all convolutions and normalisations of `resnet`, from torchvision's file at `path`."""
    file = sealed.read(path, sealed=False)
    weights: dict[str, Tensor] = {}
    for conv, norm in _pairs(resnet):
        shape = tuple(resnet.get_parameter(f"{conv}.weight").shape)
        channels, stored = shape[:1], (shape[0], 3, *shape[2:]) if conv == "conv1" else shape
        raw = _of_shape(path, file, f"{conv}.weight", stored)
        if shape != stored:
            raw = raw.sum(1, keepdim=True)  # depth is looked at as a grey picture
        mean, variance = (_of_shape(path, file, f"{norm}.running_{of}", channels) for of in ("mean", "var"))
        deviation = (variance + EPSILON).sqrt()
        weights[f"{conv}.weight"], weights[f"{conv}.bias"] = raw / deviation[:, None, None, None], -mean / deviation
        for part in ("weight", "bias"):
            weights[f"{norm}.{part}"] = _of_shape(path, file, f"{norm}.{part}", channels)
    return weights


def _pairs(resnet: Resnet) -> list[tuple[str, str]]:
    """Every convolution with the normalisation that follows it."""
    convs = [name for name, module in resnet.named_modules() if isinstance(module, nn.Conv2d)]
    return [(name, name[:-1] + "1" if "downsample" in name else name.replace("conv", "bn")) for name in convs]


def _of_shape(path: Path, file: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    found = file.get(name)
    if found is None or tuple(found.shape) != shape:
        there = "it has none" if found is None else f"it has {tuple(found.shape)}"
        raise RobotRLError(
            f"{path} does not hold the weights of a ResNet-18 as torchvision names them: '{name}' must be {shape}, "
            f"{there}. Save torchvision.models.resnet18(weights=...).state_dict() with torch.save"
        )
    if not torch.isfinite(found).all():
        raise RobotRLError(f"{path}: '{name}' holds NaN or infinity; download it again")
    return found.float()
