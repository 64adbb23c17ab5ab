"""A batch as a game: outputs of samples and coalitions, against a plain loop, within limits."""

import numpy as np
import pytest
import torch
from torch import nn

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.encoders.base import Encoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.pytree import tree_map
from mmcoop.core.valuation import game as game_module
from mmcoop.core.valuation.game import CalledGame, EncodedGame, batch_game, device_of
from mmcoop.errors import DataError, UsageError

NAMES = ("audio", "text", "visual")
CLASSES = 4


def inputs_of(samples: int, seed: int = 0) -> dict:
    """A tensor, series with their mask, and two pictures in a list with a setting of all."""
    g = torch.Generator().manual_seed(seed)
    return {
        "audio": torch.randn(samples, 3, generator=g),
        "text": {
            "values": torch.randn(samples, 5, 2, generator=g),
            "mask": torch.rand(samples, 5, generator=g) < 0.7,
        },
        "visual": [torch.randn(samples, 2, generator=g), torch.randn(samples, 1, generator=g), 0.5],
    }


class Model:
    """Takes nested inputs, mixes them without being a sum of parts, and counts its rows."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(9)
        self.weights = torch.randn(3 + 2 + 3, CLASSES, generator=g)
        self.rows: list[int] = []

    def __call__(self, inputs, present):
        assert list(inputs) == list(NAMES)
        assert present.dtype == torch.bool
        self.rows.append(len(present))
        text = (inputs["text"]["values"] * inputs["text"]["mask"].unsqueeze(2)).sum(1)
        one, other, factor = inputs["visual"]
        here = present.float()
        parts = [
            inputs["audio"] * here[:, :1],
            text * here[:, 1:2],
            torch.cat([one, other], dim=1) * factor * here[:, 2:],
        ]
        x = torch.cat(parts, dim=1)
        return torch.tanh(x @ self.weights) + x.prod(1, keepdim=True)


def by_loop(model, inputs, sample: int, present) -> torch.Tensor:
    """What the model says of one sample and one coalition alone."""
    one = {m: tree_map(lambda t: t[sample : sample + 1], x) for m, x in inputs.items()}
    return torch.as_tensor(model(one, torch.as_tensor(present)[None]))[0]


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def some_rows(samples: int, n: int, rows: int = 23):
    g = torch.Generator().manual_seed(rows)
    sample = torch.randint(samples, (rows,), generator=g)
    return sample, torch.rand(rows, n, generator=g) < 0.5


# --- any callable


@pytest.mark.parametrize("max_batch", [None, 1, 4, 5, 7, 10, 15, 1000])
def test_outputs_of_a_callable_are_those_of_a_plain_loop_and_never_too_many_at_once(max_batch):
    model, inputs = Model(), inputs_of(5)
    game = batch_game(model, inputs, 5, NAMES, max_batch)
    assert isinstance(game, CalledGame)
    assert game.samples == 5
    coalitions = coalition_matrix(3)
    groups = list(game.table(coalitions))
    table = torch.cat(groups, dim=1)
    assert table.shape == (5, 8, CLASSES)
    sample, present = some_rows(5, 3)
    rows = game.rows(sample, present)
    assert rows.shape == (23, CLASSES)
    assert max(model.rows) <= (max_batch or 10**9)
    assert sum(model.rows) == 5 * 8 + 23
    alone = Model()
    for i in range(5):
        for k in range(8):
            assert_same(table[i, k], by_loop(alone, inputs, i, coalitions[k]))
    for r in range(23):
        assert_same(rows[r], by_loop(alone, inputs, int(sample[r]), present[r]))


@pytest.mark.parametrize(
    ("max_batch", "calls"),
    [
        (None, [40]),  # all coalitions of the batch at once
        (10, [10, 10, 10, 10]),  # two coalitions at once
        (15, [15, 15, 10]),  # three, and then what is left
        (5, [5] * 8),
        (4, [4, 1] * 8),  # a coalition in parts
    ],
)
def test_samples_and_coalitions_are_batched_together(max_batch, calls):
    model = Model()
    list(batch_game(model, inputs_of(5), 5, NAMES, max_batch).table(coalition_matrix(3)))
    assert model.rows == calls


def test_rows_come_in_parts_of_so_many_as_are_asked_for_at_once():
    game = batch_game(Model(), inputs_of(5), 5, NAMES, 10)
    sample, present = some_rows(5, 3)
    parts = list(game.parts(sample, present))
    assert [len(some) for some, _ in parts] == [10, 10, 3]
    assert torch.equal(torch.cat([some for some, _ in parts]), sample)
    assert torch.equal(torch.cat([here for _, here in parts]), present)


def test_where_no_limit_is_set_4_mib_of_float32_inputs_are_asked_for_at_once(monkeypatch):
    assert game_module._MAX_ELEMENTS * 4 == 4 * 2**20
    # a sample has 3 + 5·2 + 5 + 2 + 1 numbers
    monkeypatch.setattr(game_module, "_MAX_ELEMENTS", 21 * 12)
    model = Model()
    list(batch_game(model, inputs_of(5), 5, NAMES).table(coalition_matrix(3)))
    assert model.rows == [10] * 4


def test_outputs_that_are_larger_than_inputs_count_too_once_they_are_known(monkeypatch):
    monkeypatch.setattr(game_module, "_MAX_ELEMENTS", 30 * 21)
    calls = []

    def model(inputs, present):
        calls.append(len(present))
        return present.sum(1, keepdim=True).expand(-1, 60)

    game = batch_game(model, inputs_of(5), 5, NAMES)
    (grand,) = game.table(coalition_matrix(3)[-1:])
    table = torch.cat(list(game.table(coalition_matrix(3))), dim=1)
    assert calls == [5] + [10] * 4
    assert torch.equal(table[:, -1:], grand)
    assert torch.equal(table[..., 0], coalition_matrix(3).sum(1).expand(5, -1))
    calls.clear()
    list(batch_game(model, inputs_of(5), 5, NAMES, 40).table(coalition_matrix(3)))
    assert calls == [40]  # what the user says is what counts


def test_many_coalitions_of_a_small_batch_are_asked_for_in_few_calls():
    calls = []

    def model(inputs, present):
        calls.append(len(present))
        return inputs["m0"] + present.sum(1, keepdim=True)

    names = [f"m{k}" for k in range(10)]
    inputs = {m: torch.zeros(8, 32) for m in names}
    list(batch_game(model, inputs, 8, names).table(coalition_matrix(10)))
    # 320 numbers a row: 3,276 rows in 4 MiB, so 409 coalitions of 8 samples
    assert calls == [409 * 8, 409 * 8, 206 * 8]


def test_a_batch_larger_than_the_limit_is_asked_for_a_coalition_at_a_time(monkeypatch):
    monkeypatch.setattr(game_module, "_MAX_ELEMENTS", 1)
    model = Model()
    list(batch_game(model, inputs_of(5), 5, NAMES).table(coalition_matrix(3)))
    assert model.rows == [5] * 8


@pytest.mark.parametrize(
    "form", [lambda x: x.numpy(), lambda x: x.tolist(), lambda x: x.double()],
    ids=["numpy", "list", "float64"],
)  # fmt: skip
def test_outputs_may_be_arrays_lists_or_tensors(form):
    inputs = inputs_of(3)
    game = batch_game(lambda i, p: form(Model()(i, p)), inputs, 3, NAMES)
    (table,) = game.table(coalition_matrix(3))
    (expected,) = batch_game(Model(), inputs, 3, NAMES).table(coalition_matrix(3))
    assert_same(table.float(), expected)
    assert_same(game.rows(torch.tensor([2, 0]), coalition_matrix(3)[[3, 5]]).float(), torch.stack(
        [expected[2, 3], expected[0, 5]]
    ))  # fmt: skip


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_outputs_may_have_any_shape_after_their_rows(shape):
    def model(inputs, present):
        return torch.ones(len(present), *shape) * present.sum(1).view(-1, *(1,) * len(shape))

    game = batch_game(model, inputs_of(5), 5, NAMES, 4)
    table = torch.cat(list(game.table(coalition_matrix(3))), dim=1)
    assert table.shape == (5, 8, *shape)
    sizes = coalition_matrix(3).sum(1).float()
    assert torch.equal(table.flatten(2).mean(2) if shape else table, sizes.expand(5, 8))


def test_no_samples_and_no_coalitions_give_empty_outputs():
    game = batch_game(Model(), inputs_of(0), 0, NAMES)
    (table,) = game.table(coalition_matrix(3))
    assert table.shape == (0, 8, CLASSES)
    assert list(game.table(coalition_matrix(3)[:0])) == []


# --- the package's own models


class Counted(Encoder):
    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(d, width)
        self.rows: list[int] = []

    def forward(self, x):
        self.rows.append(len(x))
        return torch.tanh(self.layer(x))


class Asked(MultimodalModel):
    """Notes for how many rows it is asked at once."""

    def __init__(self, fusion: str) -> None:
        torch.manual_seed(0)
        widths = {"audio": 4, "text": 5, "visual": 6}
        encoders = {m: Counted(3, width) for m, width in widths.items()}
        super().__init__(*build_fusion(fusion, encoders, CLASSES))
        self.rows: list[int] = []

    def coalition_logits(self, features, coalitions):
        self.rows.append(len(features["text"]) * len(coalitions))
        return super().coalition_logits(features, coalitions)

    def fuse(self, features, present):
        self.rows.append(len(present))
        return super().fuse(features, present)


def flat_inputs(samples: int) -> dict:
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(samples, 3, generator=g) for m in NAMES}


@pytest.mark.parametrize("fusion", ["concat", "late", "gated", "transformer"])
@pytest.mark.parametrize("max_batch", [None, 1, 4, 5, 12, 1000])
def test_a_model_of_the_package_is_never_asked_for_too_much_either(fusion, max_batch):
    model, inputs = Asked(fusion).eval(), flat_inputs(5)
    with torch.no_grad():
        game = batch_game(model, inputs, 5, NAMES, max_batch)
        assert isinstance(game, EncodedGame)
        coalitions = coalition_matrix(3)
        table = torch.cat(list(game.table(coalitions)), dim=1)
        sample, present = some_rows(5, 3)
        rows = game.rows(sample, present)
        asked, encoded = model.rows, [e.rows for e in model.encoders.values()]
        assert max(asked) <= (max_batch or 10**9)
        assert sum(asked) == 5 * 8 + 23
        # each sample once, whatever is asked
        assert [sum(each) for each in encoded] == [5, 5, 5]
        assert max(max(each) for each in encoded) <= (max_batch or 10**9)
        for i in range(5):
            for k in range(8):
                assert_same(table[i, k], by_loop(model, inputs, i, coalitions[k]))
        for r in range(23):
            assert_same(rows[r], by_loop(model, inputs, int(sample[r]), present[r]))


def test_a_model_of_the_package_takes_an_empty_batch():
    game = batch_game(Asked("concat").eval(), flat_inputs(0), 0, NAMES)
    (table,) = game.table(coalition_matrix(3))
    assert table.shape == (0, 8, CLASSES)


# --- a model's own order of modalities


class Weighing:
    """Adds 1, 10 and 100 for its modalities, in its own order."""

    def __init__(self, modalities) -> None:
        self.modalities = modalities

    def __call__(self, inputs, present):
        return (present * torch.tensor([1.0, 10.0, 100.0])).sum(1, keepdim=True)


def test_a_model_that_says_its_modalities_gets_present_in_its_order():
    own, asked = ("visual", "audio", "text"), ("audio", "text", "visual")
    game = batch_game(Weighing(own), flat_inputs(2), 2, asked, 1)
    table = torch.cat(list(game.table(coalition_matrix(3))), dim=1)
    # columns by the bits of audio, text, visual
    expected = [0, 10, 100, 110, 1, 11, 101, 111]
    assert table[:, :, 0].tolist() == [expected] * 2
    found = game.rows(
        torch.tensor([0, 1]), torch.tensor([[True, False, False], [False, True, True]])
    )
    assert found.tolist() == [[10], [101]]


def test_a_model_that_does_not_say_gets_present_in_the_order_asked_for():
    (table,) = batch_game(Weighing(None), flat_inputs(1), 1, NAMES).table(coalition_matrix(3))
    assert table[0, :, 0].tolist() == [0, 1, 10, 11, 100, 101, 110, 111]


def test_a_model_of_other_modalities_is_refused():
    message = "^the model's modalities are audio, text, smell, not audio, text, visual$"
    with pytest.raises(UsageError, match=message):
        batch_game(Weighing(("audio", "text", "smell")), flat_inputs(1), 1, NAMES)
    message = "^the model's modalities are audio, text, visual, not audio, visual$"
    with pytest.raises(UsageError, match=message):
        batch_game(Asked("concat"), flat_inputs(1), 1, ("audio", "visual"))


# --- outputs that do not fit


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.tensor(1.0), r"of shape \(\) for 2 rows"),
        (torch.zeros(3, CLASSES), r"of shape \(3, 4\) for 2 rows"),
        (np.zeros((1, CLASSES)), r"of shape \(1, 4\) for 2 rows"),
    ],
)
def test_outputs_that_are_not_one_a_row_are_refused(output, message):
    game = batch_game(lambda inputs, present: output, flat_inputs(2), 2, NAMES, 2)
    expected = f"^the model gave outputs {message}: expected one row each$"
    with pytest.raises(DataError, match=expected):
        list(game.table(coalition_matrix(3)))
    with pytest.raises(DataError, match=expected):
        game.rows(torch.tensor([0, 1]), coalition_matrix(3)[:2])


def test_outputs_of_another_shape_than_before_are_refused():
    def model(inputs, present):
        return torch.zeros(len(present), 2 + int(present[0, 0]))

    game = batch_game(model, flat_inputs(2), 2, NAMES, 2)
    with pytest.raises(DataError, match=r"^the model gave outputs of shape \(2, 3\) for 2 rows"):
        list(game.table(coalition_matrix(3)))


def test_logits_of_a_model_of_the_package_that_do_not_fit_are_refused():
    model = Asked("concat").eval()
    game = batch_game(model, flat_inputs(5), 5, NAMES, 4)
    model.coalition_logits = lambda features, coalitions: torch.zeros(2, 3, CLASSES)
    message = (
        r"^the model gave outputs of shape \(2, 3, 4\) for 4 samples and 1 coalitions: expected "
        r"\(samples, coalitions, classes\)$"
    )
    with pytest.raises(DataError, match=message):
        list(game.table(coalition_matrix(3)))
    model.fuse = lambda features, present: torch.zeros(2, CLASSES)
    with pytest.raises(DataError, match=r"^the model gave outputs of shape \(2, 4\) for 3 rows"):
        game.rows(torch.tensor([0, 1, 2]), coalition_matrix(3)[:3])


# --- where a model is


def test_a_model_is_where_its_parameters_are():
    assert device_of(nn.Linear(2, 2)) == torch.device("cpu")
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.Identity()) is None
    assert device_of(print) is None


# --- models that work in place


class InPlace(Model):
    """The same model, which writes into everything that it is given, and gives one tensor again."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = torch.zeros(0, CLASSES)

    def __call__(self, inputs, present):
        answer = super().__call__(inputs, present)
        for x in (inputs["audio"], inputs["text"]["values"], *inputs["visual"][:2]):
            x.mul_(-3).add_(1)
        inputs["text"]["mask"].fill_(False)
        inputs["audio"].numpy()[:] = 7
        inputs.clear()
        present.logical_not_()
        self.answer.resize_(answer.shape).copy_(answer)
        return self.answer


