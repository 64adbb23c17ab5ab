"""Every method with every fusion, on real runs: trained, cut off, resumed, valued."""

import pytest
import torch
from safetensors.torch import load_file

from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import Interrupted, UsageError
from mmcoop.methods import METHODS
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.training.config import make_config
from mmcoop.training.evaluation import value_run
from mmcoop.training.train import resume, train

#: The fusions a method is not defined on, as docs/methods.md has them.
REFUSED = {
    "ensemble": set(FUSIONS) - {"late"},
    "greedy": set(FUSIONS) - {"mmtm", "mmtm-2x"},
    "ogm": set(FUSIONS) - {"concat", "sum", "late", "mmtm", "mmtm-2x"},
    "ogm-ge": set(FUSIONS) - {"concat", "sum", "late", "mmtm", "mmtm-2x"},
    "pmr": {"mmtm", "mmtm-2x", "bottleneck"},
    "uniform": {"bottleneck"},
    "g-blending": {"bottleneck"},
}
#: What a method cannot be trained without, and what makes it take part in both epochs.
OPTIONS = {
    "unimodal": {"modality": "ear"},
    "g-blending": {"estimate": 1, "every": 1},
    "greedy": {"epsilon": 0.0, "steps": 2, "start": 0},
}
SETTINGS = {"epochs": 2, "warmup": 0, "batch_size": 4, "lr": 0.003}
#: Methods that look into the fusion: each is tried with every fusion, as joint training is.
LOOK_INSIDE = {"joint", "ogm", "ogm-ge", "greedy", "pmr", "g-blending", "agm", "uniform"}
CASES = [
    (m, f, n)
    for m in METHODS
    for f in (FUSIONS if m in LOOK_INSIDE else ("concat", "late"))
    for n in ((2, 3) if f == "concat" or (m, f) == ("greedy", "mmtm") else (2,))
    if f not in REFUSED.get(m, ())
]


class StopAfter(Progress):
    """Ctrl-C as soon as so many epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def note(self, text: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def weights_of(run):
    return load_file(run.last / "model.safetensors")


def assert_same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


@pytest.mark.parametrize(("method", "fusion", "n"), CASES)
def test_it_trains_resumes_bit_for_bit_and_is_valued(tmp_path, pictures, method, fusion, n):
    options = {"method": method, "fusion": fusion, "options": OPTIONS.get(method, {})}
    config = make_config(SETTINGS, options)
    whole = train(tmp_path / "whole", pictures[n], config)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", pictures[n], config, runtime=Runtime(progress=StopAfter(1)))
    cut = resume(tmp_path / "cut", pictures[n])
    assert_same_weights(whole, cut)
    names = [c for c in whole.metrics if c not in ("seconds", "peak_memory")]
    assert whole.metrics[names].equals(cut.metrics[names])

    start = whole.architecture.build(config.seed).state_dict()
    trained = weights_of(whole)
    assert any(not torch.equal(weight, trained[name]) for name, weight in start.items())
    batches = list(value_run(whole, pictures[n], "test"))
    assert sum(len(batch.labels) for batch in batches) == 4
    for batch in batches:
        assert batch.outputs.isfinite().all()
        torch.testing.assert_close(batch.contributions.sum(1), batch.values[:, -1])


@pytest.mark.parametrize(
    ("method", "fusion"), [(m, f) for m, fusions in REFUSED.items() for f in sorted(fusions)]
)
def test_a_fusion_without_what_a_method_needs_is_refused_before_anything_is_written(
    tmp_path, pictures, method, fusion
):
    config = make_config(SETTINGS, {"method": method, "fusion": fusion})
    with pytest.raises(UsageError, match=f"method '{method}' .*fusion"):
        train(tmp_path / "run", pictures[2], config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("uniform", {"weight": 0.0}),
        ("ogm", {"alpha": 0.0}),
        ("ogm-ge", {"alpha": 0.0, "noise": 0.0}),
        ("pmr", {"alpha": 0.0}),
        ("modality", {"alpha": 0.0}),
        ("agm", {"alpha": 0.0, "clip": 0.0}),
    ],
)
@pytest.mark.parametrize("n", [2, 3])
def test_with_strength_zero_it_is_joint_training_weight_for_weight(
    tmp_path, pictures, method, options, n
):
    joint = train(tmp_path / "joint", pictures[n], make_config(SETTINGS, {"method": "joint"}))
    config = make_config(SETTINGS, {"method": method, "options": options})
    run = train(tmp_path / "run", pictures[n], config)
    one, other = weights_of(joint), weights_of(run)
    for name, weight in one.items():
        # agm adds up shares of the logits, so that sums are rounded in another order
        tolerance = {"rtol": 1e-3, "atol": 1e-4} if method == "agm" else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(weight, other[name], **tolerance, msg=name)
