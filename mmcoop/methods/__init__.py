"""Training methods, one file each: what an epoch trains on, and with which loss."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from mmcoop.errors import UsageError
from mmcoop.methods.options import OPTIONS
from mmcoop.registry import Entry, Registry

METHODS = Registry(
    "method",
    {
        "joint": Entry(
            "mmcoop.methods.joint", "Joint", "every sample with all modalities, one loss"
        ),
        "unimodal": Entry("mmcoop.methods.unimodal", "Unimodal", "a single modality (--modality)"),
        "sample": Entry(
            "mmcoop.methods.sample",
            "SampleLevel",
            "sample-level enhancement",
            "Wei et al., CVPR 2024",
        ),
        "modality": Entry(
            "mmcoop.methods.modality",
            "ModalityLevel",
            "modality-level enhancement",
            "Wei et al., CVPR 2024",
        ),
        "uniform": Entry(
            "mmcoop.methods.uniform",
            "Uniform",
            "joint loss plus an equal loss per modality",
            "control",
        ),
        "ensemble": Entry(
            "mmcoop.methods.ensemble",
            "Ensemble",
            "average of unimodal models (--fusion late)",
            "control",
        ),
        "random": Entry(
            "mmcoop.methods.random",
            "Random",
            "as many extra examples as sample, at random",
            "control",
        ),
        "ogm": Entry(
            "mmcoop.methods.ogm",
            "OGM",
            "slows the encoder of the stronger modality",
            "Peng et al., CVPR 2022",
        ),
        "ogm-ge": Entry(
            "mmcoop.methods.ogm",
            "OGMGE",
            "ogm with noise on the gradients",
            "Peng et al., CVPR 2022",
        ),
        "greedy": Entry(
            "mmcoop.methods.greedy",
            "Greedy",
            "re-balances the slower branch (--fusion mmtm)",
            "Wu et al., ICML 2022",
        ),
        "pmr": Entry(
            "mmcoop.methods.pmr",
            "PMR",
            "pulls the weaker modality to class prototypes",
            "Fan et al., CVPR 2023",
        ),
        "g-blending": Entry(
            "mmcoop.methods.g_blending",
            "GBlending",
            "weights losses by how little they overfit",
            "Wang et al., CVPR 2020",
        ),
        "agm": Entry(
            "mmcoop.methods.agm",
            "AGM",
            "scales each modality's share of the logits",
            "Li et al., ICCV 2023",
        ),
    },
)

#: The methods that `mmcoop enhance` fine-tunes with.
LEVELS = ("sample", "modality")


def method_options(method: str) -> dict[str, Field[Any]]:
    """The options of a method by name, each with its type and default."""
    declared = OPTIONS.get(METHODS.check(method))
    return {option.name: option for option in fields(declared)} if declared else {}


def checked_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method: the given ones, as the types they have there, and the defaults.

    Raises `UsageError` for an option the method does not have, one that is missing, and one that
    cannot be read as its type.
    """
    legal = method_options(method)
    for name in given:
        if name not in legal:
            listed = ", ".join(legal) or "none"
            raise UsageError(f"method {method!r} has no option {name!r}; its options: {listed}")
    options = {}
    for name, option in legal.items():
        if name in given:
            kind: Any = option.type
            try:
                options[name] = kind(given[name])
            except (ValueError, TypeError):
                raise UsageError(
                    f"option {name!r} of method {method!r} must be {kind.__name__}, "
                    f"not {given[name]!r}"
                ) from None
        elif option.default is MISSING:
            raise UsageError(f"method {method!r} needs the option {name!r}")
        else:
            options[name] = option.default
    return options
