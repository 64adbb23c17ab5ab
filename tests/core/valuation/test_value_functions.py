"""Value functions: what a coalition's prediction is worth."""

import math

import pytest
import torch

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.valuation.value_functions import (
    VALUE_FUNCTIONS,
    class_shares,
    paper_value,
    rightness,
    value_function,
)
from mmcoop.errors import DataError, UsageError


def in_rows(worth, logits, labels, sizes):
    """Values `(samples, coalitions)` of logits `(samples, coalitions, classes)`."""
    samples, k, _ = logits.shape
    rows = worth(logits.flatten(0, 1), labels.repeat_interleave(k), sizes.repeat(samples))
    return rows.view(samples, k)


def test_a_right_prediction_is_worth_the_number_of_modalities_and_a_wrong_one_nothing():
    # two samples, coalitions of sizes 0, 1, 1, 2, three classes
    logits = torch.tensor(
        [
            [[9.0, 0, 0], [0, 9, 0], [5, 4, 3], [-3, -1, -2]],
            [[0.0, 0, 9], [0, 0, 9], [0, 9, 0], [0, 0.2, 0.1]],
        ]
    )
    values = in_rows(paper_value, logits, torch.tensor([1, 2]), torch.tensor([0, 1, 1, 2]))
    assert values.dtype == torch.float64
    assert values.tolist() == [[0, 1, 0, 2], [0, 1, 0, 0]]


def test_the_empty_coalition_is_worth_nothing_even_when_the_bias_predicts_the_label():
    logits = torch.tensor([[[0.0, 7.0]]])
    assert in_rows(paper_value, logits, torch.tensor([1]), torch.tensor([0])).tolist() == [[0.0]]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_values_of_random_logits_agree_with_a_plain_loop(n):
    generator = torch.Generator().manual_seed(n)
    samples, classes = 30, 3
    logits = torch.randn(samples, 2**n, classes, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    sizes = coalition_matrix(n).sum(1)
    expected = []
    for i in range(samples):
        row = []
        for coalition in range(2**n):
            scores = logits[i, coalition].tolist()
            right = scores.index(max(scores)) == int(labels[i])
            row.append(float(bin(coalition).count("1")) if right else 0.0)
        expected.append(row)
    assert in_rows(paper_value, logits, labels, sizes).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_tied_classes_each_is_predicted_as_often(dtype):
    # whole numbers, so that most rows have a tie
    chance = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (200, 4), generator=chance).to(dtype)
    labels = torch.randint(4, (200,), generator=chance)
    logits[0, 2], logits[1, int(labels[1])], logits[2] = math.nan, math.inf, -math.inf
    for row, label, found in zip(
        logits.tolist(), labels.tolist(), rightness(logits, labels).tolist(), strict=True
    ):
        highest = [c for c in range(4) if row[c] == max(row)]
        odd = any(math.isnan(z) for z in row)
        assert found == (1 / len(highest) if label in highest and not odd else 0)
    shares = class_shares(logits)
    assert shares.sum(1).tolist() == pytest.approx([0, *[1] * 199])
    assert torch.equal(shares.gather(1, labels.unsqueeze(1)).squeeze(1), rightness(logits, labels))
    sizes = torch.full((200,), 3)
    assert torch.equal(paper_value(logits, labels, sizes), 3 * rightness(logits, labels))
    # no class is favoured: of a tie of all, every label gets as much
    assert rightness(torch.zeros(4, 4), torch.arange(4)).tolist() == [0.25] * 4


# three classes, a right and a wrong prediction; probabilities (1/2, 1/4, 1/4) and (1/8, 3/4, 1/8)
LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]))
TARGETS, SIZES = torch.tensor([0, 2]), torch.tensor([3, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", [3.0, 0.0]),
        ("correct", [1.0, 0.0]),
        ("probability", [0.5, 0.125]),
        ("predicted-probability", [0.5, 0.125]),
        ("log-likelihood", [-math.log(2), -math.log(8)]),
        ("negative-loss", [-math.log(2), -math.log(8)]),
        ("margin", [math.log(2), -math.log(6)]),
    ],
)
def test_values_of_classes_by_hand(name, expected):
    values = value_function(name).worth(LOGITS, TARGETS, SIZES)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_values_of_several_labels_by_hand():
    logits = torch.tensor([[math.log(3), 0.0], [-math.log(3), math.log(4)]])
    truth = torch.tensor([[1, 0], [1, 1]])
    each = value_function("label-probability").worth(logits, truth, SIZES[:2])
    # sigmoid(ln 3) = 3/4, of 0: 1/2, of −ln 3: 1/4, of ln 4: 4/5
    assert each.tolist() == [
        pytest.approx([0.75, 0.5], abs=1e-6),
        pytest.approx([0.25, 0.8], abs=1e-6),
    ]
    loss = value_function("negative-loss").worth(logits, truth, SIZES[:2])
    assert loss.tolist() == pytest.approx(
        [math.log(0.75 * 0.5) / 2, math.log(0.25 * 0.8) / 2], abs=1e-6
    )


def test_values_of_a_regression_by_hand():
    worth = value_function("negative-squared-error").worth
    assert worth(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0]), SIZES).tolist() == [-1.0, 0.0]
    two = worth(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 6.0]]), SIZES[:1])
    assert two.tolist() == [-(1 + 9) / 2]


def test_a_margin_of_one_class_is_refused():
    with pytest.raises(DataError, match="^a margin needs two classes: the model has 1$"):
        value_function("margin").worth(torch.zeros(2, 1), torch.zeros(2).long(), SIZES)


@pytest.mark.parametrize(
    ("name", "share", "best"),
    [
        ("paper", 1.0, None),
        ("correct", None, 1.0),
        ("probability", None, 1.0),
        ("label-probability", None, 1.0),
        ("log-likelihood", None, None),
        ("negative-squared-error", None, None),
    ],
)
def test_the_fair_share_is_a_number_of_the_papers_value_alone(name, share, best):
    function = value_function(name)
    assert (function.fair_share, function.best) == (share, best)


def test_a_function_of_ones_own_goes_by_its_name_and_has_no_fair_share():
    def squared(outputs, targets, sizes):
        return outputs[:, 0] ** 2

    own = value_function(squared)
    assert own.name == "custom: squared"
    assert own.fair_share is None
    assert own.best is None
    assert own.worth(torch.tensor([[3.0]]), None, None).tolist() == [9.0]
    assert value_function(own) is own


def test_a_value_function_is_found_by_its_name():
    assert value_function("paper").worth is paper_value
    assert all(value_function(name).name == name for name in VALUE_FUNCTIONS)


def test_an_unknown_value_function_is_refused_with_the_legal_names():
    with pytest.raises(
        UsageError, match="^unknown value function 'papper': choose one of paper, correct, "
    ):
        value_function("papper")
