"""A model of one's own: found, given its weights, and made to do without a modality."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmcoop.core.models.encoders import ENCODERS
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.core.models.model import MultimodalModel
from mmcoop.errors import UsageError
from mmcoop.scores.user_model import ImputerSpec, load_own_model

MODULE = """
from functools import partial

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        torch.manual_seed(7)
        self.ear, self.eye = nn.Linear(4, width), nn.Linear(2, width)

    def forward(self, ear, eye):
        return self.ear(ear) + self.eye(eye)


class Wide(nn.Module):
    def __init__(self, width, depth, *, bias=True):
        super().__init__()


class Bare(nn.Module):
    def forward(self, ear, eye):
        return eye


class Own:
    def __call__(self, inputs, present):
        return inputs["ear"][:, :2] * present[:, :1]


def make(width=5):
    return Net(width)


def make_plain():
    return plain


def plain(inputs, present):
    return inputs["ear"][:, :2]


def by_name(ear, eye):
    return ear[:, :2] + eye


def of_many(**inputs):
    return inputs["ear"]


def fails():
    raise LookupError("no such\\nthing")


net = Net(2)
own = Own()
seven = partial(Net, 7)
number = 3
make_number = lambda: 3
nothing = None
"""

NUMBERS = itertools.count()  # no two modules of a process have the same name


@pytest.fixture
def module(tmp_path, monkeypatch) -> Callable[[str], str]:
    """`module(text)`: the name of a new module with that text in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> str:
        name = f"module_of_a_test_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def mine(module) -> str:
    return module(MODULE)


# --- which model


def widths(model: nn.Module) -> int:
    return model.ear.out_features


def test_a_function_without_arguments_gives_the_model(mine):
    assert widths(load_own_model(f"{mine}:make")) == 5


def test_so_does_a_class(mine):
    assert widths(load_own_model(f"{mine}:Net")) == 3
    # torch's own beginning of a module takes anything
    assert type(load_own_model(f"{mine}:Bare")).__name__ == "Bare"


def test_so_does_a_partial_function(mine):
    assert widths(load_own_model(f"{mine}:seven")) == 7


def test_a_module_is_the_model_itself(mine):
    model = load_own_model(f"{mine}:net")
    assert model is sys.modules[mine].net


@pytest.mark.parametrize("name", ["plain", "by_name", "of_many", "own"])
def test_so_is_any_other_callable_that_needs_arguments(mine, name):
    assert load_own_model(f"{mine}:{name}") is getattr(sys.modules[mine], name)


def test_a_function_may_give_a_function(mine):
    assert load_own_model(f"{mine}:make_plain") is sys.modules[mine].plain


def test_a_module_in_a_package_is_found_by_its_dotted_name(module, tmp_path):
    (tmp_path / "package_of_a_test").mkdir()
    (tmp_path / "package_of_a_test/inner.py").write_text(MODULE)
    assert widths(load_own_model("package_of_a_test.inner:make")) == 5


def test_a_callable_of_c_is_the_model_itself(module):
    # torch's functions have no signature to look at
    assert load_own_model("torch:relu") is torch.relu


@pytest.mark.parametrize("name", ["mine", "mine:", ":make", ""])
def test_another_form_is_refused_with_the_right_one(name):
    expected = f"^model {name!r}: write it as package.module:make_model$"
    with pytest.raises(UsageError, match=expected):
        load_own_model(name)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no_such_module:make", "cannot import no_such_module: ModuleNotFoundError: No module nam"),
        (".relative:make", "cannot import .relative: TypeError: "),
        ("MINE:no_such", "MINE has no 'no_such'"),
        ("MINE:nothing", "MINE has no 'nothing'"),
    ],
)
def test_what_is_not_there_is_refused(mine, what, message):
    what, message = (text.replace("MINE", mine) for text in (what, message))
    with pytest.raises(UsageError) as error:
        load_own_model(what)
    assert str(error.value).startswith(f"model {what}: {message}")


@pytest.mark.parametrize("name", ["number", "make_number"])
def test_what_cannot_be_called_is_no_model(mine, name):
    with pytest.raises(UsageError, match=f"^model {mine}:{name} gives int, which is no model$"):
        load_own_model(f"{mine}:{name}")


def test_a_class_that_needs_arguments_is_refused_with_their_names(mine):
    expected = (
        f"^model {mine}:Wide is a class that needs width, depth: name a function that gives the "
        "model$"
    )
    with pytest.raises(UsageError, match=expected):
        load_own_model(f"{mine}:Wide")


