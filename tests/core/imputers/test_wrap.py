"""Any model, unchanged, and what it says when modalities are absent."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision.models import resnet18
from transformers import (
    BertConfig,
    BertModel,
    ViltConfig,
    ViltForQuestionAnswering,
    ViTConfig,
    ViTModel,
)

from mmcoop import UsageError, replace_features, replace_inputs, shapley_values, valuate
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.imputers.wrap import ABSENT, TASKS, ImputedModel
from mmcoop.core.pytree import batch_size, take, tree_map
from mmcoop.errors import DataError

WIDTHS = {"a": 3, "b": 2, "c": 1}
NAMES = tuple(WIDTHS)
CLASSES = 4


class Linear(nn.Module):
    """Logits are a bias and one part a modality, from features that are the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({m: nn.Identity() for m in NAMES})
        self.parts = nn.ModuleDict(
            {m: nn.Linear(d, CLASSES, bias=False) for m, d in WIDTHS.items()}
        )
        self.bias = nn.Parameter(torch.randn(CLASSES))

    def forward(self, inputs):
        return self.bias + sum(self.parts[m](self.features[m](inputs[m])) for m in NAMES)


class Deep(nn.Module):
    """Encoders with batch normalisation and dropout, then layers in which modalities interact."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(d, 5), nn.BatchNorm1d(5), nn.Tanh())
                for m, d in WIDTHS.items()
            }
        )
        self.head = nn.Sequential(
            nn.Linear(15, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, CLASSES)
        )

    def forward(self, a, b, c):
        inputs = {"a": a, "b": b, "c": c}
        return self.head(torch.cat([self.encoders[m](inputs[m]) for m in NAMES], dim=1))


def inputs_of(rows: int, seed: int = 0) -> dict:
    chance = torch.Generator().manual_seed(seed)
    return {m: torch.randn(rows, d, generator=chance) for m, d in WIDTHS.items()}


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def repeated(inputs, n: int) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Every sample with every coalition: inputs, `present`, and which sample a row is."""
    rows = batch_size(inputs)
    sample = torch.arange(rows).repeat_interleave(2**n)
    return take(inputs, sample), coalition_matrix(n).repeat(rows, 1), sample


PLACES = {"inputs": None, "features": {m: f"encoders.{m}" for m in NAMES}}


def replaced(model, kind, absent, **options):
    if kind == "inputs":
        return replace_inputs(model, NAMES, absent, **options)
    places = {m: f"features.{m}" for m in NAMES} if isinstance(model, Linear) else PLACES[kind]
    return replace_features(model, places, absent, **options)


KINDS = pytest.mark.parametrize("kind", list(PLACES))
ABSENCES = pytest.mark.parametrize("absent", list(ABSENT))


# closed forms


def what_is_put_in(absent, background) -> dict:
    if absent == "zero":
        return {m: torch.zeros(d) for m, d in WIDTHS.items()}
    return {m: x.mean(0) for m, x in background.items()}


@KINDS
@ABSENCES
def test_a_linear_models_outputs_are_those_of_what_is_put_in(kind, absent):
    model, background = made(Linear), inputs_of(6, seed=1)
    # of a linear model the mean over all draws is the output of the mean
    wrapper = replaced(model, kind, absent, background=background, draws=6, task="regression")
    inputs, present, _ = repeated(inputs_of(5), 3)
    outputs = wrapper(inputs, present)
    other = what_is_put_in(absent, background)
    for i, (row, here) in enumerate(zip(outputs, present.tolist(), strict=True)):
        mixed = {m: inputs[m][i] if h else other[m] for m, h in zip(NAMES, here, strict=True)}
        expected = model.bias + sum(model.parts[m].weight @ mixed[m] for m in NAMES)
        torch.testing.assert_close(row, expected)


@KINDS
@ABSENCES
def test_shapley_values_of_a_linear_models_output_have_a_closed_form(kind, absent):
    model, background = made(Linear), inputs_of(6, seed=1)
    wrapper = replaced(model, kind, absent, background=background, draws=6, task="regression")
    samples = inputs_of(5)
    inputs, present, _ = repeated(samples, 3)
    with torch.no_grad():
        tables = wrapper(inputs, present).reshape(5, 8, CLASSES)
    other = what_is_put_in(absent, background)
    for c in range(CLASSES):
        expected = torch.stack(
            [(samples[m] - other[m]) @ model.parts[m].weight[c].detach() for m in NAMES], dim=1
        )
        torch.testing.assert_close(
            shapley_values(tables[:, :, c]), expected.double(), atol=1e-5, rtol=1e-5
        )


