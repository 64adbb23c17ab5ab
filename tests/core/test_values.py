"""Value functions: what a coalition's prediction is worth."""

import pytest
import torch

from mmcoop.core.coalitions import coalition_matrix
from mmcoop.core.values import VALUE_FUNCTIONS, paper_value, value_function
from mmcoop.errors import UsageError


def test_a_right_prediction_is_worth_the_number_of_modalities_and_a_wrong_one_nothing():
    # two samples, coalitions of sizes 0, 1, 1, 2, three classes
    logits = torch.tensor(
        [
            [[9.0, 0, 0], [0, 9, 0], [5, 4, 3], [-3, -1, -2]],
            [[0.0, 0, 9], [0, 0, 9], [0, 9, 0], [0, 0.2, 0.1]],
        ]
    )
    values = paper_value(logits, torch.tensor([1, 2]), torch.tensor([0, 1, 1, 2]))
    assert values.dtype == torch.float64
    assert values.tolist() == [[0, 1, 0, 2], [0, 1, 0, 0]]


def test_the_empty_coalition_is_worth_nothing_even_when_the_bias_predicts_the_label():
    logits = torch.tensor([[[0.0, 7.0]]])
    assert paper_value(logits, torch.tensor([1]), torch.tensor([0])).tolist() == [[0.0]]


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
    assert paper_value(logits, labels, sizes).tolist() == expected


def test_the_papers_value_is_found_by_its_name():
    assert value_function("paper") is paper_value
    assert list(VALUE_FUNCTIONS) == ["paper"]


def test_an_unknown_value_function_is_refused_with_the_legal_names():
    with pytest.raises(UsageError, match="^unknown value function 'papper': choose one of paper$"):
        value_function("papper")
