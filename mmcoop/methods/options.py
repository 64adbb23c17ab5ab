"""The options of each method: names, types and defaults; loads without torch.

An option without a default must be given. What an option does, the class of the method says.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class UnimodalOptions:
    modality: str


@dataclass(frozen=True)
class ModalityLevelOptions:
    fraction: float = 0.2
    rule: str = "linear"
    alpha: float = 1.0


@dataclass(frozen=True)
class UniformOptions:
    weight: float = 1.0


@dataclass(frozen=True)
class OGMOptions:
    alpha: float = 0.3
    until: int = 51


@dataclass(frozen=True)
class OGMGEOptions(OGMOptions):
    noise: float = 1.0


@dataclass(frozen=True)
class GreedyOptions:
    epsilon: float = 0.01
    steps: int = 5
    start: int = 1


@dataclass(frozen=True)
class PMROptions:
    alpha: float = 1.0
    momentum: float = 0.2
    fraction: float = 0.1
    rule: str = "clip"
    until: int = 101


@dataclass(frozen=True)
class GBlendingOptions:
    estimate: int = 10
    every: int = 0


@dataclass(frozen=True)
class AGMOptions:
    alpha: float = 1.0
    cap: float = 10.0
    clip: float = 1.0
    until: int = 21


#: By method; those that are not here have no options.
OPTIONS: dict[str, type] = {
    "unimodal": UnimodalOptions,
    "modality": ModalityLevelOptions,
    "uniform": UniformOptions,
    "ogm": OGMOptions,
    "ogm-ge": OGMGEOptions,
    "greedy": GreedyOptions,
    "pmr": PMROptions,
    "g-blending": GBlendingOptions,
    "agm": AGMOptions,
}
