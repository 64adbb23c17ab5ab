"""Evaluation mode, for modules however they are called."""

from functools import partial

import pytest
import torch
from torch import nn

from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.errors import DataError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.drop(x))


def modes(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


@pytest.mark.parametrize(
    "call",
    [
        lambda net: net,
        partial,
        lambda net: partial(partial(net.forward)),
        lambda net: net.forward,
        nn.DataParallel,
        lambda net: torch.compile(net, backend="eager"),
    ],
)
def test_the_module_inside_evaluates_and_comes_back_as_it_was(call):
    net = Net().train()
    net.norm.eval()
    with evaluation_mode(call(net)):
        assert modes(net) == [False] * 3
    assert modes(net) == [True, True, False]


def test_it_comes_back_after_an_error_and_other_callables_have_no_mode():
    net = Net().train()
    with pytest.raises(LookupError), evaluation_mode(net):
        raise LookupError
    assert modes(net) == [True] * 3
    with evaluation_mode(print):
        pass


def test_an_exported_program_is_used_in_the_mode_it_was_exported_in():
    x = (torch.ones(4, 3),)
    evaluating = torch.export.export(Net().eval(), x).module()
    with evaluation_mode(evaluating):
        assert torch.equal(evaluating(*x), evaluating(*x))
    for wrap in (lambda m: m, nn.Sequential):
        training = wrap(torch.export.export(Net().train(), x).module())
        with (
            pytest.raises(DataError, match="in training mode: call model.eval"),
            evaluation_mode(training),
        ):
            pass
