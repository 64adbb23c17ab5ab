"""How a model is called, whatever it is wrapped in."""

import copy
from functools import partial, wraps

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmcoop import replace_inputs, valuate
from mmcoop.core.imputers.adapters import (
    calling_adapter,
    check_callable,
    parameters_of,
    takes_present,
)
from mmcoop.errors import DataError, UsageError

NAMES = ["audio", "visual"]
INPUTS = {"audio": torch.ones(2, 3), "visual": torch.zeros(2, 4)}


class ByName(nn.Module):
    def forward(self, visual, audio, scale=1.0):
        return ("by name", audio, visual)


class AllTogether(nn.Module):
    def forward(self, inputs):
        return ("together", inputs["audio"], inputs["visual"])


def keywords(*, audio, visual):
    return ("by name", audio, visual)


def any_names(**inputs):
    return ("by name", inputs["audio"], inputs["visual"])


def by_position(visual, audio=None, /):
    return ("by name", audio, visual)


def mixed(visual, /, audio):
    return ("by name", audio, visual)


def anything(inputs, **more):
    return ("together", inputs["audio"], inputs["visual"])


@wraps(keywords)
def decorated(*args, **kwargs):
    return keywords(*args, **kwargs)


class Method:
    def __call__(self, inputs):
        return ("together", inputs["audio"], inputs["visual"])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ByName(), "by name"),
        (ByName().forward, "by name"),
        (partial(ByName(), scale=2.0), "by name"),
        (keywords, "by name"),
        (any_names, "by name"),
        (by_position, "by name"),
        (mixed, "by name"),
        (decorated, "by name"),
        (AllTogether(), "together"),
        (nn.DataParallel(AllTogether()), "together"),
        (Method(), "together"),
        (anything, "together"),
    ],
)
def test_inputs_go_to_parameters_of_their_names_or_together(model, expected):
    way, audio, visual = calling_adapter(model, NAMES)(model, INPUTS)
    assert way == expected
    assert audio is INPUTS["audio"]
    assert visual is INPUTS["visual"]


def test_a_callable_without_a_signature_gets_the_inputs_together():
    assert calling_adapter(dict, NAMES)(dict, INPUTS) == INPUTS


class OtherNames(nn.Module):
    def forward(self, spec, image):
        return spec


class Mask(nn.Module):
    def forward(self, audio, visual, mask):
        return audio


class Nothing(nn.Module):
    def forward(self):
        return None


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (OtherNames(), "OtherNames takes spec, image"),
        (nn.DataParallel(OtherNames()), "takes spec, image"),
        (Mask(), "Mask takes audio, visual, mask"),
        (Nothing(), "Nothing takes nothing"),
        (lambda audio, other=None: audio, "takes audio by name, and has no parameter visual"),
        (lambda *args, **kwargs: args, "which may be anything"),
        (lambda *inputs: inputs, "which may be anything"),
    ],
)
def test_a_model_that_can_be_called_in_no_certain_way_is_refused_with_the_choice(model, named):
    with pytest.raises(UsageError, match=rf"{named}.*give call=lambda model, inputs"):
        calling_adapter(model, NAMES)


@pytest.mark.parametrize("model", [{"audio": 1}, "mine:make", None, torch.ones(2), ByName])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(UsageError, match="^the model is "):
        check_callable(model)


# --- wrapped models give what the bare model gives


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ear, self.eye, self.drop = nn.Linear(3, 3), nn.Linear(5, 3), nn.Dropout(0.5)

    def forward(self, audio, visual):
        return self.drop(self.ear(audio) + self.eye(visual))


class Adapter(nn.Module):
    """As adapters of pretrained models are: layers of their own beside the model, and any input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model, self.scale = model, nn.Identity()

    def forward(self, *args, **kwargs):
        return self.scale(self.base_model(*args, **kwargs))


def replaced_forward(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    inner = net.forward
    net.forward = lambda *args, **kwargs: inner(*args, **kwargs)
    return net


def exported(net: nn.Module, *names: str) -> nn.Module:
    example = {"audio": torch.ones(2, 3), "visual": torch.ones(2, 5)}
    rows = {m: {0: torch.export.Dim("rows")} for m in example}
    args = tuple(x for m, x in example.items() if m not in names)
    kwargs = {m: example[m] for m in names}
    net = net.eval()
    return torch.export.export(net, args, kwargs, dynamic_shapes=rows).module()


EXAMPLE = (torch.ones(2, 3), torch.ones(2, 5))
WAYS = {
    "DataParallel": nn.DataParallel,
    "compile": lambda net: torch.compile(net, backend="eager"),
    "compile of DataParallel": lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
    "adapter": Adapter,
    "adapter of an adapter": lambda net: Adapter(Adapter(net)),
    "AveragedModel": AveragedModel,
    "replaced forward": replaced_forward,
    "partial": partial,
    "bound method": lambda net: net.forward,
    "script": torch.jit.script,
    "trace": lambda net: torch.jit.trace(net.eval(), EXAMPLE),
    "export": exported,
    "export by keyword": lambda net: exported(net, "audio", "visual"),
    "export, one by keyword": lambda net: exported(net, "visual"),
}


def phi(model) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    inputs = {"audio": torch.randn(8, 3, generator=g), "visual": torch.randn(8, 5, generator=g)}
    batch = {"inputs": inputs, "labels": torch.arange(8) % 3}
    wrapped = replace_inputs(model, NAMES)
    return valuate(wrapped, [batch], modalities=NAMES, value="probability").contributions


@pytest.mark.parametrize("way", list(WAYS))
def test_a_wrapped_model_gives_what_it_gives_alone(way):
    net = Net()
    expected = phi(net)
    wrapped = WAYS[way](net.train())
    torch.testing.assert_close(phi(wrapped), expected, atol=1e-5, rtol=1e-5)


def test_an_exported_program_for_one_number_of_rows_is_refused_with_what_to_do():
    program = torch.export.export(Net().eval(), (torch.ones(8, 3), torch.ones(8, 5))).module()
    with pytest.raises(DataError, match="dynamic_shapes"):
        phi(program)


class WithPresent(nn.Module):
    def forward(self, inputs, present=None):
        return inputs["audio"] * present[:, :1]


def test_present_is_seen_through_wrappers():
    for wrap in (lambda m: m, nn.DataParallel, Adapter, partial, AveragedModel):
        assert takes_present(wrap(WithPresent()))
        assert not takes_present(wrap(Net()))
        with pytest.raises(UsageError, match="by name and no `present`"):
            valuate(wrap(Net()), [], modalities=NAMES)
    with pytest.raises(UsageError, match=r"<lambda> takes \(inputs\) and no `present`"):
        valuate(lambda inputs: inputs, [], modalities=NAMES)
    assert not takes_present(torch.relu)
    assert parameters_of(torch.relu) is None
