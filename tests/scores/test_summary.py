"""What a valuation says of a whole data set, against a plain loop."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mmcoop.core.games.coalitions import anchor_coalitions, coalition_matrix, coalition_names
from mmcoop.core.games.shapley import shapley_values
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.scores.summary import Summary, low_contributing
from mmcoop.scores.table import TableLayout, scores_table

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
    # where it is wrong, a coalition predicts another class
    wrong = (labels.unsqueeze(1) + torch.randint(1, CLASSES, hits.shape, generator=generator)) % 5
    choices = torch.where(hits, labels.unsqueeze(1), wrong)
    choices[:, 0] = -1
    return ValuedBatch(
        ids=[str(k) for k in range(size)],
        coalitions=coalition_matrix(n),
        labels=labels,
        predictions=choices[:, -1],
        outputs=torch.zeros(size, CLASSES),
        choices=choices,
        values=values,
        contributions=shapley_values(values),
    )


def summary_of(
    batches: list[ValuedBatch],
    names: tuple[str, ...],
    n_classes: int = CLASSES,
    extra: dict[str, list[torch.Tensor]] | None = None,
    **options: Any,
) -> Summary:
    """The summary of the tables of these batches; `extra`: columns, a part for each batch."""
    tables = [
        scores_table(names, None, b, {name: c[k] for name, c in (extra or {}).items()})
        for k, b in enumerate(batches)
    ]
    summary = Summary(TableLayout.of(tables[0].schema, names), n_classes, **options)
    for table in tables:
        summary.add(table)
    return summary


def summed_up(n: int, batches: list[ValuedBatch]) -> Summary:
    return summary_of(batches, NAMES[n])


def samples(batches: list[ValuedBatch]):
    """(label, hits, contributions) of every sample, as plain Python."""
    for b in batches:
        yield from zip(
            b.labels.tolist(),
            b.hits.tolist(),
            b.contributions.tolist(),
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
        right = mean(hits[column] for _, hits, _ in everything)
        assert summary.accuracy[name] == pytest.approx(right, abs=1e-7)
    for m, name in enumerate(NAMES[n]):
        phis = [phi[m] for _, _, phi in everything]
        assert summary.mean_contribution[name] == pytest.approx(mean(phis), abs=1e-12)
        low = mean(phi < 1 - 1e-6 for phi in phis)
        assert summary.low_contributing[name] == pytest.approx(low, abs=1e-7)
    assert list(summary.mean_contribution) == list(summary.low_contributing) == list(NAMES[n])


@pytest.mark.parametrize("label", [c for c in range(CLASSES) if c != EMPTY_CLASS])
def test_class_accuracy_agrees_with_a_plain_loop_over_the_samples_of_the_class(label):
    batches = [valued(2, size, seed) for seed, size in enumerate((30, 5, 30))]
    summary = summed_up(2, batches)
    of_class = [hits for found, hits, _ in samples(batches) if found == label]
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
    empty = scores_table(NAMES[2], None, valued(2, 0, 0))
    layout = TableLayout.of(empty.schema, NAMES[2])
    for summary in (Summary(layout, CLASSES), summed_up(2, [valued(2, 0, 0)])):
        assert summary.samples == 0
        assert summary.residual == 0
        assert all(math.isnan(share) for share in summary.shares.values())
        assert all(math.isnan(end) for end in summary.interval("contribution_audio"))
        assert summary.class_samples == [0] * CLASSES
        for table in (
            summary.accuracy,
            summary.class_accuracy(0),
            summary.mean_contribution,
            summary.low_contributing,
        ):
            assert table
            assert all(math.isnan(number) for number in table.values())


def test_how_samples_are_cut_into_batches_does_not_matter():
    whole = valued(3, 40, 9)
    cut = [
        ValuedBatch(
            whole.ids[rows], whole.coalitions, *(getattr(whole, field)[rows] for field in
            ("labels", "predictions", "outputs", "choices", "values", "contributions"))
        )
        for rows in (slice(0, 1), slice(1, 18), slice(18, 40))
    ]  # fmt: skip
    one, other = summed_up(3, [whole]), summed_up(3, cut)
    assert one.accuracy == other.accuracy
    assert one.low_contributing == other.low_contributing
    assert one.class_accuracy(1) == other.class_accuracy(1)
    assert one.mean_contribution == pytest.approx(other.mean_contribution, abs=1e-12)


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


# --- the table of mean values, F1, shares, residual


@pytest.mark.parametrize("n", [1, 2, 3])
def test_macro_f1_of_every_coalition_agrees_with_scikit_learn(n):
    batches = [valued(n, size, seed) for seed, size in enumerate((25, 0, 40))]
    summary = summed_up(n, batches)
    labels = torch.cat([b.labels for b in batches])
    choices = torch.cat([b.choices for b in batches])
    choices[:, 0] = labels.bincount().argmax()  # nothing there: the most frequent class
    names = coalition_names(NAMES[n])
    assert list(summary.macro_f1) == names
    for column, name in enumerate(names):
        expected = f1_score(
            labels, choices[:, column], labels=range(CLASSES), average="macro", zero_division=0
        )
        assert summary.macro_f1[name] == pytest.approx(expected, abs=1e-12)


def test_a_prediction_that_is_not_a_number_is_wrong_and_of_no_class():
    batch = valued(2, 30, 3)
    batch.choices[:10, 1] = -1
    summary = summed_up(2, [batch])
    hits = (batch.choices[:, 1] == batch.labels).double().mean()
    assert summary.accuracy["audio"] == pytest.approx(float(hits), abs=1e-12)
    expected = f1_score(
        batch.labels, batch.choices[:, 1], labels=range(CLASSES), average="macro", zero_division=0
    )
    assert summary.macro_f1["audio"] == pytest.approx(expected, abs=1e-12)


def test_classes_that_the_model_has_and_the_labels_have_not_are_wrong_predictions():
    # a model of 9 classes, labels of 5
    batch = valued(2, 60, 3)
    batch.choices[::3, 1:] += 4
    batch = dataclasses.replace(batch, outputs=torch.randn(60, 9))
    summary = summed_up(2, [batch])
    for column, name in enumerate(["audio", "visual", "audio+visual"], start=1):
        right = (batch.choices[:, column] == batch.labels).double().mean()
        assert summary.accuracy[name] == pytest.approx(float(right), abs=1e-12)
        expected = f1_score(
            batch.labels,
            batch.choices[:, column],
            labels=range(CLASSES),
            average="macro",
            zero_division=0,
        )
        assert summary.macro_f1[name] == pytest.approx(expected, abs=1e-12)


def test_the_table_has_the_mean_values_in_table_order_whatever_the_order_of_the_columns():
    batch = valued(3, 30, 0)
    summary = summed_up(3, [batch])
    torch.testing.assert_close(summary.table, batch.values.mean(0))
    by_size = anchor_coalitions(3)
    column = (by_size * 2 ** torch.arange(3)).sum(1)
    other = dataclasses.replace(
        batch,
        coalitions=by_size,
        values=batch.values[:, column],
        choices=batch.choices[:, column],
    )
    reordered = summed_up(3, [other])
    torch.testing.assert_close(reordered.table, summary.table)
    assert reordered.coalitions == coalition_names(NAMES[3], by_size)
    assert reordered.accuracy == summary.accuracy
    numbers = torch.tensor(list(reordered.macro_f1.values()))
    assert reordered.in_table_order(numbers).tolist() == pytest.approx(
        list(summary.macro_f1.values())
    )


def test_where_only_some_coalitions_are_told_there_is_no_table():
    names = tuple("abcde")
    coalitions = anchor_coalitions(5)
    batch = ValuedBatch(
        ids=list("abcd"),
        coalitions=coalitions,
        labels=None,
        predictions=torch.zeros(4),
        outputs=torch.zeros(4, 0),
        choices=None,
        values=torch.rand(4, len(coalitions)).double(),
        contributions=torch.rand(4, 5).double(),
    )
    summary = summary_of([batch], names, 0)
    assert summary.table is None
    assert summary.in_table_order(torch.zeros(len(coalitions))) is None
    assert summary.coalitions == coalition_names(names, coalitions)
    # and neither are there classes here
    assert summary.accuracy == summary.macro_f1 == {}
    assert summary.class_samples == []


def test_shares_are_the_means_of_the_samples_own_over_those_that_have_any():
    batch = valued(3, 50, 2)
    expected = []
    for phi in batch.contributions.tolist():
        total = sum(map(abs, phi))
        if total > 1e-9:
            expected.append([abs(part) / total for part in phi])
    assert 0 < len(expected) < 50
    shares = summed_up(3, [batch, valued(3, 0, 0)]).shares
    assert list(shares) == list(NAMES[3])
    assert list(shares.values()) == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-12)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)


def test_the_residual_is_the_largest_gap_between_contributions_and_what_is_shared_out():
    batch = valued(2, 20, 0)
    assert summed_up(2, [batch]).residual < 1e-12
    batch.contributions[7, 1] += 0.25
    batch.contributions[3, 0] -= 0.125
    assert summed_up(2, [valued(2, 5, 1), batch, valued(2, 5, 2)]).residual == pytest.approx(
        0.25, abs=1e-12
    )


@pytest.mark.parametrize(
    # each sample's own: 1.0, 1.25, 0.45 and −0.15
    ("fair_share", "low"),
    [(1.0, [1.0, 0.5]), (0.5, [0.5, 0.25]), (None, [0.75, 0.25])],
)
def test_low_contributing_is_below_the_fair_share_or_the_samples_own(fair_share, low):
    phi = torch.tensor([[0.9, 1.1], [0.5, 2.0], [0.2, 0.7], [-0.1, -0.2]], dtype=torch.float64)
    batch = ValuedBatch(
        ids=list("abcd"),
        coalitions=coalition_matrix(2),
        labels=None,
        predictions=torch.zeros(4),
        outputs=torch.zeros(4, 0),
        choices=None,
        values=torch.stack([0 * phi[:, 0], phi[:, 0], phi[:, 1], phi.sum(1)], dim=1),
        contributions=phi,
    )
    summary = summary_of([batch], NAMES[2], 0, fair_share=fair_share)
    assert list(summary.low_contributing.values()) == low


def test_a_label_of_several_is_right_or_wrong():
    truth, said = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 1, 1, 0])
    values = torch.tensor([[0.5, 0.9], [0.5, 0.4], [0.5, 0.8], [0.5, 0.1]], dtype=torch.float64)
    batch = ValuedBatch(
        ids=list("abcd"),
        coalitions=coalition_matrix(1),
        labels=truth,
        predictions=said,
        outputs=torch.zeros(4, 1),  # one logit a row
        choices=torch.stack([torch.full_like(said, -1), said], dim=1),
        values=values,
        contributions=shapley_values(values),
    )
    summary = summary_of([batch], NAMES[1], 2)
    assert summary.accuracy == {"audio": 0.5}
    assert summary.class_samples == [1, 3]
    assert summary.class_accuracy(1) == {"audio": pytest.approx(2 / 3)}
    expected = f1_score(truth, said, average="macro")
    assert summary.macro_f1["audio"] == pytest.approx(expected)


# --- further columns and intervals


def normal(batches) -> list[torch.Tensor]:
    """A number a sample, `(batch,)` for each batch."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(len(b), generator=generator, dtype=torch.float64) for b in batches]


