"""What a valuation says of a whole data set, against a plain loop."""

import math

import pytest
import torch

from mmcoop.core.coalitions import coalition_matrix
from mmcoop.core.shapley import shapley_values
from mmcoop.core.summary import Summary, low_contributing
from mmcoop.core.valuation import ValuedBatch

NAMES = {1: ("audio",), 2: ("audio", "visual"), 3: ("audio", "text", "visual")}
CLASSES = 5
EMPTY_CLASS = 3


def valued(n: int, size: int, seed: int) -> ValuedBatch:
    """A valued batch of random hits and logits, without a sample of one class."""
    generator = torch.Generator().manual_seed(seed)
    hits = torch.rand(size, 2**n, generator=generator) < 0.6
    hits[:, 0] = False
    values = (hits * coalition_matrix(n).sum(1)).double()
    labels = torch.randint(CLASSES - 1, (size,), generator=generator)
    labels[labels >= EMPTY_CLASS] += 1
    logits = 2 * torch.randn(size, CLASSES, generator=generator)
    # where it is wrong, a coalition predicts another class
    wrong = (labels.unsqueeze(1) + torch.randint(1, CLASSES, hits.shape, generator=generator)) % 5
    choices = torch.where(hits, labels.unsqueeze(1), wrong)
    choices[:, 0] = -1
    return ValuedBatch(
        ids=None,
        coalitions=coalition_matrix(n),
        labels=labels,
        predictions=choices[:, -1],
        outputs=logits,
        choices=choices,
        values=values,
        contributions=shapley_values(values),
    )


def summed_up(n: int, batches: list[ValuedBatch]) -> Summary:
    summary = Summary(NAMES[n], CLASSES)
    for batch in batches:
        summary.add(batch)
    return summary


def samples(batches: list[ValuedBatch]):
    """(label, hits, contributions, logits) of every sample, as plain Python."""
    for b in batches:
        yield from zip(
            b.labels.tolist(),
            b.hits.tolist(),
            b.contributions.tolist(),
            b.outputs.double().tolist(),
            strict=True,
        )


def mean(numbers) -> float:
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_summary_of_several_batches_agrees_with_a_plain_loop_over_samples(n):
    batches = [valued(n, size, seed) for seed, size in enumerate((8, 1, 0, 33))]
    summary = summed_up(n, batches)
    everything = list(samples(batches))
    names = {
        1: ["audio"],
        2: ["audio", "visual", "audio+visual"],
        3: [
            "audio",
            "text",
            "audio+text",
            "visual",
            "audio+visual",
            "text+visual",
            "audio+text+visual",
        ],
    }[n]

    assert summary.samples == 42
    assert summary.modalities == NAMES[n]
    assert list(summary.accuracy) == names  # the empty coalition is left out
    for column, name in enumerate(names, start=1):
        right = mean(hits[column] for _, hits, _, _ in everything)
        assert summary.accuracy[name] == pytest.approx(right, abs=1e-7)
    for m, name in enumerate(NAMES[n]):
        phis = [phi[m] for _, _, phi, _ in everything]
        assert summary.mean_contribution[name] == pytest.approx(mean(phis), abs=1e-12)
        low = mean(phi < 1 - 1e-6 for phi in phis)
        assert summary.low_contributing[name] == pytest.approx(low, abs=1e-7)
    assert list(summary.mean_contribution) == list(summary.low_contributing) == list(NAMES[n])
    loss = mean(
        math.log(sum(map(math.exp, logits))) - logits[label] for label, _, _, logits in everything
    )
    assert summary.loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("label", [c for c in range(CLASSES) if c != EMPTY_CLASS])
def test_class_accuracy_agrees_with_a_plain_loop_over_the_samples_of_the_class(label):
    batches = [valued(2, size, seed) for seed, size in enumerate((30, 5, 30))]
    summary = summed_up(2, batches)
    of_class = [hits for found, hits, _, _ in samples(batches) if found == label]
    assert summary.class_samples[label] == len(of_class) > 0
    expected = {
        name: mean(hits[column] for hits in of_class)
        for column, name in enumerate(["audio", "visual", "audio+visual"], start=1)
    }
    assert summary.class_accuracy(label) == pytest.approx(expected, abs=1e-7)


def test_samples_are_counted_by_class():
    batches = [valued(2, size, seed) for seed, size in enumerate((30, 5))]
    labels = [label for label, *_ in samples(batches)]
    assert summed_up(2, batches).class_samples == [labels.count(c) for c in range(CLASSES)]


def test_the_accuracy_of_a_class_without_samples_is_nan():
    summary = summed_up(2, [valued(2, 30, 0)])
    assert summary.class_samples[EMPTY_CLASS] == 0
    found = summary.class_accuracy(EMPTY_CLASS)
    assert list(found) == ["audio", "visual", "audio+visual"]
    assert all(math.isnan(share) for share in found.values())


def test_everything_is_nan_before_the_first_sample():
    for summary in (Summary(NAMES[2], CLASSES), summed_up(2, [valued(2, 0, 0)])):
        assert summary.samples == 0
        assert summary.class_samples == [0] * CLASSES
        assert math.isnan(summary.loss)
        for table in (
            *([summary.accuracy, summary.class_accuracy(0)] if summary.coalitions else []),
            summary.mean_contribution,
            summary.low_contributing,
        ):
            assert table
            assert all(math.isnan(number) for number in table.values())


def test_how_samples_are_cut_into_batches_does_not_matter():
    whole = valued(3, 40, 9)
    cut = [
        ValuedBatch(
            None, whole.coalitions, *(getattr(whole, field)[rows] for field in
            ("labels", "predictions", "outputs", "choices", "values", "contributions"))
        )
        for rows in (slice(0, 1), slice(1, 18), slice(18, 40))
    ]  # fmt: skip
    one, other = summed_up(3, [whole]), summed_up(3, cut)
    assert one.accuracy == other.accuracy
    assert one.low_contributing == other.low_contributing
    assert one.class_accuracy(1) == other.class_accuracy(1)
    assert one.mean_contribution == pytest.approx(other.mean_contribution, abs=1e-12)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)


def test_mean_contributions_add_up_to_the_modalities_times_the_accuracy():
    # efficiency: φ of a sample sum to n where all modalities together are right, else to 0
    summary = summed_up(3, [valued(3, 50, 4)])
    assert sum(summary.mean_contribution.values()) == pytest.approx(
        3 * summary.accuracy["audio+text+visual"], abs=1e-6
    )


def test_a_modality_is_low_contributing_where_it_has_less_than_its_fair_share():
    phi = torch.tensor([[1.5, 0.5], [1.0, 1.0], [0.999, -0.5]], dtype=torch.float64)
    assert low_contributing(phi).tolist() == [[False, True], [False, False], [True, True]]


def test_a_rounding_error_below_the_fair_share_is_not_low():
    phi = torch.tensor([1 - 1e-15, 1 - 1e-7, 1 - 1e-5], dtype=torch.float64)
    assert low_contributing(phi).tolist() == [False, False, True]


@pytest.mark.parametrize("n", range(1, 9))
def test_modalities_that_are_all_right_alone_and_together_are_never_low(n):
    values = coalition_matrix(n).sum(1).double()[None]
    assert not low_contributing(shapley_values(values)).any()
