"""Tasks whose answers are known, learnt by small models, and valued: synergy, redundancy, nothing.

The label is told by the modalities `a` and `b` in a way that is planted; `c` is noise. Models are
trained with modalities left out, so that zeros are what they know as absence.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmcoop import replace_inputs, valuate
from mmcoop.core.games.interactions import shapley_interactions
from mmcoop.core.games.metrics import intershap
from mmcoop.scores.scores import Scores

NAMES = ("a", "b", "c")
TRAINING, TEST = 1500, 250

Task = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Small(nn.Module):
    """Two layers over all modalities side by side."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, outputs)
        )

    def forward(self, inputs):
        return self.layers(torch.cat([inputs[m] for m in NAMES], dim=1))


def trained(outputs: int, inputs, targets, loss, left_out: float) -> Small:
    """Plain training on all samples at once, each modality left out of a share of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small(outputs)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(400):
            kept = {m: (torch.rand(len(x), 1) >= left_out) * x for m, x in inputs.items()}
            optimizer.zero_grad()
            loss(model(kept), targets).backward()
            optimizer.step()
    return model.eval()


def signs(samples: int, g: torch.Generator) -> torch.Tensor:
    return torch.randint(2, (samples,), generator=g)


def seen(sign: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """What shows a sign, `(samples, 2)`: it is told nearly without doubt."""
    return (2.0 * sign - 1).unsqueeze(1) + 0.3 * torch.randn(len(sign), 2, generator=g)


def samples_of(task: str, size: int, seed: int):
    g = torch.Generator().manual_seed(seed)
    one, other = signs(size, g), signs(size, g)
    labels = one ^ other if task == "xor" else one
    b = {"xor": other, "copies": one, "alone": other}[task]
    return {"a": seen(one, g), "b": seen(b, g), "c": seen(signs(size, g), g)}, labels


@pytest.fixture(scope="module")
def values():
    """The valuation of test samples of a task, absence being represented in a way."""
    models, found = {}, {}

    def value(task: str, absent: str) -> Scores:
        training, labels = samples_of(task, TRAINING, 1)
        if task not in models:
            models[task] = trained(2, training, labels, F.cross_entropy, left_out=0.3)
        if (task, absent) not in found:
            inputs, truth = samples_of(task, TEST, 2)
            background = None if absent == "zero" else training
            model = replace_inputs(models[task], NAMES, absent, background=background, draws=100)
            batch = {"inputs": inputs, "labels": truth}
            found[task, absent] = valuate(model, [batch], modalities=NAMES, value="probability")
        return found[task, absent]

    return value


BOTH = pytest.mark.parametrize("absent", ["zero", "marginal"])


def interaction(valuation: Scores, i: int, j: int) -> torch.Tensor:
    return shapley_interactions(valuation.values)[:, i, j]


@BOTH
@pytest.mark.parametrize("task", ["xor", "copies", "alone"])
def test_the_models_have_learnt_their_tasks(values, task, absent):
    valuation = values(task, absent)
    assert (valuation.predictions == valuation.labels).double().mean() > 0.95
    assert valuation.values[:, -1].mean() > 0.9
    # of nothing, either label is as likely
    assert valuation.values[:, 0].mean() == pytest.approx(0.5, abs=0.07)


@BOTH
def test_what_only_two_modalities_tell_together_is_synergy_of_the_two(values, absent):
    valuation = values("xor", absent)
    base, a, b, both = valuation.values[:, [0, 1, 2, 3]].mean(0).tolist()
    assert a - base == pytest.approx(0, abs=0.07)
    assert b - base == pytest.approx(0, abs=0.07)
    assert both - base > 0.4
    # all of it is interaction, and the two share it equally
    pair = interaction(valuation, 0, 1)
    assert pair.mean() > 0.4
    assert (pair > 0.2).double().mean() > 0.95
    phi = valuation.contributions.mean(0)
    assert phi[:2].tolist() == pytest.approx([0.25, 0.25], abs=0.06)
    for other in (0, 1):
        assert interaction(valuation, other, 2).abs().mean() < 0.2 * pair.mean()


def test_what_either_of_two_modalities_tells_alone_is_redundancy(values):
    valuation = values("copies", "zero")
    base, a, b, both = valuation.values[:, [0, 1, 2, 3]].mean(0).tolist()
    assert min(a, b) > 0.9
    assert both - base > 0.4
    pair = interaction(valuation, 0, 1)
    assert pair.mean() < -0.4
    assert (pair < -0.2).double().mean() > 0.95
    assert valuation.contributions.mean(0)[:2].tolist() == pytest.approx([0.25, 0.25], abs=0.06)


def test_copies_torn_apart_do_not_look_redundant(values):
    # with another sample's copy beside it, a modality is contradicted as often as not:
    # v(a) + v(b) = 1/2 (1 + 1) + 1/2 (p + 1 − p), whatever the model believes then
    valuation = values("copies", "marginal")
    pair = interaction(valuation, 0, 1)
    assert pair.mean() == pytest.approx(0, abs=0.1)


@BOTH
def test_a_modality_that_tells_all_has_all_and_nothing_interacts(values, absent):
    valuation = values("alone", absent)
    assert valuation.contributions.mean(0).tolist() == pytest.approx([0.5, 0, 0], abs=0.06)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert interaction(valuation, i, j).abs().mean() < 0.1


@BOTH
@pytest.mark.parametrize("task", ["xor", "copies", "alone"])
def test_noise_contributes_nothing_to_any_sample_and_interacts_with_nothing(values, task, absent):
    valuation = values(task, absent)
    assert valuation.contributions[:, 2].abs().mean() < 0.06
    assert valuation.contributions[:, 2].mean().abs() < 0.02
    for other in (0, 1):
        assert interaction(valuation, other, 2).abs().mean() < 0.1


@BOTH
def test_intershap_is_near_1_for_xor_and_a_third_for_copies_and_near_0_for_one_alone(
    values, absent
):
    score = {task: intershap(values(task, absent).values) for task in ("xor", "copies", "alone")}
    assert score["xor"].score > 0.85
    assert score["xor"].local_mean > 0.65
    assert score["alone"].score < 0.1
    if absent == "zero":
        # φ_ab = −1/4 twice, φ_aa = φ_bb = 1/2
        assert score["copies"].score == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [(lambda a, b: a + b, 0.0, 0.15), (lambda a, b: a * b, 0.8, 1.0)],
    ids=["sum", "product"],
)
def test_intershap_of_a_regressions_prediction_is_near_0_for_a_sum_and_near_1_for_a_product(
    target, low, high
):
    g = torch.Generator().manual_seed(3)

    def make(size):
        inputs = {m: torch.randn(size, 2, generator=g) for m in NAMES}
        return inputs, target(inputs["a"][:, 0], inputs["b"][:, 0])

    def prediction(outputs, targets, sizes):
        return outputs[:, 0]

    (training, numbers), (inputs, truth) = make(TRAINING), make(TEST)
    fitted = trained(1, training, numbers.unsqueeze(1), F.mse_loss, left_out=0.0)
    error = fitted(inputs)[:, 0] - truth
    assert error.square().mean() < 0.1 * truth.var()
    model = replace_inputs(
        fitted, NAMES, "marginal", background=training, draws=100, task="regression"
    )
    batch = {"inputs": inputs, "labels": truth}
    valuation = valuate(model, [batch], modalities=NAMES, value=prediction)
    # of a number near 0 little but the error of the fit is left
    telling = truth.abs() > 0.5
    assert low <= intershap(valuation.values[telling]).local_mean <= high