def test_marginal_averages_are_those_of_a_plain_loop_over_draws():
    model, background, samples = made(Deep), inputs_of(5, seed=1), inputs_of(3)
    inputs, present, _ = repeated(samples, 3)

    def by_draw(i):
        for k in range(5):
            mixed = {
                m: (inputs[m][i] if h else background[m][k]).unsqueeze(0)
                for m, h in zip(NAMES, present[i].tolist(), strict=True)
            }
            yield model(**mixed)[0].detach().double().numpy()

    for task in TASKS:
        wrapper = replace_inputs(
            model, NAMES, "marginal", background=background, draws=5, task=task
        )
        with torch.no_grad():
            found = wrapper(inputs, present).double().numpy()
        for i in range(len(present)):
            logits = np.array(list(by_draw(i)))
            if task == "classification":
                p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                expected = np.log(p.mean(0))
            elif task == "multi-label":
                p = (1 / (1 + np.exp(-logits))).mean(0)
                expected = np.log(p / (1 - p))
            else:
                expected = logits.mean(0)
            np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_draws_of_features_come_whole_from_one_sample():
    model, background, samples = made(Deep), inputs_of(5, seed=1), inputs_of(3)
    inputs, present, _ = repeated(samples, 3)
    both = [
        replaced(model, kind, "marginal", background=background, draws=3, seed=7)(inputs, present)
        for kind in PLACES
    ]
    # each encoder sees one modality, so its features of another sample's input are that sample's
    torch.testing.assert_close(*both)


@KINDS
@ABSENCES
@pytest.mark.parametrize("task", TASKS)
def test_a_row_that_has_everything_gets_the_models_own_output(kind, absent, task):
    model, inputs = made(Deep), inputs_of(4)
    wrapper = replaced(model, kind, absent, background=inputs_of(9, seed=1), task=task)
    expected = model(**inputs)
    if absent == "marginal" and task == "classification":
        expected = expected.log_softmax(1)
    torch.testing.assert_close(wrapper(inputs, torch.ones(4, 3).bool()), expected)


# properties


@KINDS
@ABSENCES
def test_a_row_does_not_depend_on_the_other_rows(kind, absent):
    wrapper = replaced(made(Deep), kind, absent, background=inputs_of(9, seed=1), draws=3)
    inputs, present, _ = repeated(inputs_of(3), 3)
    together = wrapper(inputs, present)
    for some in (torch.tensor([5]), torch.tensor([7, 0]), torch.randperm(24)[:11]):
        torch.testing.assert_close(wrapper(take(inputs, some), present[some]), together[some])


@KINDS
@ABSENCES
def test_what_an_absent_input_holds_does_not_matter(kind, absent):
    wrapper = replaced(made(Deep), kind, absent, background=inputs_of(9, seed=1), draws=3)
    inputs, present, _ = repeated(inputs_of(3), 3)
    expected = wrapper(inputs, present)
    spoilt = {
        m: torch.where(here.unsqueeze(1), x, float("nan"))
        for (m, x), here in zip(inputs.items(), present.unbind(1), strict=True)
    }
    torch.testing.assert_close(wrapper(spoilt, present), expected)
    assert expected.isfinite().all()


@KINDS
@ABSENCES
def test_the_inputs_are_left_as_they_are(kind, absent):
    wrapper = replaced(made(Deep), kind, absent, background=inputs_of(9, seed=1))
    inputs, present, _ = repeated(inputs_of(3), 3)
    before = tree_map(torch.clone, inputs)
    wrapper(inputs, present)
    assert all(torch.equal(inputs[m], before[m]) for m in NAMES)


@KINDS
def test_draws_are_of_the_seed(kind):
    inputs, present, _ = repeated(inputs_of(3), 3)

    def outputs(seed):
        options = {"background": inputs_of(50, seed=1), "draws": 3, "seed": seed}
        return replaced(made(Deep), kind, "marginal", **options)(inputs, present)

    assert torch.equal(outputs(0), outputs(0))
    assert not torch.allclose(outputs(0), outputs(1))