@pytest.mark.parametrize("max_batch", [None, 1, 5, 15, 40])
@pytest.mark.parametrize("samples", [1, 5])
def test_a_model_may_write_into_what_it_is_given(samples, max_batch):
    inputs = inputs_of(samples)
    sample, present = some_rows(samples, 3)
    found, expected = [], []
    for model, outputs in ((InPlace(), found), (Model(), expected)):
        game = batch_game(model, inputs, samples, NAMES, max_batch)
        outputs += [torch.cat(list(game.table(coalition_matrix(3))), dim=1)]
        outputs += [game.rows(sample, present)]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    fresh = inputs_of(samples)
    tree_map(lambda x, y: torch.equal(x, y) or pytest.fail("changed"), inputs, fresh)


class WritesFeatures(Asked):
    def encode(self, inputs, present):
        features = super().encode({m: x.clone() for m, x in inputs.items()}, present)
        for x in inputs.values():
            x.zero_()
        return features

    def coalition_logits(self, features, coalitions):
        logits = super().coalition_logits(features, coalitions)
        for z in features.values():
            z.zero_()
        return logits


@pytest.mark.parametrize("max_batch", [None, 1, 5, 12])
def test_so_may_an_encoder_and_a_fusion(max_batch):
    inputs = flat_inputs(5)
    tables = []
    with torch.no_grad():
        for kind in (Asked, WritesFeatures):
            game = batch_game(kind("concat").eval(), inputs, 5, NAMES, max_batch)
            tables.append(torch.cat(list(game.table(coalition_matrix(3))), dim=1))
    assert_same(*tables)
    assert all(torch.equal(inputs[m], x) for m, x in flat_inputs(5).items())