def with_intervals(batches, further=(), **options) -> Summary:
    return summary_of(batches, NAMES[2], extra=dict(further), replicates=1000, **options)


def test_further_columns_have_means_and_intervals_by_their_name():
    batches = [valued(2, 100, 0), valued(2, 50, 1)]
    numbers = normal(batches)
    summary = with_intervals(batches, {"synergy": numbers})
    assert summary.extra == ["synergy"]
    every = torch.cat(numbers)
    assert summary.mean("synergy") == pytest.approx(float(every.mean()), abs=1e-12)
    low, high = summary.interval("synergy")
    half = 1.96 * float(every.std()) / 150**0.5
    assert (low, high) == pytest.approx(
        (float(every.mean()) - half, float(every.mean()) + half), abs=0.15 * half
    )
    assert summed_up(2, batches).extra == []


def test_intervals_are_around_the_means_of_contributions_and_of_low_ones():
    summary = with_intervals([valued(2, 200, 0)])
    for m in NAMES[2]:
        for column, mean_of in (
            (f"contribution_{m}", summary.mean_contribution[m]),
            (f"low_{m}", summary.low_contributing[m]),
        ):
            low, high = summary.interval(column)
            assert low < mean_of < high
            tight = summary.interval(column, level=0.5)
            assert low < tight[0] < tight[1] < high


