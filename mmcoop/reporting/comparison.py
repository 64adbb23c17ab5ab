"""The tables of a comparison: in the terminal, and as CSV, Markdown and LaTeX files."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.table import Table

from mmcoop.comparison.folder import Comparison
from mmcoop.comparison.statistics import LEAST_SEEDS
from mmcoop.comparison.summary import REFERENCES
from mmcoop.files import atomic_write
from mmcoop.reporting.tables import few_samples, p_value

#: Marks a gain that is not significant.
MARK = "°"

_WORDS = ("method", "fusion")  # the columns that are not numbers


@dataclass(frozen=True)
class Sheet:
    """A table of finished cells; the first columns say what a row is about."""

    label: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def comparison_sheets(comparison: Comparison, summary: pd.DataFrame) -> list[Sheet]:
    """Accuracy and gains; how significant gains are; what single modalities say; what it cost."""
    rows = summary_rows(summary)
    about = ["method", "fusion"] if len(set(summary["fusion"])) > 1 else ["method"]

    def sheet(
        label: str, title: str, columns: Mapping[str, Callable[[Mapping[str, Any]], str]]
    ) -> Sheet:
        kept = {
            heading: cells
            for heading, cell in columns.items()
            if any(cells := [cell(row) for row in rows])
        }
        return Sheet(
            label,
            title,
            [*about, *kept],
            [
                [*(row[name] for name in about), *cells]
                for row, *cells in zip(rows, *kept.values(), strict=True)
            ],
        )

    gains = {f"gain over {name}": _gain(name.replace(" ", "_")) for name in REFERENCES}
    tests = {f"over {name}": _p_values(name.replace(" ", "_")) for name in REFERENCES}
    coalitions = _named(summary, "accuracy_")
    grand = max(coalitions, key=lambda name: name.count("+"))  # that is the accuracy itself
    more = {
        "macro-F1, %": _share("macro_f1"),
        "mAP, %": _share("mean_average_precision"),
        **{
            f"{name.removeprefix('accuracy_')} alone, %": _share(name)
            for name in coalitions
            if name != grand
        },
        **{
            f"φ {name.removeprefix('contribution_')}": _measure(name, form="{:.2f}")
            for name in _named(summary, "contribution_")
        },
    }
    cost = {
        "epochs": _measure("epochs", form="{:,.0f}", interval=False),
        "rows to learn from": _measure("rows_encoded", form="{:,.0f}", interval=False),
        "rows to be valued": _measure("rows_valued", form="{:,.0f}", interval=False),
        "seconds": _measure("seconds", form="{:,.0f}", interval=False),
        "peak memory, MiB": _measure("peak_memory", form="{:,.0f}", interval=False),
    }
    name = comparison.dataset["name"]
    by_modality = "accuracy from some modalities alone, mean contribution φ"
    sheets = [
        sheet(
            "gains", f"{name}, test split: accuracy, %", {"accuracy": _share("accuracy"), **gains}
        ),
        sheet("tests", f"{name}: p of each gain, over seeds / over test samples, corrected", tests),
        sheet("modalities", f"{name}, test split: other scores, {by_modality}", more),
        sheet("cost", f"{name}: mean cost of a run", cost),
    ]
    return [sheet for sheet in sheets if len(sheet.header) > len(about)]


def legend(comparison: Comparison, summary: pd.DataFrame) -> list[str]:
    """How the numbers are to be read, sentence by sentence."""
    plan = comparison.plan
    seeds = summary["seeds"].max()
    several = seeds > 1
    matched = {
        "epochs": "Every run trains as many epochs; 'joint matched' goes on, in whole epochs, "
        "until it has used the rows of the run that used most.",
        "rows": "Every run goes on, in whole epochs, until it has used the rows of the one that "
        "used most.",
        "seconds": "Every run goes on, in whole epochs, for as many seconds as the slowest method "
        "takes.",
    }[plan.match]
    groups = comparison.groups(comparison.runs["run"].iloc[0])
    tested = "samples" if groups is None else "groups of samples"
    lines = [
        f"Numbers are means over {seeds} {'seeds' if several else 'seed'}"
        + (" ± the 95 % confidence interval (Student's t)" if several else "")
        + "; the epoch is chosen on validation, the test split is read once.",
        "A gain is in points of accuracy over the control that heads the column, with the same "
        "seed, and the same fusion where it has it.",
        f"{MARK} marks a gain that is not significant. Significant: p < 0.05 both over seeds "
        f"(paired t-test) and over test {tested} (McNemar), each corrected for the number of gains "
        "in its column (Holm); intervals are not corrected."
        + (
            ""
            if seeds >= LEAST_SEEDS
            else f" With fewer than {LEAST_SEEDS} seeds there is no "
            "test over seeds, and no gain is significant."
        ),
        "Rows are counted by modality: one for each time that an encoder sees a sample, to learn "
        "from it or to value it. " + matched,
    ]
    if groups is not None:
        lines.append(
            f"The {len(groups):,} test samples are of {groups.nunique():,} groups, such as videos "
            "or speakers; samples of one group are not independent, and count as one there."
        )
    if plan.tune:
        lines.append(f"Tuned on validation, {plan.tune} trials a method.")
    return lines + cautions(comparison, summary)


def cautions(comparison: Comparison, summary: pd.DataFrame) -> list[str]:
    """What there is too little of for the numbers to say much."""
    run = comparison.runs["run"].iloc[0]
    samples, groups = len(comparison.hits(run)), comparison.groups(run)
    tested = (samples, "samples") if groups is None else (groups.nunique(), "groups of samples")
    lines = [few_samples("test", *tested)]
    if (chosen_on := comparison.validation_samples) is not None:
        lines.append(few_samples("validation", chosen_on))
    chance, best = comparison.chance(run), float(summary["accuracy"].max())
    # two standard errors of an accuracy at chance
    if best < chance + 2 * math.sqrt(chance * (1 - chance) / tested[0]):
        lines.append(
            f"No run is clearly above chance: the best method has {100 * best:.1f} %, and always "
            f"saying the most frequent class {100 * chance:.1f} %. Differences between methods say "
            "nothing before one of them learns the task."
        )
    return [f"Caution: {line[0].lower()}{line[1:]}" for line in lines if line]


def comparison_tables(comparison: Comparison, summary: pd.DataFrame) -> list[RenderableType]:
    """What the terminal shows."""
    shown: list[RenderableType] = []
    for sheet in comparison_sheets(comparison, summary):
        table = Table()
        for heading in sheet.header:
            table.add_column(heading, justify="left" if heading in _WORDS else "right")
        for row in sheet.rows:
            table.add_row(*row)
        shown += [f"{sheet.title}:", table]
    shown += legend(comparison, summary)
    shown += [f"{name} is left out: {why}" for name, why in comparison.left_out.items()]
    shown += [f"{name} failed: {why}" for name, why in comparison.failed.items()]
    return shown


def summary_rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """The summary as JSON has it: one row per method, None where there is no number."""
    plain = summary.astype(object).where(summary.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def write_comparison(comparison: Comparison, summary: pd.DataFrame) -> None:
    """Write `summary.csv`, `summary.md` and `summary.tex` into the comparison folder."""
    sheets = comparison_sheets(comparison, summary)
    lines = legend(comparison, summary)
    note = f"{{\\footnotesize {_in_latex(' '.join(lines))}\\par}}"
    with comparison.disk_room():
        with atomic_write(comparison.folder / "summary.csv") as path:
            summary.to_csv(path, index=False)
        _write(
            comparison.folder / "summary.md",
            [*map(_markdown, sheets), "\n".join(f"- {line}" for line in lines)],
        )
        _write(comparison.folder / "summary.tex", [*map(_latex, sheets), note])


def _named(summary: pd.DataFrame, prefix: str) -> list[str]:
    return [n for n in summary.columns if n.startswith(prefix) and not n.endswith("_ci")]


def _measure(
    name: str, *, scale: float = 1.0, form: str, interval: bool = True
) -> Callable[[Mapping[str, Any]], str]:
    def cell(row: Mapping[str, Any]) -> str:
        mean, half = row.get(name), row.get(f"{name}_ci")
        if mean is None:
            return ""
        spread = f" ± {form.format(scale * half)}" if interval and half is not None else ""
        return form.format(scale * mean) + spread

    return cell


def _share(name: str) -> Callable[[Mapping[str, Any]], str]:
    return _measure(name, scale=100.0, form="{:.1f}")


def _gain(reference: str) -> Callable[[Mapping[str, Any]], str]:
    def cell(row: Mapping[str, Any]) -> str:
        said = _measure(f"gain_{reference}", scale=100.0, form="{:+.1f}")(row).replace("± +", "± ")
        return said and said + ("" if row[f"significant_{reference}"] else MARK)

    return cell


def _p_values(reference: str) -> Callable[[Mapping[str, Any]], str]:
    def cell(row: Mapping[str, Any]) -> str:
        ps = [row.get(f"p_{over}_{reference}") for over in ("seeds", "samples")]
        return " / ".join(map(p_value, ps)) if any(p is not None for p in ps) else ""

    return cell


def _markdown(sheet: Sheet) -> str:
    sides = "".join("|---" if heading in _WORDS else "|---:" for heading in sheet.header)
    lines = [f"{sheet.title}:", "", _line(sheet.header), f"{sides}|"]
    return "\n".join([*lines, *map(_line, sheet.rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _latex(sheet: Sheet) -> str:
    rows = [" & ".join(map(_in_latex, row)) + r" \\" for row in (sheet.header, *sheet.rows)]
    columns = "".join("l" if heading in _WORDS else "r" for heading in sheet.header)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            rf"\caption{{{_in_latex(sheet.title)}}}",
            rf"\label{{tab:{sheet.label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _in_latex(text: str) -> str:
    for sign, command in (
        ("\\", r"\textbackslash "),
        ("%", r"\%"),
        ("_", r"\_"),
        ("&", r"\&"),
        ("#", r"\#"),
        ("±", r"$\pm$"),
        ("φ", r"$\phi$"),
        ("<", "$<$"),
        (MARK, r"$^\circ$"),
        ("+", "$+$"),
    ):
        text = text.replace(sign, command)
    return f"$-${text[1:]}" if text.startswith("-") else text


def _write(path: Path, parts: Sequence[str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
