"""The tables of a comparison, of numbers that can be worked out by hand."""

import csv
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcoop.comparison.folder import Comparison, ComparisonSpec
from mmcoop.comparison.summary import summarise
from mmcoop.reporting.comparison import (
    comparison_sheets,
    comparison_tables,
    legend,
    write_comparison,
)
from mmcoop.scores.scores import Scores

#: Right (1) or wrong (0) on eight test samples, by method and seed.
HITS = {
    "joint": ["11110000", "11100000", "11110000"],
    "sample": ["11111110", "11111111", "11111100"],
    "ogm_x": ["01111000", "11100100", "11110000"],
}


@pytest.fixture
def comparison(tmp_path):
    """Three methods and three seeds: accuracy 11/24, 21/24 and 12/24."""
    (tmp_path / "scores").mkdir()
    rows = []
    for method, seeds in HITS.items():
        for seed, hits in enumerate(seeds):
            run = f"{method}-concat-seed{seed}"
            table = pa.table(
                {
                    "id": list("abcdefgh"),
                    "correct": [h == "1" for h in hits],
                    "contribution_ear": [0.5] * 8,
                }
            )
            # samples come in any order
            order = [7 - i if seed % 2 else i for i in range(8)]
            with Scores.create(tmp_path / "scores" / f"{run}.parquet", ("ear",), {}) as writer:
                writer.write(table.take(order))
            accuracy = hits.count("1") / 8
            rows.append(
                {
                    "run": run,
                    "method": method,
                    "fusion": "concat",
                    "seed": seed,
                    "epochs": 2,
                    "accuracy": accuracy,
                    "macro_f1": accuracy / 2,
                    "mean_average_precision": accuracy / 4,
                    "accuracy_audio": 0.25,
                    "accuracy_visual": 0.5,
                    "accuracy_audio+visual": accuracy,
                    "contribution_audio": accuracy,
                    "contribution_visual": accuracy,
                    "rows_encoded": 1200,
                    "rows_valued": 0,
                    "seconds": 12.3,
                    "peak_memory": 456.7,
                    "lr": 0.001,
                    "options": "{}",
                }
            )
    pd.DataFrame(rows).to_parquet(tmp_path / "runs.parquet")
    about = {"name": "keypad_1", "path": "data", "fingerprint": "f"}
    return Comparison(tmp_path, ComparisonSpec(seeds=(0, 1, 2)), about, {"greedy": "no gates"}, {})


def test_means_and_gains_by_hand(comparison):
    summary = summarise(comparison).set_index("method")
    assert summary["accuracy"].to_dict() == pytest.approx(
        {"joint": 11 / 24, "sample": 21 / 24, "ogm_x": 12 / 24}
    )
    assert summary.loc["sample", "gain_joint"] == pytest.approx(10 / 24)
    # differences 3/8, 5/8, 2/8: standard deviation 0.19094, t(0.975, 2) = 4.3027
    assert summary.loc["sample", "gain_joint_ci"] == pytest.approx(0.4743, rel=1e-3)
    assert pd.isna(summary.loc["joint", "gain_joint"])
    assert "gain_uniform" not in summary


def test_p_values_by_hand_and_their_correction(comparison):
    summary = summarise(comparison).set_index("method")
    # sample − joint by sample, summed over seeds: 0 0 0 1 3 3 2 1, five of one sign: 2 of the 2⁵
    # ways to set signs go as far; of two methods the smaller p is doubled. ogm_x − joint by sample:
    # −2 0 0 0 2 1 0 0, whose sum of 1 any signs reach
    found = summary["p_samples_joint"]
    assert found["sample"] == pytest.approx(2 * 2 / 2**5)
    assert found["ogm_x"] == pytest.approx(1)
    # t = 0.41667 / (0.19094 / √3) = 3.7796 with two degrees of freedom
    assert summary.loc["sample", "p_seeds_joint"] == pytest.approx(2 * 0.06341, rel=1e-3)
    assert not summary["significant_joint"].any()


def test_samples_of_one_group_count_as_one(comparison):
    for path in (comparison.folder / "scores").iterdir():
        table = pq.read_table(path)
        groups = [{"e": "one", "f": "one"}.get(id, id) for id in table["id"].to_pylist()]
        pq.write_table(table.append_column("group", pa.array(groups)), path)
    summary = summarise(comparison).set_index("method")
    # sample − joint by group: 0 0 0 1 6 2 1, four of one sign
    assert summary["p_samples_joint"]["sample"] == pytest.approx(2 * 2 / 2**4)
    shown = "\n".join(map(str, comparison_tables(comparison, summarise(comparison))))
    assert "8 test samples are of 7 groups" in shown and "groups of samples (McNemar)" in shown


def test_few_samples_and_runs_at_chance_are_cautioned_against(comparison):
    for path in (comparison.folder / "scores").iterdir():
        table = pq.read_table(path)
        labels = pa.array([int(id in "abc") for id in table["id"].to_pylist()])
        pq.write_table(table.append_column("label", labels), path)
    shown = legend(comparison, summarise(comparison))
    # 5 of 8 are of one class: 62.5 % by chance, give or take twice 17.1 points; the best has 87.5 %
    assert [line[:30] for line in shown if "Caution" in line] == [
        "Caution: only 8 samples in the",
        "Caution: no run is clearly abo",
    ]
    assert "the best method has 87.5 %" in shown[-1] and "class 62.5 %" in shown[-1]


