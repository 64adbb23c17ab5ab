"""What `mmcoop valuate` prints."""

import io
import json
import re
from typing import Any

import pyarrow as pa
import pytest
import torch
from rich.console import Console

from mmcoop.core.games.coalitions import anchor_coalitions, coalition_matrix
from mmcoop.core.games.shapley import shapley_values
from mmcoop.core.valuation.columns import ExtraColumns
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.printable import json_text
from mmcoop.reporting.valuation import (
    agreement,
    agreement_table,
    contributions_table,
    further_table,
    valuation_answer,
    valuation_report,
)
from mmcoop.scores.scores import Scores
from mmcoop.scores.summary import Summary
from mmcoop.scores.table import scores_table

TWO = ("audio", "visual")
LONG = ("accelerometer-of-the-left-wrist", "accelerometer-of-the-right-ankle", "camera")


def table_of(
    values: torch.Tensor,
    modalities: tuple[str, ...] = TWO,
    further: ExtraColumns | None = None,
    *,
    split: str = "train",
    right: bool = True,
) -> pa.Table:
    """Samples with these values of all coalitions, `(samples, 2**n)`.

    They are of two classes by turns, and right from every coalition (or wrong).
    """
    samples = len(values)
    labels = torch.arange(samples) % 2
    choices = (labels if right else 1 - labels).unsqueeze(1).repeat(1, values.shape[1])
    choices[:, 0] = -1
    batch = ValuedBatch(
        ids=[str(k) for k in range(samples)],
        coalitions=coalition_matrix(len(modalities)),
        labels=labels,
        predictions=choices[:, -1],
        outputs=torch.zeros(samples, 2),
        choices=choices,
        values=values.double(),
        contributions=shapley_values(values),
    )
    return scores_table(modalities, split, batch, further.columns(batch) if further else None)


def scores_of(*tables: pa.Table, modalities: tuple[str, ...] = TWO, **details: Any) -> Scores:
    details = {"value": "paper", "fair_share": 0.5, "classes": 2, **details}
    return Scores(pa.concat_tables(tables), modalities, details)


def summary_of(
    values: torch.Tensor,
    modalities: tuple[str, ...] = TWO,
    further: ExtraColumns | None = None,
    *,
    fair_share: float | None = 0.5,
    seed: int = 0,
) -> Summary:
    """The summary of the samples of `table_of`."""
    table = table_of(values, modalities, further)
    scores = scores_of(table, modalities=modalities, value="", fair_share=fair_share)
    return scores.summary(replicates=300, seed=seed)


def random_values(n: int, samples: int = 50, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, 2**n, generator=generator, dtype=torch.float64)