@KINDS
def test_the_background_is_read_once_and_in_batches(kind):
    background = inputs_of(9, seed=1)
    inputs, present, _ = repeated(inputs_of(3), 3)
    for absent in ("mean", "marginal"):
        whole = replaced(made(Deep), kind, absent, background=background, draws=3)
        parts = (take(background, rows) for rows in torch.arange(9).split([4, 5]))
        streamed = replaced(made(Deep), kind, absent, background=parts, draws=3)
        torch.testing.assert_close(streamed(inputs, present), whole(inputs, present))
        assert list(parts) == []


def test_no_call_has_more_rows_than_were_asked_for():
    calls = []

    def model(inputs):
        calls.append(len(inputs["a"]))
        return torch.zeros(len(inputs["a"]), CLASSES)

    background = inputs_of(7, seed=1)
    wrapper = replace_inputs(model, NAMES, "marginal", background=background, draws=7)
    inputs, present, _ = repeated(inputs_of(2), 3)
    wrapper(inputs, present)
    # 2 rows have everything; 14 have not, 7 draws each
    assert sorted(calls) == [2, 2, *[16] * 6]
    assert sum(calls) == 2 + 14 * 7


@KINDS
@ABSENCES
def test_no_rows_give_no_logits(kind, absent):
    wrapper = replaced(made(Deep), kind, absent, background=inputs_of(9, seed=1))
    assert wrapper(inputs_of(0), torch.zeros(0, 3).bool()).shape == (0, CLASSES)


def test_the_text_says_how_absence_is_represented():
    model, background = made(Deep), inputs_of(9, seed=1)
    texts = {
        replaced(model, kind, absent, background=background, draws=draws).absent
        for kind in PLACES
        for absent in ABSENT
        for draws in (1, 4, 90)
    }
    kinds = ["zero", "mean", "marginal, 1 draw", "marginal, 4 draws", "marginal, 9 draws"]
    assert texts == {f"{what} {kind}" for what in ("input", "features") for kind in kinds}


# valued


@KINDS
@ABSENCES
def test_valuation_is_efficient_and_leaves_the_model_as_it_was(kind, absent):
    model = made(Deep)
    model.train()
    model.encoders["b"].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapper = replaced(model, kind, absent, background=inputs_of(9, seed=1))
    assert isinstance(wrapper, ImputedModel)
    assert wrapper.model is model
    assert wrapper.modalities == NAMES
    labels = torch.arange(40) % CLASSES
    batches = [
        {"inputs": take(inputs_of(40), rows), "labels": labels[rows]}
        for rows in torch.arange(40).split(16)
    ]
    valuation = valuate(wrapper, batches, modalities=NAMES)
    model_own = made(Deep)(**inputs_of(40)).argmax(1)
    assert torch.equal(valuation.predictions, model_own)
    right = 3 * (model_own == labels).double()
    torch.testing.assert_close(valuation.contributions.sum(1), right)
    assert 0 < right.mean() < 3
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_modality_that_the_model_does_not_use_contributes_nothing():
    model = made(Linear)
    nn.init.zeros_(model.parts["b"].weight)
    wrapper = replace_inputs(model, NAMES, "marginal", background=inputs_of(9, seed=1), draws=4)
    inputs, present, _ = repeated(inputs_of(20), 3)
    with torch.no_grad():
        tables = wrapper(inputs, present).softmax(1).reshape(20, 8, CLASSES)
    contributions = shapley_values(tables[:, :, 0])
    torch.testing.assert_close(contributions[:, 1], torch.zeros(20).double(), atol=1e-6, rtol=0)
    assert contributions[:, 0].abs().mean() > 0.01


# what inputs may be


