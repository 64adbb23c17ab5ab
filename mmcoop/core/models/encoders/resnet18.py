"""ResNet-18."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from mmcoop.core.models.encoders.base import (
    Encoder,
    Stages,
    averaged_over_frames,
    image_channels,
    places,
)


class ResNet18Encoder(Encoder):
    """torchvision's ResNet-18 from scratch, without its classifier: 512 features.

    Images `(C, H, W)` or frames `(F, C, H, W)` of any number of channels (1 for a spectrogram,
    2 for optical flow, 3 for RGB); features are averaged over frames. Runs channels-last,
    which is the faster layout for its convolutions on CPU and GPU.
    """

    width = 512

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = resnet18(weights=None)
        self.layers.fc = nn.Identity()
        channels = image_channels("resnet18", shape)
        if channels != 3:
            self.layers.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.layers.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.layers.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return averaged_over_frames(self.layers, x)

    def tokens(self, x: Tensor) -> Tensor:
        return places(self.stages().blocks, x)

    def stages(self) -> Stages:
        net = self.layers
        first = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
        return Stages([first, net.layer2, net.layer3, net.layer4], [64, 128, 256, 512])