def test_two_seeds_are_no_test_and_nothing_is_significant(comparison):
    runs = pd.read_parquet(comparison.folder / "runs.parquet")
    runs[runs["seed"] < 2].to_parquet(comparison.folder / "runs.parquet")
    summary = summarise(comparison)
    assert summary["p_seeds_joint"].isna().all() and not summary["significant_joint"].any()
    assert "fewer than 3 seeds" in "\n".join(map(str, comparison_tables(comparison, summary)))


def test_cells_by_hand(comparison):
    first, tests, second, cost = comparison_sheets(comparison, summarise(comparison))
    assert first.header == ["method", "accuracy", "gain over joint"]
    assert [row[0] for row in first.rows] == ["joint", "sample", "ogm_x"]
    assert first.rows[1] == ["sample", "87.5 ± 31.1", "+41.7 ± 47.4°"]
    assert first.rows[0][2] == ""
    assert tests.header == ["method", "over joint"]
    # twice .06341 and .0625, see above
    assert tests.rows[:2] == [["joint", ""], ["sample", ".127 / .125"]]
    scores = ["macro-F1, %", "mAP, %", "audio alone, %", "visual alone, %"]
    assert second.header == ["method", *scores, "φ audio", "φ visual"]
    assert second.rows[2][3:5] == ["25.0 ± 9.0", "50.0 ± 9.0"]  # 4.3027 / 8 / √(12 · 3)
    assert cost.rows[0] == ["joint", "2", "1,200", "0", "12", "457"]


def test_a_gain_that_is_significant_has_no_mark(comparison):
    summary = summarise(comparison)
    summary["significant_joint"] = [False, True, False]
    first, *_ = comparison_sheets(comparison, summary)
    assert [row[2] for row in first.rows] == ["", "+41.7 ± 47.4", "+4.2 ± 17.9°"]


def test_fusions_are_told_where_there_are_several(comparison):
    summary = summarise(comparison)
    summary["fusion"] = ["concat", "sum", "concat"]
    first, *_ = comparison_sheets(comparison, summary)
    assert first.header[:2] == ["method", "fusion"]
    assert first.rows[1][:2] == ["sample", "sum"]


def test_the_files_hold_the_same_cells(comparison):
    summary = summarise(comparison)
    write_comparison(comparison, summary)
    first, *_ = comparison_sheets(comparison, summary)
    markdown = (comparison.folder / "summary.md").read_text()
    assert "| sample | 87.5 ± 31.1 | +41.7 ± 47.4° |" in markdown
    assert "|---|---:|---:|" in markdown
    with (comparison.folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(summary["accuracy"].tolist())
    latex = (comparison.folder / "summary.tex").read_text()
    assert r"ogm\_x & 50.0 $\pm$" in latex
    assert r"sample & 87.5 $\pm$ 31.1 & $+$41.7 $\pm$ 47.4$^\circ$ \\" in latex
    assert re.findall(r"\\label{(.*)}", latex) == [
        "tab:gains",
        "tab:tests",
        "tab:modalities",
        "tab:cost",
    ]
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 4
    for line in latex.splitlines():
        if line.endswith(r"\\"):
            assert not re.search(r"(?<!\\)[_%#]", line), line
    assert len(first.rows) == 3


def test_the_terminal_is_told_how_to_read_it_and_what_is_missing(comparison):
    shown = comparison_tables(comparison, summarise(comparison))
    *_, means, gains, mark, rows, few, left_out = shown
    assert few.startswith("Caution: only 8 samples in the test split")
    assert means.startswith("Numbers are means over 3 seeds ± the 95 % confidence interval")
    assert gains.startswith("A gain is in points of accuracy")
    assert mark.startswith("° marks a gain that is not significant") and "Holm" in mark
    assert rows.startswith("Rows are counted by modality")
    assert left_out == "greedy is left out: no gates"


def test_one_seed_has_no_interval_and_no_significance(comparison):
    runs = pd.read_parquet(comparison.folder / "runs.parquet")
    runs[runs["seed"] == 0].to_parquet(comparison.folder / "runs.parquet")
    summary = summarise(comparison)
    first, *_ = comparison_sheets(comparison, summary)
    assert first.rows[1] == ["sample", "87.5", "+37.5°"]
    assert summary["p_seeds_joint"].isna().all()
    assert summary["p_samples_joint"].notna().sum() == 2
    tests = next(s for s in comparison_sheets(comparison, summary) if s.label == "tests")
    assert tests.rows[1][1].startswith("– / ")


def test_joint_alone_has_no_gains_to_show(comparison):
    runs = pd.read_parquet(comparison.folder / "runs.parquet")
    runs[runs["method"] == "joint"].to_parquet(comparison.folder / "runs.parquet")
    sheets = comparison_sheets(comparison, summarise(comparison))
    assert [sheet.label for sheet in sheets] == ["gains", "modalities", "cost"]
