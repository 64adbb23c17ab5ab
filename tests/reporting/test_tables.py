"""The closing tables hold the right numbers."""

import io
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from rich.console import Console, RenderableType

from mmcoop.core.games.coalitions import coalition_names
from mmcoop.datasets.rejects import Reject
from mmcoop.reporting.tables import (
    accuracy_table,
    before_after_table,
    class_table,
    evaluation_legend,
    evaluation_table,
    facts_table,
    p_value,
    percent,
    rejects_table,
)


def rendered(table: RenderableType, width: int = 200) -> str:
    """The table as the commands print it."""
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False)
    console.print(table, markup=False)
    return console.export_text()


def cells(table: RenderableType) -> list[list[str]]:
    """The lines of the table that have cells, each a list of them."""
    lines = [line.replace("┃", "│") for line in rendered(table).splitlines()]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]


def evaluation(run: str = "runs/joint", **changes: Any) -> dict[str, Any]:
    return {
        "run": run,
        "split": "test",
        "samples": 500,
        "accuracy": 0.937,
        "coalitions": {"audio": 0.851, "visual": 0.59, "audio+visual": 0.937},
        "classes": {
            "low": {
                "samples": 1200,
                "coalitions": {"audio": 0.75, "visual": 0.5, "audio+visual": 1.0},
            },
            "high": {
                "samples": 80,
                "coalitions": {"audio": 0.2, "visual": 0.4, "audio+visual": 0.6},
            },
        },
        "contributions": {"audio": 1.2345, "visual": 0.6395},
        "low_contributing": {"audio": 0.125, "visual": 0.5},
        "cost": {"rows_encoded": 50000, "rows_valued": 0, "seconds": 61.4},
        **changes,
    }


ENHANCED = evaluation(
    "runs/joint-sample",
    coalitions={"audio": 0.841, "visual": 0.83, "audio+visual": 0.961},
    classes={
        "low": {"samples": 1200, "coalitions": {"audio": 0.75, "visual": 0.5, "audio+visual": 0.9}},
        "high": {"samples": 80, "coalitions": {"audio": 0.2, "visual": 0.4, "audio+visual": 0.85}},
    },
    contributions={"audio": 1.0, "visual": 0.9},
    low_contributing={"audio": 0.25, "visual": 0.25},
    cost={"rows_encoded": 1234567, "rows_valued": 20000, "seconds": 99.6},
)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.937, "93.7 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.12345, "12.3 %"), (2 / 3, "66.7 %")],
)
def test_a_share_is_written_in_per_cent_with_one_decimal(share, text):
    assert percent(share) == text


def test_the_accuracy_table_has_a_row_a_coalition():
    accuracy = {"audio": 0.851, "visual": 0.5, "audio+visual": 0.9375}
    assert cells(accuracy_table(accuracy)) == [
        ["modalities present", "accuracy"],
        ["audio", "85.1 %"],
        ["visual", "50.0 %"],
        ["audio+visual", "93.8 %"],
    ]


def six_modalities() -> dict[str, Any]:
    """An evaluation of six modalities, in which a coalition's accuracy is a tenth of its size."""
    accuracy = {name: (name.count("+") + 1) / 10 for name in coalition_names(list("abcdef"))[1:]}
    return evaluation(
        coalitions=accuracy,
        classes={"low": {"samples": 12, "coalitions": accuracy}},
        contributions=dict.fromkeys("abcdef", 1.0),
        low_contributing=dict.fromkeys("abcdef", 0.5),
    )


def test_of_many_modalities_the_accuracy_table_has_the_telling_coalitions():
    rows = cells(accuracy_table(six_modalities()["coalitions"]))
    assert rows[1:7] == [[m, "10.0 %"] for m in "abcdef"]
    assert rows[7:13] == [["+".join(s), "50.0 %"] for s in combinations("abcdef", 5)]
    assert rows[13:] == [["a+b+c+d+e+f", "60.0 %"], ["50 others: see --json", ""]]


def test_of_many_modalities_an_evaluation_has_the_telling_coalitions():
    rows = cells(evaluation_table([six_modalities()]))
    shown = [row[0] for row in rows if row[0].startswith("accuracy")]
    assert len(shown) == 13
    assert shown[0] == "accuracy a, %"
    assert shown[-1] == "accuracy a+b+c+d+e+f, %"