def test_a_function_that_fails_is_told_with_its_line(mine, tmp_path):
    line = 1 + MODULE.splitlines().index('    raise LookupError("no such\\nthing")')
    with pytest.raises(UsageError) as error:
        load_own_model(f"{mine}:fails")
    assert str(error.value) == (
        f"model {mine}:fails failed: LookupError: no such\\nthing "
        f"({tmp_path / mine}.py, line {line})"
    )
    assert isinstance(error.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nimport no_such_module\n", "ModuleNotFoundError: No module named 'no_such_m"),
        ("x = 1\n\ny = 1 / 0\n", "ZeroDivisionError: division by zero (PATH, line 3)"),
        ("def f(:\n", "SyntaxError: invalid syntax (FILE, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_the_reason(module, tmp_path, text, message):
    name = module(text)
    message = message.replace("PATH", f"{tmp_path / name}.py").replace("FILE", f"{name}.py")
    with pytest.raises(UsageError) as error:
        load_own_model(f"{name}:make")
    assert str(error.value).startswith(f"model {name}:make: cannot import {name}: {message}")


# --- its weights (more in test_weights.py)


def test_weights_are_put_into_the_model(mine, tmp_path):
    other = load_own_model(f"{mine}:Net")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    model = load_own_model(f"{mine}:Net", tmp_path / "w.safetensors")
    for name, tensor in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("name", ["plain", "own"])
def test_weights_are_for_modules_alone(mine, tmp_path, name):
    expected = r"^weights are for a torch\.nn\.Module: leave them out$"
    with pytest.raises(UsageError, match=expected):
        load_own_model(f"{mine}:{name}", tmp_path / "w.safetensors")


# --- what it does without a modality


class Additive(nn.Module):
    """Logits of a sum of one linear part a modality."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.ear, self.eye = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, ear, eye):
        return self.ear(ear) + self.eye(eye)


class OfItsOwn(nn.Module):
    absent = "a whisper"

    def forward(self, inputs, present=None):
        return inputs["ear"] * present[:, :1]


def encoded_model() -> MultimodalModel:
    torch.manual_seed(5)
    encoders = {m: ENCODERS.load("mlp")((w,)) for m, w in (("ear", 4), ("eye", 2))}
    widths = {m: encoder.width for m, encoder in encoders.items()}
    return MultimodalModel(encoders, FUSIONS.load("concat")(widths, 3)).eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"ear": torch.randn(6, 4), "eye": torch.randn(6, 2)}


@pytest.fixture
def background() -> list[dict[str, object]]:
    torch.manual_seed(2)
    rows = {"ear": torch.randn(5, 4), "eye": torch.randn(5, 2)}
    return [
        {"inputs": {m: x[:3] for m, x in rows.items()}},
        {"inputs": {m: x[3:] for m, x in rows.items()}},
    ]


EAR_ALONE = torch.tensor([[True, False]]).expand(6, 2)


def never() -> object:
    raise AssertionError("the background is read where it is not needed")


def plain(inputs, present):
    return inputs["ear"]


@pytest.mark.parametrize(
    ("model", "absent"),
    [(encoded_model(), "zero"), (OfItsOwn(), "a whisper"), (plain, "own")],
    ids=["of the package", "that says so", "that does not say"],
)
def test_a_model_that_takes_present_is_left_to_itself(model, absent):
    assert ImputerSpec().over(model, ("ear", "eye"), never) == (model, absent)


def test_any_other_model_gets_zeros_for_inputs(inputs):
    model = Additive()
    wrapped, absent = ImputerSpec().over(model, ("ear", "eye"), never)
    assert absent == "input zero"
    expected = model(inputs["ear"], torch.zeros(6, 2))
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE), expected)


@pytest.mark.parametrize("make", [Additive, encoded_model])
def test_zeros_may_be_asked_for_by_name(make, inputs):
    model = make()
    wrapped, absent = ImputerSpec("zero").over(model, ("ear", "eye"), never)
    assert absent == "input zero"
    whole = {"ear": inputs["ear"], "eye": torch.zeros(6, 2)}
    expected = model(**whole) if make is Additive else model(whole)
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE), expected)


def test_mean_inputs_are_those_of_the_background(inputs, background):
    model = Additive()
    wrapped, absent = ImputerSpec("mean").over(model, ("ear", "eye"), lambda: background)
    assert absent == "input mean"
    mean = torch.cat([batch["inputs"]["eye"] for batch in background]).mean(0)
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE), model(inputs["ear"], mean.expand(6, 2)))


def test_marginal_averages_over_the_samples_of_the_background(inputs, background):
    model = Additive()
    # more draws than there are: each sample once
    absence = ImputerSpec("marginal", draws=99)
    wrapped, absent = absence.over(model, ("ear", "eye"), lambda: background)
    assert absent == "input marginal, 5 draws"
    eyes = torch.cat([batch["inputs"]["eye"] for batch in background])
    each = [model(inputs["ear"], eye.expand(6, 2)).softmax(1) for eye in eyes]
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE).softmax(1), torch.stack(each).mean(0))


def test_draws_and_seed_are_those_of_the_absence(inputs, background):
    def logits(**how) -> torch.Tensor:
        absence = ImputerSpec("marginal", **how)
        wrapped, absent = absence.over(Additive(), ("ear", "eye"), lambda: background)
        assert absent == f"input marginal, {how['draws']} draw{'s' * (how['draws'] > 1)}"
        return wrapped(inputs, EAR_ALONE)

    assert torch.equal(logits(draws=2, seed=1), logits(draws=2, seed=1))
    assert not torch.equal(logits(draws=2, seed=1), logits(draws=2, seed=2))
    assert not torch.equal(logits(draws=2, seed=1), logits(draws=1, seed=1))


PLACES = {"ear": "ear", "eye": "eye"}
ENCODERS_OF_A_RUN = {"eye": "encoders.eye", "ear": "encoders.ear"}


def test_features_are_zeros_where_nothing_else_is_said(inputs):
    model = Additive()
    wrapped, absent = ImputerSpec(features=PLACES).over(model, ("ear", "eye"), never)
    assert absent == "features zero"
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE), model.ear(inputs["ear"]))


def test_zero_features_of_a_runs_encoders_are_what_the_run_itself_does(inputs):
    model = encoded_model()
    wrapped, absent = ImputerSpec("zero", ENCODERS_OF_A_RUN).over(model, ("ear", "eye"), never)
    assert absent == "features zero"
    for present in ([True, False], [False, True], [False, False], [True, True]):
        rows = torch.tensor([present]).expand(6, 2)
        torch.testing.assert_close(wrapped(inputs, rows), model(inputs, rows))


@pytest.mark.parametrize("make", [Additive, encoded_model])
def test_mean_features_are_those_of_the_background(make, inputs, background):
    model = make()
    places = PLACES if make is Additive else ENCODERS_OF_A_RUN
    wrapped, absent = ImputerSpec("mean", places).over(model, ("ear", "eye"), lambda: background)
    assert absent == "features mean"
    eyes = torch.cat([batch["inputs"]["eye"] for batch in background])
    ear, eye = (model.get_submodule(places[m]) for m in ("ear", "eye"))
    mean = eye(eyes).mean(0).expand(6, -1)
    if make is Additive:
        expected = ear(inputs["ear"]) + mean
    else:
        features = {"ear": ear(inputs["ear"]), "eye": mean}
        expected = model.fuse(features, torch.ones(6, 2, dtype=torch.bool))
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE), expected)


@pytest.mark.parametrize("make", [Additive, encoded_model])
def test_marginal_features_are_those_of_samples_of_the_background(make, inputs, background):
    model = make()
    places = PLACES if make is Additive else ENCODERS_OF_A_RUN
    wrapped, absent = ImputerSpec("marginal", places, draws=5).over(
        model, ("ear", "eye"), lambda: background
    )
    assert absent == "features marginal, 5 draws"
    eyes = torch.cat([batch["inputs"]["eye"] for batch in background])
    each = []
    for eye in eyes:
        whole = {"ear": inputs["ear"], "eye": eye.expand(6, 2)}
        each.append((model(**whole) if make is Additive else model(whole)).softmax(1))
    torch.testing.assert_close(wrapped(inputs, EAR_ALONE).softmax(1), torch.stack(each).mean(0))


@pytest.mark.parametrize(
    ("features", "amiss"),
    [
        ({"ear": "ear"}, "eye"),
        ({"ear": "ear", "eye": "eye", "nose": "eye"}, "nose"),
        ({"ear": "ear", "nose": "eye"}, "eye, nose"),
    ],
)
def test_features_are_of_each_modality_and_no_other(features, amiss):
    expected = (
        f"^features: name a submodule for each of ear, eye, and no other modality; amiss: {amiss}$"
    )
    with pytest.raises(UsageError, match=expected):
        ImputerSpec("zero", features).over(Additive(), ("ear", "eye"), never)


def test_features_that_are_no_submodules_are_refused_with_near_names():
    expected = (
        "^the model has no submodule 'encoder.eye' for the modality 'eye'; near names: encoders.eye"
    )
    with pytest.raises(UsageError, match=expected):
        features = {"ear": "encoders.ear", "eye": "encoder.eye"}
        ImputerSpec("zero", features).over(encoded_model(), ("ear", "eye"), never)


def test_features_are_of_modules_alone():
    expected = r"^features are of a torch\.nn\.Module, and the model is a function: leave them out$"
    with pytest.raises(UsageError, match=expected):
        ImputerSpec("mean", PLACES).over(plain, ("ear", "eye"), never)


@pytest.mark.parametrize("features", [{}, PLACES])
def test_an_unknown_absence_is_refused_with_the_legal_names(features):
    expected = "^unknown absence 'silence': choose one of zero, mean, marginal$"
    with pytest.raises(UsageError, match=expected):
        ImputerSpec("silence", features).over(Additive(), ("ear", "eye"), list)


@pytest.mark.parametrize(
    ("absence", "details"),
    [
        (ImputerSpec(), {}),
        (ImputerSpec("mean"), {}),
        (ImputerSpec("zero", PLACES, seed=3), {"features": PLACES}),
        (ImputerSpec("marginal"), {"absent_seed": 0}),
        (ImputerSpec("marginal", PLACES, 4, 9), {"features": PLACES, "absent_seed": 9}),
    ],
)
def test_a_scores_file_says_what_else_decides_the_absence(absence, details):
    assert absence.details == details


def test_the_folder_is_looked_in_once(mine):
    before = sys.path.count(str(Path.cwd()))
    load_own_model(f"{mine}:make")
    load_own_model(f"{mine}:make")
    assert sys.path.count(str(Path.cwd())) == max(1, before)