class Reader(nn.Module):
    """The mean of the embeddings of as many tokens as the mask says, beside a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.head = nn.Linear(6 + 3, CLASSES)

    def forward(self, text, table):
        ids, mask = text["ids"], text["mask"].unsqueeze(2)
        read = (self.embedding(ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.head(torch.cat([read, *table], dim=1))


def read_inputs(lengths, seed=0) -> dict:
    chance = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(1, 20, mask.shape, generator=chance) * mask
    tables = (torch.randn(len(lengths), d, generator=chance) for d in (1, 2))
    return {"text": {"ids": ids, "mask": mask}, "table": tuple(tables)}


def test_absent_tokens_and_masks_are_zero():
    seen = []

    def model(text, table):
        seen.append((text, table))
        return torch.zeros(2, CLASSES)

    inputs = read_inputs([3, 2])
    replace_inputs(model, ["text", "table"])(inputs, torch.tensor([[1, 0], [0, 1]]).bool())
    ((text, table),) = seen
    assert text["ids"].dtype == torch.int64
    assert text["mask"].dtype == torch.bool
    assert torch.equal(text["ids"][0], inputs["text"]["ids"][0])
    assert text["ids"][1].tolist() == [0, 0, 0]
    assert text["mask"].tolist() == [[True, True, True], [False, False, False]]
    assert isinstance(table, tuple)
    for found, given in zip(table, inputs["table"], strict=True):
        assert (found[0] == 0).all()
        assert torch.equal(found[1], given[1])


@pytest.mark.parametrize("lengths", [[2, 5, 3], [9, 8, 1]], ids=["shorter", "longer"])
def test_values_and_masks_of_varying_length_belong_together(lengths):
    torch.manual_seed(0)
    model = Reader()
    background = [read_inputs([6, 4], seed=1), read_inputs([7], seed=2)]
    wrapper = replace_inputs(model, ["text", "table"], "marginal", background=background, draws=3)
    samples = read_inputs(lengths)
    inputs, present, sample = repeated(samples, 2)
    found = wrapper(inputs, present)
    others = [
        take(batch, torch.tensor([k]))
        for batch in background
        for k in range(len(batch["text"]["ids"]))
    ]
    for i, (text, table) in enumerate(present.tolist()):
        own = take(samples, sample[i : i + 1])
        parts = [
            model(own["text"] if text else o["text"], own["table"] if table else o["table"])
            for o in others
        ]
        expected = torch.stack(parts).softmax(2).mean(0).log().squeeze(0)
        torch.testing.assert_close(found[i], expected)


def test_a_callable_on_arrays_is_a_model_too():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (x @ [2.0, -1.0, 0.0] > 0).astype(int) + (x[:, 2] > 1)
    classifier = LogisticRegression().fit(x, y)

    def model(inputs):
        return classifier.predict_log_proba(torch.cat([inputs["ab"], inputs["c"]], dim=1).numpy())

    inputs = {"ab": torch.from_numpy(x[:, :2]), "c": torch.from_numpy(x[:, 2:])}
    wrapper = replace_inputs(model, ["ab", "c"], "mean", background=inputs)
    found = wrapper(inputs, torch.tensor([True, False]).expand(60, -1))
    mixed = np.column_stack([x[:, :2], np.full(60, x[:, 2].mean())])
    np.testing.assert_allclose(found, classifier.predict_log_proba(mixed), rtol=1e-9)
    valuation = valuate(wrapper, [{"inputs": inputs, "labels": y}], modalities=["ab", "c"])
    right = classifier.predict(x) == y
    np.testing.assert_allclose(valuation.contributions.sum(1), 2 * right)


# models from elsewhere


class TwoStream(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rgb = resnet18(weights=None, num_classes=6)
        self.flow = resnet18(weights=None, num_classes=6)
        self.flow.conv1 = nn.Conv2d(2, 64, 7, 2, 3, bias=False)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, rgb, flow):
        return self.head(torch.cat([self.rgb(rgb), self.flow(flow)], dim=1))


def test_a_two_stream_model_of_torchvision():
    torch.manual_seed(0)
    model = TwoStream()
    inputs = {"rgb": torch.randn(3, 3, 32, 32), "flow": torch.randn(3, 2, 32, 32)}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [{"inputs": inputs, "labels": torch.tensor([0, 1, 2])}]
    pooled = {m: f"{m}.avgpool" for m in inputs}
    absences = {
        "zero": {"rgb": torch.zeros(512), "flow": torch.zeros(512)},
        "mean": {},
    }
    with torch.no_grad():
        model.eval()
        for m, net in (("rgb", model.rgb), ("flow", model.flow)):
            body = nn.Sequential(*list(net.children())[:-1])
            absences["mean"][m] = body(inputs[m]).mean(0).flatten()
        model.train()
        for absent, features in absences.items():
            wrapper = replace_features(model, pooled, absent, background=inputs)
            valuation = valuate(wrapper, batches, modalities=["rgb", "flow"])
            grand = valuation.contributions.sum(1)
            assert torch.equal(grand, 2 * (valuation.predictions == valuation.labels).double())
            wrapper.eval()
            only_rgb = wrapper(inputs, torch.tensor([True, False]).expand(3, -1))
            flow = model.flow.fc(features["flow"]).expand(3, -1)
            expected = model.head(torch.cat([model.rgb(inputs["rgb"]), flow], dim=1))
            torch.testing.assert_close(only_rgb, expected, rtol=1e-4, atol=1e-5)
            wrapper.train()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def pairs(rows: int, seed: int = 0) -> dict:
    chance = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < torch.randint(2, 6, (rows, 1), generator=chance)
    ids = torch.randint(1, 30, (rows, 5), generator=chance) * mask
    return {
        "text": {"input_ids": ids, "attention_mask": mask.long()},
        "image": {"pixel_values": torch.randn(rows, 3, 8, 8, generator=chance)},
    }


def test_a_transformers_model_of_image_and_text():
    torch.manual_seed(0)
    config = ViltConfig(vocab_size=30, image_size=8, patch_size=4, num_labels=CLASSES, **SIZES)
    model = ViltForQuestionAnswering(config).eval()

    def call(model, inputs):
        return model(**inputs["text"], **inputs["image"])

    samples, background = pairs(3), pairs(4, seed=1)
    inputs, present, sample = repeated(samples, 2)

    def expected(i, other):
        """The logits of row i with sample `other` in place of what is absent."""
        own = take(samples, sample[i : i + 1])
        text, image = present[i].tolist()
        mixed = {
            "text": own["text"] if text else other["text"],
            "image": own["image"] if image else other["image"],
        }
        return call(model, mixed).logits[0]

    names = ["text", "image"]
    zero = replace_inputs(model, names, call=call)
    marginal = replace_inputs(model, names, "marginal", background=background, draws=4, call=call)
    nothing = tree_map(torch.zeros_like, pairs(1))
    others = [take(background, torch.tensor([k])) for k in range(4)]
    with torch.no_grad():
        of_nothing, of_others = zero(inputs, present), marginal(inputs, present)
        for i in range(len(present)):
            torch.testing.assert_close(of_nothing[i], expected(i, nothing))
            mean = torch.stack([expected(i, other) for other in others]).softmax(1).mean(0)
            torch.testing.assert_close(of_others[i], mean.log())


class DualEncoder(nn.Module):
    """Two models of transformers, whose outputs are objects with several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.language = BertModel(BertConfig(vocab_size=30, **SIZES))
        self.vision = ViTModel(ViTConfig(image_size=8, patch_size=4, **SIZES))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, text, image):
        said = self.language(**text).pooler_output
        seen = self.vision(**image).last_hidden_state.mean(1)
        return {"logits": self.head(torch.cat([said, seen], dim=1))}


