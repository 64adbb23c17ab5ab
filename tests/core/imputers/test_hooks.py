"""Named submodules where the features of one modality are."""

import pytest
import torch
from torch import nn

from mmcoop.core.imputers.adapters import calling_adapter
from mmcoop.core.imputers.hooks import check_submodules, features_at, hooked
from mmcoop.errors import DataError, UsageError


class Twice(nn.Module):
    """Two encoders, of which the second one is followed by a change in place, and a shared one."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.right = nn.Linear(2, 3)
        self.shared = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)
        self.summary = Summary()

    def forward(self, left, right):
        z = self.left(left)
        y = self.right(right)
        y.zero_()
        self.summary(y)
        return self.shared(z) + self.shared(y)


class Summary(nn.Module):
    """Gives a number of the batch, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = Total()
        self.nothing = Nothing()
        self.turned = Turned()

    def forward(self, x):
        self.nothing(x)
        self.turned(x)
        return self.total(x)


class Total(nn.Module):
    def forward(self, x):
        return x.sum()


class Nothing(nn.Module):
    def forward(self, x):
        return {"number": 3, "nothing": None}


class Turned(nn.Module):
    def forward(self, x):
        return (x, x.T)


def inputs_of(rows: int) -> dict:
    chance = torch.Generator().manual_seed(rows)
    return {m: torch.randn(rows, 2, generator=chance) for m in ("left", "right")}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Twice()


def call(model, places, rows=4):
    with hooked(model, places, rows, lambda modality, output: None):
        return model(**inputs_of(rows))


def test_features_are_those_of_evaluation_mode_before_what_comes_after(model):
    model.train()
    model.right.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [inputs_of(3), inputs_of(5)]
    places = {"left": "left", "right": "right"}
    found = list(features_at(model, places, iter(batches), calling_adapter(model, list(places))))
    assert [rows for rows, _ in found] == [3, 5]
    assert {module.training for module in (model, model.left, model.left[1])} == {True}
    assert not model.right.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()
    for (_, features), inputs in zip(found, batches, strict=True):
        assert torch.equal(features["left"], model.left(inputs["left"]))
        assert torch.equal(features["right"], model.right(inputs["right"]))
        assert not features["left"].requires_grad


def test_outputs_are_replaced_in_the_block_and_nowhere_else(model):
    model.eval()
    inputs = inputs_of(4)
    expected = model(**inputs)
    with hooked(model, {"left": "left"}, 4, lambda modality, output: torch.zeros_like(output)):
        replaced = model(**inputs)
    torch.testing.assert_close(replaced, (2 * model.shared.bias).expand(4, 3))
    assert torch.equal(model(**inputs), expected)
    assert torch.equal(call(model, {"left": "left"}), expected)  # None: as it is


def test_hooks_are_gone_after_an_error(model):
    with pytest.raises(DataError, match="samples first"):
        call(model, {"left": "left", "right": "summary.total"})
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "summary.total",
            r"^the place 'summary.total' of the modality 'x' gives a tensor of shape \(\) for 4 "
            "rows: name a submodule whose output has samples first$",
        ),
        ("summary.turned", r"gives a tensor of shape \(3, 4\) for 4 rows"),
        (
            "summary.nothing",
            "^the place 'summary.nothing' of the modality 'x' gives no tensor: name a submodule "
            "that gives features$",
        ),
        ("shared", "^the place 'shared' of the modality 'x' is reached twice in one call"),
        ("unused", "^the place 'unused' of the modality 'x' is not reached when the model is"),
    ],
)
def test_a_place_without_features_is_refused(model, place, message):
    with pytest.raises(DataError, match=message):
        call(model, {"x": place})


def test_an_unknown_place_is_refused_with_near_names(model):
    with pytest.raises(
        UsageError,
        match="^the model has no submodule 'summary.totals' for the modality 'x'; near names: "
        "summary.total, summary",
    ):
        check_submodules(model, {"x": "summary.totals"})
    for far in ("", "9"):
        with pytest.raises(UsageError, match=r"'x'; model.named_modules\(\) lists them$"):
            check_submodules(model, {"x": far})


def test_two_modalities_at_one_place_are_refused(model):
    check_submodules(model, {"left": "left", "right": "right"})
    with pytest.raises(
        UsageError, match="^each modality needs a place of its own: a at left, b at left$"
    ):
        check_submodules(model, {"a": "left", "b": "left"})