def test_samples_that_have_not_a_further_number_are_left_out_of_its_mean_alone():
    # as the InterSHAP score of samples that nothing changes
    batch = valued(2, 90, 0)
    numbers = torch.arange(90, dtype=torch.float64)
    numbers[60:] = math.nan
    with_gaps = with_intervals([batch], {"intershap": [numbers]})
    assert with_gaps.mean("intershap") == pytest.approx(29.5, abs=1e-12)
    low, high = with_gaps.interval("intershap")
    assert 23 < low < 29.5 < high < 36
    plain = with_intervals([batch])
    for m in NAMES[2]:
        assert with_gaps.interval(f"contribution_{m}") == plain.interval(f"contribution_{m}")


def test_without_replicates_intervals_are_nan():
    assert all(math.isnan(end) for end in summed_up(2, [valued(2, 9, 0)]).interval("low_visual"))


def test_the_interval_of_a_difference_is_around_the_difference_of_the_means():
    train, validation = valued(2, 300, 0), valued(2, 100, 1)
    validation.contributions[:, 0] += 0.5
    one = with_intervals([train], seed=1)
    other = with_intervals([validation], seed=2)
    low, high = one.interval("contribution_audio", minus=other)
    gap = one.mean_contribution["audio"] - other.mean_contribution["audio"]
    error = (
        train.contributions[:, 0].var() / 300 + validation.contributions[:, 0].var() / 100
    ).sqrt()
    half = 1.96 * float(error)
    assert (low, high) == pytest.approx((gap - half, gap + half), abs=0.2 * half)
    nobody = Summary(one.layout, CLASSES, replicates=1000)
    assert all(math.isnan(end) for end in one.interval("contribution_audio", minus=nobody))
    assert all(math.isnan(end) for end in nobody.interval("contribution_audio", minus=one))