def test_all_tensors_of_a_transformers_output_are_replaced():
    torch.manual_seed(0)
    model = DualEncoder().eval()
    samples, background = pairs(3), pairs(4, seed=1)
    places = {"text": "language", "image": "vision"}
    with torch.no_grad():
        zero = replace_features(model, places)(samples, torch.zeros(3, 2).bool())
        torch.testing.assert_close(zero, model.head.bias.expand(3, -1))
        mean = replace_features(model, places, "mean", background=[background])
        found = mean(samples, torch.tensor([False, True]).expand(3, -1))
        said = model.language(**background["text"]).pooler_output.mean(0).expand(3, -1)
        seen = model.vision(**samples["image"]).last_hidden_state.mean(1)
        torch.testing.assert_close(found, model.head(torch.cat([said, seen], dim=1)))


def test_half_precision_is_averaged_in_single_precision():
    model = made(Linear).to(torch.bfloat16)
    half = {m: x.to(torch.bfloat16) for m, x in inputs_of(4).items()}
    wrapper = replace_inputs(model, NAMES, "marginal", background=half, draws=4)
    outputs = wrapper(half, torch.zeros(4, 3).bool())
    assert outputs.dtype == torch.float32
    draws = model(half).float().softmax(1).mean(0).log()
    torch.testing.assert_close(outputs, draws.expand(4, -1))


