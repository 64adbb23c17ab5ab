"""Weights of a user's model: from files of either kind, under whatever names wrappers give them."""

import pickle

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmcoop.errors import DataError
from mmcoop.weights import load_weights


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.ear, self.eye = nn.Linear(4, 3), nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.last.weight = self.first.weight


class Lightning(nn.Module):
    """Has the model as an attribute, as training frameworks have."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.model = net


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")


def compiled_part(net: Net) -> Net:
    net.ear = torch.compile(net.ear, backend="eager")
    return net


WRAPS = {
    "bare": lambda net: net,
    "DataParallel": nn.DataParallel,
    "compiled": compiled,
    "both": lambda net: compiled(nn.DataParallel(net)),
    "averaged": AveragedModel,
    "a part compiled": compiled_part,
}
INTO = ["bare", "DataParallel", "compiled", "averaged"]
SAVED = [*WRAPS, "framework"]
# the kind of file and what the model is wrapped in have nothing to do with each other
FITS = [
    *((saved, "safetensors", into) for saved in SAVED for into in INTO),
    *(("compiled", kind, "bare") for kind in ("torch", "old torch", "checkpoint")),
]


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())[-len(Net().state_dict()) :]


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, weights_of(model), weights_of(other)))


@pytest.mark.parametrize(("saved", "kind", "into"), FITS)
def test_weights_fit_whatever_wrapped_the_model(tmp_path, saved, kind, into):
    source = Net(seed=1)
    wrapped = Lightning(source) if saved == "framework" else WRAPS[saved](source)
    state, path = wrapped.state_dict(), tmp_path / "weights"
    if kind == "safetensors":
        save_file({name: x.clone() for name, x in state.items()}, path)
    elif kind == "checkpoint":
        torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch")
    model = WRAPS[into](Net())
    load_weights(model, path)
    assert same(model, source)


@pytest.mark.parametrize("form", ["one name", "the other name", "both names"])
def test_weights_that_a_model_shares_may_have_one_name_in_the_file(tmp_path, form):
    path = tmp_path / "w.safetensors"
    weight = torch.arange(9.0).view(3, 3)
    named = {"first.weight": weight, "last.weight": weight.clone()}
    if form == "one name":
        other = Tied()
        other.load_state_dict(named)
        save_model(other, path)  # keeps one of the two
    else:
        save_file({"last.weight": weight} if form == "the other name" else named, path)
    model = Tied()
    load_weights(model, path)
    assert torch.equal(model.first.weight, weight)
    assert model.last.weight is model.first.weight


def test_a_part_that_is_called_as_wrappers_are_is_no_wrapper(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.module = nn.Parameter(torch.ones(1)), nn.Linear(1, 1)

    state = {
        "weight": torch.zeros(1),
        "module.weight": torch.ones(1, 1),
        "module.bias": torch.ones(1),
    }
    torch.save(state, tmp_path / "w.pt")
    model = Two()
    load_weights(model, tmp_path / "w.pt")
    assert model.weight.item() == 0
    assert model.module.bias.item() == 1
    del state["weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DataError, match="'weight' is missing"):
        load_weights(model, tmp_path / "w.pt")


def test_of_several_states_the_one_that_fits_is_taken_and_two_are_refused(tmp_path):
    path, source = tmp_path / "w.ckpt", Net(seed=1)
    torch.save({"model": source.state_dict(), "head": Tied().state_dict()}, path)
    model = Net()
    load_weights(model, path)
    assert same(model, source)
    torch.save({"model": source.state_dict(), "ema": Net(seed=2).state_dict()}, path)
    with pytest.raises(DataError, match="several states that fit the model, model, ema"):
        load_weights(model, path)


@pytest.mark.parametrize("save", [save_file, torch.save])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("eye.bias"), "'eye.bias' is missing from it"),
        (lambda w: w.update(nose=torch.ones(1)), "'nose' is in it alone"),
        (
            lambda w: w.update({"ear.weight": torch.ones(9, 4)}),
            r"'ear.weight' has shape \(9, 4\) there, \(3, 4\) in the model",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, save, prefix, change, message):
    path, model = tmp_path / "w", Net()
    state = Net(seed=1).state_dict()
    change(state)
    save({prefix + name: x for name, x in state.items()}, path)
    with pytest.raises(DataError, match=f"^{path} is of another model: {message}$"):
        load_weights(model, path)
    assert same(model, Net())


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut short", "folder", "no weights"])
def test_what_holds_no_weights_is_refused(tmp_path, kind):
    path = tmp_path / "w"
    if kind == "empty":
        path.touch()
    if kind == "text":
        path.write_text("weights " * 100)
    if kind == "cut short":
        save_file(Net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-4])
    if kind == "folder":
        path.mkdir()
    if kind == "no weights":
        torch.save({"epoch": 3}, path)
    with pytest.raises(DataError, match=f"^{path} (cannot be read|holds no weights)"):
        load_weights(Net(), path)


class Runs:
    def __reduce__(self):
        return (pytest.fail, ("code was run",))


@pytest.mark.parametrize("content", [Net(), {"state_dict": Net().state_dict(), "hook": Runs()}])
def test_a_file_that_would_run_code_is_not_opened(tmp_path, content):
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with pytest.raises(DataError, match="holds more than tensors"):
        load_weights(Net(), path)
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(DataError, match="holds more than tensors"):
        load_weights(Net(), path)


@pytest.mark.parametrize("at", [4, 100, 0.3, 0.7, -30])
def test_a_damaged_file_is_refused(tmp_path, at):
    path = tmp_path / "w.pt"
    for zipped in (True, False):
        torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        place = int(at * len(content)) if isinstance(at, float) else at
        for damaged in (content[:place], content[:place] + b"?" * 20 + content[place:]):
            path.write_bytes(damaged)
            try:
                load_weights(Net(), path)
            except DataError:
                continue  # what a change does not reach may be read
