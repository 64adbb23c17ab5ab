"""A 1-D convolutional network."""

from itertools import pairwise

from torch import Tensor, nn

from mmcoop.core.models.encoders.base import Encoder
from mmcoop.errors import UsageError


class SeriesEncoder(Encoder):
    """Three strided 1-D convolutions, averaged over time, for series `(time, channels)`."""

    def __init__(self, shape: tuple[int, ...], channels: int = 64) -> None:
        super().__init__()
        if len(shape) != 2:
            raise UsageError(
                f"encoder 'conv1d' takes series (time, channels), not inputs of shape {shape}"
            )
        self.width = channels
        widths = (shape[1], channels, channels, channels)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv1d(before, after, 5, stride=2, padding=2, bias=False),
                    nn.BatchNorm1d(after),
                    nn.ReLU(),
                )
                for before, after in pairwise(widths)
            ),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x.transpose(1, 2))
        return features

    def tokens(self, x: Tensor) -> Tensor:
        by_time: Tensor = self.layers[:-2](x.transpose(1, 2))
        return by_time.transpose(1, 2)