def test_a_long_name_of_a_coalition_is_folded_and_not_cut():
    long = [letter * 8 for letter in "abcdef"]
    names = coalition_names(long)[1:]
    some = [evaluation(run, coalitions=dict.fromkeys(names, 0.5)) for run in ("runs/x", "runs/y")]
    whole = rendered(evaluation_table(some), 60)
    assert "…" not in whole
    first_cells = [
        line.split("│")[1].strip() for line in whole.splitlines() if line.startswith("│")
    ]
    assert "+".join(long) in "".join(first_cells)


def test_of_many_modalities_classes_have_each_alone_and_all():
    assert cells(class_table([six_modalities()])) == [
        ["class, accuracy in %", "samples", *"abcdef", "a+b+c+d+e+f"],
        ["low", "12", *["10.0"] * 6, "60.0"],
    ]


def test_utilisation_rates_have_rows_where_they_are_there():
    def rates(u, v):
        return {
            "utilisation": {
                "audio": {"accuracy": 0.9, "alone": 0.6, "rate": u},
                "visual": {"accuracy": 0.8, "alone": 0.72, "rate": v},
            },
            "utilisation_difference": None if u is None else u - v,
        }

    rows = cells(evaluation_table([evaluation(**rates(0.25, 0.1)), evaluation(**rates(None, 0.3))]))
    assert rows[8:15] == [
        ["branch audio: accuracy, %", "90.0", "90.0", "+0.0"],
        ["branch audio: without visual, %", "60.0", "60.0", "+0.0"],
        ["u(visual | audio)", "0.250", "-", ""],
        ["branch visual: accuracy, %", "80.0", "80.0", "+0.0"],
        ["branch visual: without audio, %", "72.0", "72.0", "+0.0"],
        ["u(audio | visual)", "0.100", "0.300", "+0.200"],
        ["u(visual | audio) − u(audio | visual)", "0.150", "-", ""],
    ]
    assert not any("branch" in row[0] for row in cells(evaluation_table([evaluation()])))


def test_one_evaluation_has_one_column():
    assert cells(evaluation_table([evaluation()])) == [
        ["", "runs/joint"],
        ["accuracy audio, %", "85.1"],
        ["accuracy visual, %", "59.0"],
        ["accuracy audio+visual, %", "93.7"],
        ["mean φ audio", "1.234"],
        ["mean φ visual", "0.639"],
        ["φ audio < 1, % of samples", "12.5"],
        ["φ visual < 1, % of samples", "50.0"],
        ["rows to learn from", "50,000"],
        ["rows to be valued", "0"],
        ["seconds of training", "61"],
    ]


def test_two_evaluations_have_a_column_of_changes():
    assert cells(evaluation_table([evaluation(), ENHANCED])) == [
        ["", "runs/joint", "runs/joint-sample", "change"],
        ["accuracy audio, %", "85.1", "84.1", "-1.0"],
        ["accuracy visual, %", "59.0", "83.0", "+24.0"],
        ["accuracy audio+visual, %", "93.7", "96.1", "+2.4"],
        ["mean φ audio", "1.234", "1.000", "-0.234"],
        ["mean φ visual", "0.639", "0.900", "+0.261"],
        ["φ audio < 1, % of samples", "12.5", "25.0", "+12.5"],
        ["φ visual < 1, % of samples", "50.0", "25.0", "-25.0"],
        ["rows to learn from", "50,000", "1,234,567", "+1,184,567"],
        ["rows to be valued", "0", "20,000", "+20,000"],
        ["seconds of training", "61", "100", "+38"],
    ]


def test_three_evaluations_stand_side_by_side_without_changes():
    third = evaluation("runs/modality")
    found = cells(evaluation_table([evaluation(), ENHANCED, third]))
    assert found[0] == ["", "runs/joint", "runs/joint-sample", "runs/modality"]
    assert found[2] == ["accuracy visual, %", "59.0", "83.0", "59.0"]
    assert all(len(row) == 4 for row in found)