def test_certain_predictions_average_without_infinities_that_are_not_there():
    def model(inputs):
        return inputs["a"]

    background = {"a": torch.tensor([[1e4, -1e4], [-1e4, 1e4]])}
    for task in ("classification", "multi-label"):
        wrapper = replace_inputs(model, ["a"], "marginal", background=background, task=task)
        (row,) = wrapper({"a": torch.zeros(1, 2)}, torch.zeros(1, 1).bool()).tolist()
        expected = math.log(0.5) if task == "classification" else 0.0
        assert row == pytest.approx([expected] * 2)


# refused


@KINDS
def test_unknown_names_are_refused_with_the_legal_ones(kind):
    with pytest.raises(
        UsageError, match="^unknown absence 'none': choose one of zero, mean, marginal$"
    ):
        replaced(made(Deep), kind, "none")
    with pytest.raises(
        UsageError,
        match="^unknown task 'sorting': choose one of classification, multi-label, regression$",
    ):
        replaced(made(Deep), kind, "zero", task="sorting")


@KINDS
@pytest.mark.parametrize("absent", ["mean", "marginal"])
def test_what_needs_a_background_says_what_to_give(kind, absent):
    with pytest.raises(
        UsageError,
        match=f"^absent='{absent}' needs a background: give background=, an iterable of batches",
    ):
        replaced(made(Deep), kind, absent)


@KINDS
@pytest.mark.parametrize("draws", [0, -3])
def test_too_few_draws_are_refused(kind, draws):
    with pytest.raises(UsageError, match=f"^draws is {draws}: at least 1 is needed$"):
        replaced(made(Deep), kind, "marginal", background=inputs_of(3), draws=draws)


def test_names_and_places_are_checked():
    with pytest.raises(UsageError, match="modality names repeat: a, a"):
        replace_inputs(made(Deep), ["a", "a"])
    with pytest.raises(
        UsageError, match="^the model has no submodule 'encoder.a' for the modality"
    ):
        replace_features(made(Deep), {"a": "encoder.a"})


def test_features_of_what_is_no_module_are_refused():
    with pytest.raises(
        UsageError,
        match="^features are replaced inside a torch.nn.Module, and the model is a function: use "
        "replace_inputs$",
    ):
        replace_features(lambda inputs: inputs, {"a": "encoder"})


@KINDS
def test_a_batch_without_a_modality_is_refused(kind):
    wrapper = replaced(made(Deep), kind, "zero")
    inputs = inputs_of(2)
    del inputs["b"]
    with pytest.raises(
        DataError, match="^the batch has no input for the modality 'b'; it has: a, c$"
    ):
        wrapper(inputs, torch.ones(2, 3).bool())


@KINDS
@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2,)])
def test_present_of_another_shape_is_refused(kind, shape):
    wrapper = replaced(made(Deep), kind, "zero")
    with pytest.raises(DataError, match=r"^`present` is of shape \(.*\): expected \(2, 3\), a row"):
        wrapper(inputs_of(2), torch.ones(shape).bool())


@pytest.mark.parametrize("output", [torch.tensor(1.0), torch.zeros(3, CLASSES)])
@ABSENCES
def test_outputs_of_another_number_of_rows_are_refused(output, absent):
    wrapper = replace_inputs(lambda inputs: output, NAMES, absent, background=inputs_of(3))
    with pytest.raises(
        DataError,
        match=r"^the model gave outputs of shape \(.*\) for 2 rows: expected one row each$",
    ):
        wrapper(inputs_of(2), torch.ones(2, 3).bool())


@pytest.mark.parametrize(("shape", "told"), [((), r"\(2,\)"), ((1,), r"\(2, 1\)")])
def test_outputs_without_classes_are_not_averaged_as_classes(shape, told):
    wrapper = replace_inputs(
        lambda inputs: torch.zeros(2, *shape), NAMES, "marginal", background=inputs_of(3)
    )
    with pytest.raises(DataError, match=f"^the model gives outputs of shape {told}, and not"):
        wrapper(inputs_of(2), torch.ones(2, 3).bool())


def test_one_number_a_row_is_averaged_as_regression():
    background = {"a": torch.tensor([1.0, 2.0, 6.0])}
    wrapper = replace_inputs(
        lambda inputs: 2 * inputs["a"], ["a"], "marginal", background=background, task="regression"
    )
    outputs = wrapper({"a": torch.tensor([5.0, 5.0])}, torch.tensor([[True], [False]]))
    assert outputs.tolist() == [10.0, 6.0]


