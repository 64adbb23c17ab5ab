"""A small convolutional network."""

from torch import Tensor, nn

from mmcoop.core.models.encoders.base import (
    Encoder,
    Stages,
    averaged_over_frames,
    image_channels,
    places,
)


class ConvEncoder(Encoder):
    """Three convolutions with pooling between them, averaged over positions.

    Images `(C, H, W)` or frames `(F, C, H, W)`, of 28-64 pixels; features are averaged over
    frames. There is no normalisation, so a sample's features do not depend on which rows share its
    batch.
    """

    def __init__(self, shape: tuple[int, ...], channels: int = 32) -> None:
        super().__init__()
        in_channels = image_channels("conv", shape)
        self.width = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels // 2, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return averaged_over_frames(self.layers, x)

    def tokens(self, x: Tensor) -> Tensor:
        return places([self.layers[:8]], x)

    def stages(self) -> Stages:
        blocks = [self.layers[:3], self.layers[3:6], self.layers[6:8]]
        return Stages(blocks, [self.width // 4, self.width // 2, self.width])