def test_what_a_run_does_not_have_is_a_dash_and_has_no_change():
    alone = evaluation(
        "runs/unimodal-audio",
        coalitions={"audio": 0.9},
        contributions={"audio": 0.9},
        low_contributing={"audio": 0.1},
    )
    found = {row[0]: row[1:] for row in cells(evaluation_table([evaluation(), alone]))}
    assert found["accuracy audio, %"] == ["85.1", "90.0", "+4.9"]
    assert found["accuracy visual, %"] == ["59.0", "-", ""]
    assert found["mean φ visual"] == ["0.639", "-", ""]
    turned = {row[0]: row[1:] for row in cells(evaluation_table([alone, evaluation()]))}
    assert turned["accuracy audio+visual, %"] == ["-", "93.7", ""]


def test_classes_of_one_evaluation_have_the_accuracy_of_every_coalition():
    assert cells(class_table([evaluation()])) == [
        ["class, accuracy in %", "samples", "audio", "visual", "audio+visual"],
        ["low", "1200", "75.0", "50.0", "100.0"],
        ["high", "80", "20.0", "40.0", "60.0"],
    ]


def test_classes_of_two_evaluations_have_the_accuracy_from_all_modalities_and_its_change():
    assert cells(class_table([evaluation(), ENHANCED])) == [
        ["class, accuracy in %", "samples", "runs/joint", "runs/joint-sample", "change"],
        ["low", "1200", "100.0", "90.0", "-10.0"],
        ["high", "80", "60.0", "85.0", "+25.0"],
    ]


def test_classes_of_three_evaluations_have_no_change():
    found = cells(class_table([evaluation(), ENHANCED, evaluation("runs/third")]))
    assert found == [
        ["class, accuracy in %", "samples", "runs/joint", "runs/joint-sample", "runs/third"],
        ["low", "1200", "100.0", "90.0", "100.0"],
        ["high", "80", "60.0", "85.0", "60.0"],
    ]


def test_classes_of_a_run_of_one_modality_beside_one_of_two_are_compared():
    def alone(share: float) -> Mapping[str, Any]:
        return {"samples": 5, "coalitions": {"audio": share}}

    other = evaluation("runs/unimodal", classes={"low": alone(0.5), "high": alone(0.75)})
    found = cells(class_table([evaluation(), other]))
    assert found[1:] == [
        ["low", "1200", "100.0", "50.0", "-50.0"],
        ["high", "80", "60.0", "75.0", "+15.0"],
    ]


def test_before_and_after_stand_beside_each_other_with_their_change():
    before = {"accuracy audio, %": 50.0, "loss": 1.25, "left out": 3.0}
    after = {"loss": 1.0, "accuracy audio, %": 56.25}
    assert cells(before_after_table(before, after)) == [
        ["", "before", "after", "change"],
        ["loss", "1.250", "1.000", "-0.250"],
        ["accuracy audio, %", "50.0", "56.2", "+6.2"],
    ]


def test_facts_have_a_row_each_with_whatever_they_hold():
    facts = {
        "name": "keypad",
        "samples": 1797,
        "options": "[bold]seed[/bold]",
        "nothing": None,
        "started_from": "scratch",
        "lr": 5e-5,
        "accuracy": 0.9371,
        "found": True,
        "lost": False,
        "epoch": 0,
    }
    assert cells(facts_table(facts)) == [
        ["name", "keypad"],
        ["samples", "1,797"],
        ["options", "[bold]seed[/bold]"],
        ["nothing", "none"],
        ["started from", "scratch"],
        ["lr", "5e-05"],
        ["accuracy", "0.9371"],
        ["found", "yes"],
        ["lost", "no"],
        ["epoch", "0"],
    ]


def test_several_names_are_listed_and_of_many_the_first():
    names = [f"class{k}" for k in range(1300)]
    assert cells(facts_table({"few": names[:3], "twelve": names[:12], "none": []})) == [
        ["few", "class0, class1, class2"],
        ["twelve", ", ".join(names[:12])],
        ["none", "none"],
    ]
    ((_, many),) = cells(facts_table({"many": names}))
    assert many == f"1,300: {', '.join(names[:12])}, …"


def test_a_shape_and_a_range_are_told_apart():
    """A shape as it is spoken, numbers as a command takes them."""
    facts = {"options": {"snr_audio": [-6.0, 12.5], "shape": [1, 128, 1024], "sigma": None}}
    assert cells(facts_table(facts)) == [
        ["options", "snr_audio -6 12.5, shape 1×128×1024, sigma none"]
    ]


