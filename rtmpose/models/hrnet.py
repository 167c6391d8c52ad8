"""HRNet, the backbone of the heatmap baseline (Sun et al., "Deep High-Resolution Representation Learning for
Human Pose Estimation", arXiv 1902.09212, section 3): maps of a quarter of the input's size are kept to the
end, beside three coarser ones, and all exchange what they know after every few blocks.

State-dict keys and shapes are those of the published weights (the authors' own, MMPose's and timm's, whose
classifier has no place here): `conv1`, `layer1.0.conv1`, `transition1.0.0`, `stage2.0.branches.0.0.conv1`,
`stage2.0.fuse_layers.0.1.0` and so on. Only the finest maps leave the network.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rtmpose.models.resnet import EXPANSION, Bottleneck

WIDTHS = {
    "hrnet_w32": 32,
    "hrnet_w48": 48,
}  # channels of the finest maps; the coarser ones have 2, 4, 8 times
MODULES = {2: 1, 3: 4, 4: 3}  # exchanges in each stage, which has as many branches as its number
BLOCKS = 4  # of each branch between two exchanges, and of the first stage
STEM = 64  # channels of the stem, and inside the first stage's blocks


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity shortcut (arXiv 1512.03385, figure 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + x, inplace=True)


def _coarser(inputs: int, outputs: int, steps: int) -> nn.Sequential:
    """Maps halved `steps` times; the last convolution changes the channels, and no ReLU follows it."""
    layers = []
    for step in range(steps):
        last = step == steps - 1
        channels = outputs if last else inputs
        parts: list[nn.Module] = [_conv3x3(inputs, channels, 2), nn.BatchNorm2d(channels)]
        layers.append(nn.Sequential(*parts, *([] if last else [nn.ReLU(inplace=True)])))
    return nn.Sequential(*layers)


def _finer(inputs: int, outputs: int, steps: int) -> nn.Sequential:
    """Maps doubled `steps` times, their channels changed by a 1x1 convolution before."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Upsample(scale_factor=2**steps, mode="nearest"),
    )


class Exchange(nn.Module):
    """Each branch's blocks, and then for each of the first `outputs` resolutions the sum of all branches
    brought to it (section 3, figure 3).
    """

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(BLOCKS))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._way(channels, source, target) for source in range(len(channels)))
            for target in range(outputs)
        )

    @staticmethod
    def _way(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        build, steps = (_finer, source - target) if source > target else (_coarser, target - source)
        return build(channels[source], channels[target], steps)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for ways in self.fuse_layers:
            assert isinstance(ways, nn.ModuleList)
            first, *others = [way(x) for way, x in zip(ways, maps, strict=True)]
            for other in others:
                first = first + other
            fused.append(F.relu(first))
        return fused


def _transition(before: tuple[int, ...], after: tuple[int, ...]) -> nn.ModuleList:
    """The way into a stage with one more branch: a branch whose channels change, and the new one, which comes
    from the coarsest before.
    """
    ways: list[nn.Module] = []
    for branch, width in enumerate(after):
        if branch >= len(before):
            new = nn.Sequential(_conv3x3(before[-1], width, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            ways.append(nn.Sequential(new))
        elif before[branch] != width:
            kept = (_conv3x3(before[branch], width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            ways.append(nn.Sequential(*kept))
        else:
            ways.append(nn.Identity())
    return nn.ModuleList(ways)


class HRNet(nn.Module):
    """(N, 3, H, W) normalised RGB -> (N, C, H/4, W/4), C = `channels` = 32 or 48, by its name in WIDTHS."""

    stride = 4

    def __init__(self, name: str) -> None:
        super().__init__()
        self.channels = WIDTHS[name]
        self.conv1 = _conv3x3(3, STEM, 2)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.conv2 = _conv3x3(STEM, STEM, 2)
        self.bn2 = nn.BatchNorm2d(STEM)
        wide = STEM * EXPANSION
        blocks = (Bottleneck(wide if block else STEM, STEM, 1) for block in range(BLOCKS))
        self.layer1 = nn.Sequential(*blocks)
        before: tuple[int, ...] = (wide,)
        for stage, modules in MODULES.items():
            after = tuple(self.channels * 2**branch for branch in range(stage))
            self.add_module(f"transition{stage - 1}", _transition(before, after))
            outputs = [1 if stage == max(MODULES) and last else stage for last in _marked(modules)]
            self.add_module(f"stage{stage}", nn.Sequential(*(Exchange(after, each) for each in outputs)))
            before = after
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        maps = [self.layer1(x)]
        for stage in MODULES:
            ways = self.get_submodule(f"transition{stage - 1}")
            assert isinstance(ways, nn.ModuleList)
            maps = [way(maps[min(branch, len(maps) - 1)]) for branch, way in enumerate(ways)]
            maps = self.get_submodule(f"stage{stage}")(maps)
        return maps[0]


def _marked(count: int) -> list[bool]:
    """Which of `count` things in a row is the last one."""
    return [number == count - 1 for number in range(count)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