@pytest.mark.parametrize(
    ("absent", "background", "message"),
    [
        (
            "mean",
            {"a": torch.zeros(2, 4)},
            r"^a sample of the modality 'a' is of shape \(3,\), and of \(4,\) in the background",
        ),
        (
            "marginal",
            {"a": torch.zeros(2, 3).long()},
            "^the modality 'a' holds torch.float32, and torch.int64 in the background: give both",
        ),
        ("marginal", {"a": torch.zeros(2, 3, 1)}, r"^samples of shapes \(3,\) and \(3, 1\) cannot"),
        ("mean", {"a": [torch.zeros(2, 3)]}, "^batch structures differ: where one has a tensor"),
    ],
)
def test_a_background_of_another_form_is_refused(absent, background, message):
    wrapper = replace_inputs(lambda inputs: inputs["a"], ["a"], absent, background=background)
    with pytest.raises(DataError, match=message):
        wrapper({"a": torch.zeros(1, 3)}, torch.zeros(1, 1).bool())


def test_features_of_another_length_are_refused():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(2, CLASSES)

        def forward(self, a):
            return self.encoder(a).mean(1)

    wrapper = replace_features(
        Mean(), {"a": "encoder"}, "marginal", background={"a": torch.zeros(2, 5, 2)}
    )
    with pytest.raises(DataError, match=r"is of shape \(4, 4\), and of \(5, 4\) in the background"):
        wrapper({"a": torch.zeros(1, 4, 2)}, torch.zeros(1, 1).bool())


# models that work in place


class InPlace(Deep):
    """The same network, which writes into its inputs and its features."""

    def forward(self, a, b, c):
        z = [self.encoders[m](x) for m, x in zip(NAMES, (a, b, c), strict=True)]
        joined = torch.cat(z, dim=1)
        for x in (a, b, c, *z):
            x.fill_(5)
        return self.head(joined)


@KINDS
@ABSENCES
def test_a_model_may_work_in_place(kind, absent):
    background, fresh = inputs_of(9, seed=1), inputs_of(9, seed=1)
    options = {"background": background, "draws": 3}
    inputs, present, _ = repeated(inputs_of(3), 3)
    before = tree_map(torch.clone, inputs)
    expected = replaced(made(Deep), kind, absent, **options)(inputs, present)
    with torch.no_grad():
        wrapper = replaced(made(InPlace), kind, absent, **options)
        found = [wrapper(inputs, present) for _ in range(2)]
    for outputs in found:
        torch.testing.assert_close(outputs, expected)
    complete = torch.ones(24, 3).bool()
    torch.testing.assert_close(wrapper(inputs, complete), wrapper(inputs, complete))
    assert all(torch.equal(inputs[m], before[m]) for m in NAMES)
    assert all(torch.equal(background[m], fresh[m]) for m in NAMES)


@pytest.mark.parametrize("absent", ["zero", "marginal"])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.int8, torch.bool, torch.complex64])
def test_numbers_of_any_type_are_replaced(absent, dtype):
    x, other = torch.arange(4).to(dtype).unsqueeze(1), torch.ones(1, 1).to(dtype)
    seen = []

    def model(inputs):
        seen.append(inputs["a"])
        return torch.zeros(4, 2)

    wrapper = replace_inputs(model, ["a"], absent, background={"a": other}, draws=1)
    wrapper({"a": x}, torch.zeros(4, 1).bool())
    assert seen[0].dtype == dtype
    assert seen[0].tolist() == ([[0]] * 4 if absent == "zero" else other.tolist() * 4)


def test_large_offsets_reach_the_model_in_double_precision():
    seconds = (1_700_000_000 + torch.arange(6.0, dtype=torch.float64) / 8).unsqueeze(1)
    for kind in (torch.Tensor.clone, torch.Tensor.numpy):
        given = {"a": kind(seconds)}
        seen = []

        def model(inputs, seen=seen):
            seen.append(inputs["a"])
            return torch.zeros(len(inputs["a"]), 2)

        for absent in ABSENT:
            wrapper = replace_inputs(model, ["a"], absent, background=given, draws=1)
            wrapper(given, torch.zeros(6, 1).bool())
            wrapper(given, torch.ones(6, 1).bool())
            assert torch.equal(seen[-1], seconds)
        mean = seen[2]
        assert mean.unique().tolist() == [float(seconds.mean())]