def drawn(*tables: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    for table in tables:
        console.print(table, soft_wrap=isinstance(table, str), markup=False)
    text: str = console.file.getvalue()
    return text


def cells(text: str) -> list[list[str]]:
    """The cells of every row of tables that are drawn, headings aside."""
    rows = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def headings(text: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith("┃")]
    return [cell.strip() for cell in row.strip("┃").split("┃")]


# --- contributions


def test_contributions_have_a_row_a_modality():
    # v(nothing), v(audio), v(visual), v(both): φ is 0.55 and 0.35 for the first, 0.15 and 0.75 then
    summary = summary_of(torch.tensor([[0.1, 0.6, 0.4, 1.0], [0.1, 0.1, 0.7, 1.0]]))
    text = drawn(contributions_table({"train": summary}))
    assert headings(text) == ["modality", "mean φ", "95 % interval", "φ < 0.5", "MM-SHAP"]
    (audio, visual) = cells(text)
    # shares of audio are 0.55 / 0.9 and 0.15 / 0.9
    assert [audio[0], audio[1], audio[3], audio[4]] == ["audio", "0.350", "50.0 %", "38.9 %"]
    assert [visual[0], visual[1], visual[3], visual[4]] == ["visual", "0.550", "50.0 %", "61.1 %"]
    low, high = (float(end) for end in audio[2].split(" … "))
    assert (low, high) == pytest.approx(summary.interval("contribution_audio"), abs=5e-4)
    assert low < 0.35 < high


def test_a_graded_value_counts_what_is_below_the_samples_own_share():
    # φ of audio −¼, ¾ and 0.01; own shares ½, ½ and 0.01
    values = torch.tensor([[0.0, -1.0, 0.5, 1.0], [0.0, 1.0, 0.5, 1.0], [0.9, 0.92, 0.92, 0.92]])
    text = drawn(contributions_table({"test": summary_of(values, fair_share=None)}))
    assert headings(text)[3] == "φ < own share"
    assert [row[3] for row in cells(text)] == ["33.3 %", "33.3 %"]


def test_a_fair_share_is_written_with_three_digits():
    summary = summary_of(random_values(3), LONG, fair_share=1 / 3)
    assert headings(drawn(contributions_table({"test": summary})))[3] == "φ < 0.333"


def test_several_splits_have_a_row_each():
    parts = {name: summary_of(random_values(2, seed=k)) for k, name in enumerate(("train", "all"))}
    text = drawn(contributions_table(parts))
    assert headings(text)[:2] == ["modality", "split"]
    assert [row[:2] for row in cells(text)] == [
        ["audio", "train"],
        ["", "all"],
        ["visual", "train"],
        ["", "all"],
    ]
    for modality, (_, split, mean, *_) in zip(
        ("audio", "audio", "visual", "visual"), cells(text), strict=True
    ):
        assert mean == f"{parts[split].mean_contribution[modality]:.3f}"


def test_where_nothing_contributes_there_is_no_share():
    summary = summary_of(torch.zeros(4, 4))
    assert [row[4] for row in cells(drawn(contributions_table({"train": summary})))] == ["-", "-"]


@pytest.mark.parametrize("splits", [("train",), ("train", "validation", "test")])
@pytest.mark.parametrize("modalities", [TWO, LONG])
def test_all_tables_fit_in_80_columns_and_nothing_is_cut(modalities, splits):
    n = len(modalities)
    values = 1e3 * (random_values(n) - 0.5)  # wide numbers
    groups = {"a-group-of-a-long-name": (0, 1), modalities[-1]: (2,)} if n > 2 else {"both": (0, 1)}
    further = ExtraColumns(modalities, "all", ("banzhaf", "leave-one-out", "owen"), groups)
    tables = [table_of(values, modalities, further, split=split) for split in splits]
    scores = scores_of(*tables, modalities=modalities, split=splits[-1], emap_gap=0.125)
    answer, tables = valuation_report(scores, {"run": "runs/joint"})
    text = drawn(*tables)
    assert max(map(len, text.splitlines())) <= 80
    # a number or a name that is cut ends in …; an interval has it between blanks
    assert not re.search(r"\S…|…\S", text)
    whole = "".join(row[0] for row in cells(text)).replace(" ", "")
    for name in (*modalities, *answer["further"]):
        assert name.replace("_", "").replace(" ", "") in whole.replace("_", "")
    for modality in modalities:
        assert f"{answer['contributions'][modality]:.3f}" in text


# --- train and validation


def test_agreement_is_the_difference_of_the_means_with_its_interval():
    train = summary_of(random_values(2, 200), seed=1)
    validation = summary_of(random_values(2, 80, seed=9) + torch.tensor([0, 0.5, 0, 0.5]), seed=2)
    found = agreement(train, validation)
    for m in TWO:
        difference = train.mean_contribution[m] - validation.mean_contribution[m]
        assert found[m]["difference"] == pytest.approx(difference, abs=1e-12)
        low, high = found[m]["interval"]
        assert low < difference < high
    # as wide as two independent means make it
    widths = [
        s.interval("contribution_audio")[1] - s.interval("contribution_audio")[0]
        for s in (train, validation)
    ]
    low, high = found["audio"]["interval"]
    assert high - low == pytest.approx(sum(w**2 for w in widths) ** 0.5, rel=0.15)
    assert high < 0
    rows = cells(drawn(agreement_table(found)))
    assert [row[0] for row in rows] == list(TWO)
    assert rows[0][1] == f"{found['audio']['difference']:+.3f}"
    assert rows[0][2] == f"{low:+.3f} … {high:+.3f}"


# --- further numbers


def test_further_columns_have_their_means_and_intervals():
    further = ExtraColumns(TWO, "pairwise", ("leave-one-out",))
    summary = summary_of(random_values(2), TWO, further)
    answer = {**valuation_answer(summary), "emap_gap": -0.25}
    rows = cells(drawn(further_table(answer)))
    assert [row[0] for row in rows] == [
        "interaction audio+visual",
        "intershap",
        "leave one out audio",
        "leave one out visual",
        "InterSHAP, global",
        "SHAPE cooperation (macro-F1)",
        "EMAP gap (macro-F1)",
    ]
    none, audio, visual, both = random_values(2).T
    synergy = both - audio - visual + none
    assert rows[0][1] == f"{synergy.mean():+.3f}"
    assert rows[2][1] == f"{(both - visual).mean():+.3f}"
    low, high = (float(end) for end in rows[0][2].split(" … "))
    assert low < synergy.mean() < high
    assert rows[-1][1:] == ["-0.250", ""]


def test_what_is_undefined_is_a_dash_and_leaves_the_rest():
    further = ExtraColumns(TWO, "pairwise")
    # a third of the samples is worth nothing to any coalition: no share of it is interaction
    values = random_values(2, 30)
    values[::3] = 0
    answer = valuation_answer(summary_of(values, TWO, further))
    low, high = answer["further"]["intershap"]["interval"]
    assert 0 < low < answer["further"]["intershap"]["mean"] < high < 1
    nothing = valuation_answer(summary_of(torch.zeros(5, 4), TWO, further))
    rows = {row[0]: row[1:] for row in cells(drawn(further_table(nothing)))}
    assert rows["intershap"] == ["-", ""]
    assert rows["InterSHAP, global"] == ["-", ""]
    assert rows["interaction audio+visual"] == ["+0.000", "+0.000 … +0.000"]


def test_of_many_further_columns_the_first_are_shown():
    names = tuple("abcdef")
    further = ExtraColumns(names, "all")
    answer = valuation_answer(summary_of(random_values(6), names, further))
    assert len(answer["further"]) == 2**6 - 7 + 1
    rows = cells(drawn(further_table(answer)))
    assert rows[40][0] == "18 others: see --json"
    assert [row[0] for row in rows[41:]] == ["InterSHAP, global", "SHAPE cooperation (macro-F1)"]


# --- the whole report


def test_a_report_of_one_split():
    scores = scores_of(table_of(random_values(2)), split="train", value="probability")
    answer, tables = valuation_report(scores, {"run": "runs/joint"})
    assert tables[0] == "runs/joint, 50 train samples, value probability:"
    assert len(tables) == 3  # contributions and accuracy
    assert list(answer) == [
        "run",
        "split",
        "out",
        "value",
        "estimator",
        "samples",
        "contributions",
        "intervals",
        "low_contributing",
        "low_contributing_intervals",
        "coalitions",
        "coalition_intervals",
        "efficiency_residual",
        "mm_shap",
        "further",
    ]
    assert answer["samples"] == 50
    assert answer["coalitions"] == {"audio": 1.0, "visual": 1.0, "audio+visual": 1.0}
    assert answer["coalition_intervals"] == {name: [1.0, 1.0] for name in answer["coalitions"]}
    for m, (low, high) in answer["low_contributing_intervals"].items():
        assert low < answer["low_contributing"][m] < high
    assert cells(drawn(tables[2]))[0] == ["audio", "100.0 %", "100.0 … 100.0"]
    assert answer["further"] == {}
    assert abs(answer["efficiency_residual"]) < 1e-12


def test_a_report_of_all_splits_has_each_of_them_and_their_agreement():
    splits = ("train", "validation", "test")
    tables = [table_of(random_values(2, seed=k), split=name) for k, name in enumerate(splits)]
    scores = scores_of(*tables, split="all")
    parts = scores.summaries()
    answer, tables = valuation_report(scores, {"model": "mine:make"})
    assert list(answer["splits"]) == ["train", "validation", "test"]
    assert answer["contributions"] == parts["all"].mean_contribution
    for name, part in answer["splits"].items():
        assert part["contributions"] == parts[name].mean_contribution
    assert answer["agreement"] == agreement(parts["train"], parts["validation"])
    assert tables[0] == "mine:make, 150 all samples, value paper:"
    assert len(tables) == 4


def test_where_nothing_is_defined_the_answer_is_still_json():
    further = ExtraColumns(TWO, "pairwise")
    table = table_of(torch.zeros(3, 4), TWO, further, split="test", right=False)
    answer, tables = valuation_report(scores_of(table, split="test"), {"run": "runs/joint"})
    answer = json.loads(json_text(answer))
    assert answer["mm_shap"] == {"audio": None, "visual": None}
    assert answer["intershap"] is None
    assert answer["further"]["intershap"] == {"mean": None, "interval": [None, None]}
    assert "nan" not in drawn(*tables)


def drawn_scores(names: tuple[str, ...], seed: int = 0, split: str = "test") -> Scores:
    """The scores of 20 samples of which some coalitions were drawn."""
    generator = torch.Generator().manual_seed(seed)
    few = anchor_coalitions(len(names))
    labels = torch.arange(20) % 2
    table = scores_table(
        names,
        split,
        ValuedBatch(
            ids=[str(k) for k in range(20)],
            coalitions=few,
            labels=labels,
            predictions=labels,
            outputs=torch.zeros(20, 2),
            choices=labels.unsqueeze(1).expand(20, len(few)),
            values=torch.rand(20, len(few), generator=generator, dtype=torch.float64),
            contributions=torch.rand(20, len(names), generator=generator, dtype=torch.float64),
            stderr=torch.full((20, len(names)), 0.125, dtype=torch.float64),
            draws=torch.full((20,), 9),
        ),
    )
    return scores_of(table, modalities=names, estimator="permutation", value="probability")


def test_where_coalitions_were_drawn_intershap_and_shape_are_left_out():
    answer, tables = valuation_report(drawn_scores(tuple("abcd")), {"run": "r"})
    assert answer["estimator"] == "permutation"
    assert not {"intershap", "shape"} & set(answer)
    assert len(answer["coalitions"]) == 4 + 4 + 1
    assert answer["standard_errors"] == dict.fromkeys("abcd", 0.125)
    assert headings(drawn(tables[1]))[3] == "s.e."
    assert [row[3] for row in cells(drawn(tables[1]))] == ["0.125"] * 4


def test_with_standard_errors_and_splits_the_table_still_fits_in_80_columns():
    names = ("accelerometer-of-the-left-wrist", "camera", "microphone", "text")
    parts = {
        name: drawn_scores(names, k).summary(replicates=20)
        for k, name in enumerate(("train", "validation", "all"))
    }
    text = drawn(contributions_table(parts))
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"\S…|…\S", text)
    whole = "".join(row[0] for row in cells(text))
    for name in names:
        assert whole.count(name) == 1  # in the first row of its splits
    for summary in parts.values():
        assert f"{summary.mean_contribution['camera']:.3f}" in text


# --- samples that the model knows by heart


@pytest.mark.parametrize(("held_out", "noted"), [(0.75, True), (0.97, False), (None, False)])
def test_what_was_memorised_is_said_beside_the_table(held_out, noted):
    scores = scores_of(table_of(random_values(2)))  # right on all
    _, tables = valuation_report(scores, {"run": "r"}, held_out)
    found = [line for line in tables if isinstance(line, str) and "--cross-fit" in line]
    assert len(found) == noted
    if noted:
        assert "100.0 % of the training samples" in found[0] and "75.0 %" in found[0]


def test_of_all_splits_training_samples_are_set_beside_validation_samples():
    scores = scores_of(
        table_of(random_values(2)),
        table_of(random_values(2), split="validation", right=False),
        table_of(random_values(2), split="test"),
    )
    _, tables = valuation_report(scores, {"model": "m"})
    assert any("0.0 % of the validation samples" in str(line) for line in tables)
