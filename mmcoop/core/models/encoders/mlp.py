"""A multilayer perceptron."""

from torch import Tensor, nn

from mmcoop.core.models.encoders.base import Encoder
from mmcoop.errors import UsageError


class MLPEncoder(Encoder):
    """Two hidden layers with layer normalisation, for vectors `(d,)`."""

    width = 128

    def __init__(self, shape: tuple[int, ...], hidden: int = 128) -> None:
        super().__init__()
        if len(shape) != 1:
            raise UsageError(f"encoder 'mlp' takes vectors (d,), not inputs of shape {shape}")
        self.width = hidden
        self.layers = nn.Sequential(
            nn.Linear(shape[0], hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features