def test_what_is_nested_has_a_row_for_each_of_the_inner_ones():
    facts = {
        "samples": {"train": 1000, "test": 20},
        "modalities": {
            "audio": {"kind": "vector", "shape": [6]},
            "visual": {"kind": "image", "shape": [1, 28, 28]},
        },
        "mixed": {"a": {"b": 1}, "c": {}, "d": "text"},
        "empty": {},
    }
    assert cells(facts_table(facts)) == [
        ["samples", "train 1,000, test 20"],
        ["modalities audio", "kind vector, shape 6"],
        ["modalities visual", "kind image, shape 1×28×28"],
        ["mixed a", "b 1"],
        ["mixed c", "none"],
        ["mixed d", "text"],
        ["empty", "none"],
    ]


def test_of_several_nested_ones_each_has_a_line():
    facts = {
        "first_to_read": [
            {"id": "a", "files": ["a.wav", "a.mp4"]},
            {"id": "b [x]", "files": ["b.mp4"]},
        ],
        "none": [],
    }
    assert cells(facts_table(facts)) == [
        ["first to read", "a: a.wav, a.mp4"],
        ["", "b [x]: b.mp4"],
        ["none", "none"],
    ]


def test_rejects_have_a_row_each():
    rejects = [Reject("a", "missing", "no file found: a.mp4"), Reject("[b]b", "duplicate")]
    assert cells(rejects_table(rejects)) == [
        ["id", "reason", "detail"],
        ["a", "missing", "no file found: a.mp4"],
        ["[b]b", "duplicate", ""],
    ]


def test_a_long_fact_is_folded_and_not_cut():
    fingerprint = "0123456789abcdef" * 4
    text = rendered(facts_table({"fingerprint": fingerprint}), width=40)
    assert "…" not in text
    assert "".join(row[-1] for row in _split(text)) == fingerprint


def _split(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if "│" in line]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


# --- intervals and tests


def measured(run: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    intervals = {"audio+visual": [low, high]}
    phi = {"audio": [1.1, 1.3], "visual": [0.5, 0.7]}
    about = {"coalition_intervals": intervals, "contribution_intervals": phi, "groups": None}
    return evaluation(run, **about, **more)


def test_one_evaluation_has_a_column_of_intervals():
    rows = {row[0]: row for row in cells(evaluation_table([measured("joint", 0.915, 0.957)]))}
    assert rows[""] == ["", "joint", "95 % interval"]
    assert rows["accuracy audio+visual, %"][2] == "91.5 … 95.7"
    assert rows["accuracy audio, %"][2] == ""
    assert rows["mean φ audio"][2] == "1.100 … 1.300"


def test_of_several_evaluations_there_is_what_their_difference_is_worth():
    gain = {"to": "joint", "accuracy": 0.4, "interval": [-0.1, 0.9], "p": 0.375, "samples": 5}
    sure = {"to": "joint", "accuracy": 0.1, "interval": [0.08, 0.12], "p": 1e-9, "samples": 900}
    joint = measured("joint", 0.2, 0.8, samples=7)
    one, other = (
        measured("b", 0.5, 1.0, difference=gain),
        measured("c", 0.7, 0.9, difference=sure),
    )
    two = {row[0]: row[1:] for row in cells(evaluation_table([joint, one]))}
    assert two["all modalities: 95 % interval"] == ["20.0 … 80.0", "50.0 … 100.0", "-10.0 … +90.0"]
    assert two["all modalities: p of the change"] == ["", "", ".375 (5 differ)"]
    three = {row[0]: row[1:] for row in cells(evaluation_table([joint, one, other]))}
    assert three["all modalities: gain over the first"] == ["", "-10.0 … +90.0", "+8.0 … +12.0"]
    assert three["all modalities: p of the gain"] == ["", ".375 (5 differ)", "<.001 (900 differ)"]
    reading, caution = evaluation_legend([joint, one])
    assert "over samples" in reading and "Only 7 samples in the test split" in caution
    assert evaluation_legend([measured("joint", 0.9, 1.0)]) == []
    (caution,) = evaluation_legend([{**measured("joint", 0.9, 1.0), "groups": 9}])
    assert "Only 9 groups of samples" in caution and "±33 points" in caution


@pytest.mark.parametrize(
    ("p", "text"), [(None, "–"), (1e-300, "<.001"), (0.0312, ".031"), (1.0, "1.000")]
)
def test_a_p_value_is_never_0(p, text):
    assert p_value(p) == text
