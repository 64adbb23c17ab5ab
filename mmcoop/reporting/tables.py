"""The closing tables of the commands."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from mmcoop.core.modalities import display_coalitions
from mmcoop.datasets.rejects import Reject


def percent(share: float) -> str:
    """0.937 → "93.7 %"."""
    return f"{100 * share:.1f} %"


def accuracy_table(
    accuracy: Mapping[str, float], intervals: Mapping[str, Sequence[float]] | None = None
) -> Table:
    """Accuracy by coalition, with 95 % intervals where they are given."""
    table = Table()
    table.add_column("modalities present", overflow="fold")
    for heading in ("accuracy", *(["95 % interval"] if intervals else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    shown = display_coalitions(list(accuracy))
    for coalition in shown:
        cells = [percent(accuracy[coalition])]
        if intervals:
            low, high = intervals[coalition]
            cells.append(f"{100 * low:.1f} … {100 * high:.1f}")
        table.add_row(coalition, *cells)
    if left := len(accuracy) - len(shown):
        table.add_row(f"{left} others: see --json", "")
    return table


def evaluation_table(evaluations: Sequence[Mapping[str, Any]]) -> Table:
    """Evaluations side by side: accuracy by coalition, mean contributions, cost.

    One alone has a column of intervals. With two of them, a column says how the second differs from
    the first; with several, rows have what is known of their differences to the first.
    """
    alone = len(evaluations) == 1 and "coalition_intervals" in evaluations[0]
    table = Table()
    table.add_column("", overflow="fold")  # the names of coalitions of many modalities are long
    for evaluation in evaluations:
        table.add_column(evaluation["run"], justify="right")
    if len(evaluations) == 2:
        table.add_column("change", justify="right")
    if alone:
        table.add_column("95 % interval", justify="right")
    for group, label, scale, form in (
        ("coalitions", "accuracy {}, %", 100, "{:.1f}"),
        ("contributions", "mean φ {}", 1, "{:.3f}"),
        ("low_contributing", "φ {} < 1, % of samples", 100, "{:.1f}"),
    ):
        keys = list(dict.fromkeys(key for e in evaluations for key in e[group]))
        for key in display_coalitions(keys) if group == "coalitions" else keys:
            numbers = [scale * e[group][key] if key in e[group] else None for e in evaluations]
            ends = evaluations[0].get(_INTERVALS.get(group, ""), {}).get(key) if alone else None
            interval = [_interval(ends, scale, form)] if ends else []
            table.add_row(label.format(key), *_cells(numbers, form), *interval)
        if group == "coalitions":
            _add_differences(table, evaluations)
        table.add_section()
    _add_utilisation(table, evaluations)
    for key, label in (
        ("rows_encoded", "rows to learn from"),
        ("rows_valued", "rows to be valued"),
        ("seconds", "seconds of training"),
    ):
        table.add_row(label, *_cells([e["cost"][key] for e in evaluations], "{:,.0f}"))
    return table


_INTERVALS = {"coalitions": "coalition_intervals", "contributions": "contribution_intervals"}


def _interval(ends: Sequence[float], scale: float = 1, form: str = "{:.1f}") -> str:
    return " … ".join(form.format(scale * end) for end in ends)


def _add_differences(table: Table, evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Rows on the accuracy from all modalities: intervals, and the test of what differs."""
    others = evaluations[1:]
    if not others or any("difference" not in one for one in others):
        return
    every = [list(one["coalition_intervals"].values())[-1] for one in evaluations]
    differences = [one["difference"] for one in others]
    gains = [_interval(d["interval"], 100, "{:+.1f}") for d in differences]
    tests = [f"{p_value(d['p'])} ({d['samples']:,} differ)" for d in differences]
    cells = [_interval(ends, 100) for ends in every]
    if len(others) == 1:
        table.add_row("all modalities: 95 % interval", *cells, *gains)
        table.add_row("all modalities: p of the change", "", "", *tests)
    else:
        table.add_row("all modalities: 95 % interval", *cells)
        table.add_row("all modalities: gain over the first", "", *gains)
        table.add_row("all modalities: p of the gain", "", *tests)


def _add_utilisation(table: Table, evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Rows on how much each branch uses the other modalities, where that was asked for."""
    branches = list(evaluations[0].get("utilisation", {}))
    for m in branches:
        others = "+".join(other for other in branches if other != m)
        found = [e["utilisation"][m] for e in evaluations]
        for key, label, scale, form in (
            ("accuracy", f"branch {m}: accuracy, %", 100, "{:.1f}"),
            ("alone", f"branch {m}: without {others}, %", 100, "{:.1f}"),
            ("rate", f"u({others} | {m})", 1, "{:.3f}"),
        ):
            numbers = [None if one[key] is None else scale * one[key] for one in found]
            table.add_row(label, *_cells(numbers, form))
    if len(branches) == 2:
        first, second = branches
        numbers = [e["utilisation_difference"] for e in evaluations]
        table.add_row(f"u({second} | {first}) − u({first} | {second})", *_cells(numbers, "{:.3f}"))
    if branches:
        table.add_section()


#: Below this many samples, or groups of them, an accuracy is a rough one.
FEW = 100


def few_samples(split: str, count: int, what: str = "samples") -> str:
    """A caution where a split is small; nothing where it is not."""
    if count >= FEW:
        return ""
    half = 100 / max(count, 1) ** 0.5
    return (
        f"Only {count} {what} in the {split} split: an accuracy is known to about ±{half:.0f} "
        "points, and smaller differences say little."
    )


def evaluation_legend(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """How intervals and tests are to be read, and what there is too little of."""
    first = evaluations[0]
    groups = first.get("groups")
    lines = []
    if len(evaluations) > 1:
        by = "groups" if groups else "samples"
        lines.append(
            f"Intervals are by the bootstrap, p by McNemar's test, both over {by}: they are of "
            "these runs on other samples. What other seeds would give, mmcoop compare says."
        )
    what = "groups of samples" if groups else "samples"
    caution = few_samples(first["split"], groups or first["samples"], what)
    return [*lines, *([caution] if caution else [])]


def p_value(p: float | None) -> str:
    """0.0312 → ".031", 0.0002 → "<.001"; a dash for no test."""
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def class_table(evaluations: Sequence[Mapping[str, Any]]) -> Table:
    """Accuracy by class, in per cent: of every coalition for one run (of more than three modalities
    from each alone and from all), from all modalities for several.
    """
    table = Table("class, accuracy in %", "samples")
    coalitions = display_coalitions(list(evaluations[0]["coalitions"]))
    if len(evaluations[0]["contributions"]) > 3:
        coalitions = [name for name in coalitions[:-1] if "+" not in name] + coalitions[-1:]
    if len(evaluations) == 1:
        columns = list(coalitions)
    else:
        columns = [evaluation["run"] for evaluation in evaluations]
        columns += ["change"] * (len(columns) == 2)
    for column in columns:
        table.add_column(column, justify="right")
    for name, content in evaluations[0]["classes"].items():
        if len(evaluations) == 1:
            cells = [f"{100 * content['coalitions'][c]:.1f}" for c in coalitions]
        else:
            # the last coalition is the grand one
            every = [list(e["classes"][name]["coalitions"].values())[-1] for e in evaluations]
            cells = _cells([100 * share for share in every], "{:.1f}")
        table.add_row(name, str(content["samples"]), *cells)
    return table


def before_after_table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """The numbers of `after` beside those of `before`, with their change; those whose names end in
    % with one decimal, others with three.
    """
    table = Table()
    table.add_column("", overflow="fold")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for name, number in after.items():
        form = "{:.1f}" if name.endswith("%") else "{:.3f}"
        table.add_row(name, *_cells([before[name], number], form))
    return table


def rejects_table(rejects: Sequence[Reject]) -> Table:
    """What did not get into a data set, and why, a row each."""
    table = Table("id", "reason", "detail")
    for column in table.columns:
        column.overflow = "fold"
    for reject in rejects:
        table.add_row(*reject)
    return table


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Name and value, a row each; of what is nested, a row for each of the inner ones.

    Of a list of nested ones, a line for each.
    """
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, fact in _flat(facts):
        table.add_row(name.replace("_", " "), _in_words(fact))
    return table


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, fact in facts.items():
        if isinstance(fact, Mapping) and any(isinstance(v, Mapping) for v in fact.values()):
            yield from _flat(fact, f"{above}{name} ")
        else:
            yield above + name, fact


def _in_words(fact: Any, most: int = 12) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{k} {_in_words(v)}" for k, v in fact.items()) or "none"
    if isinstance(fact, list) and fact and all(isinstance(item, Mapping) for item in fact):
        return "\n".join(": ".join(map(_in_words, item.values())) for item in fact)
    if isinstance(fact, list) and all(isinstance(item, str) for item in fact):
        shown = ", ".join(fact[:most]) or "none"
        return shown if len(fact) <= most else f"{len(fact):,}: {shown}, …"
    if isinstance(fact, list | tuple):
        if all(isinstance(item, int) for item in fact):
            return "×".join(map(str, fact))  # a shape
        return " ".join(map(_in_words, fact))  # numbers as a command takes them
    if isinstance(fact, bool | None):
        return {True: "yes", False: "no", None: "none"}[fact]
    if isinstance(fact, int):
        return f"{fact:,}"
    return f"{fact:g}" if isinstance(fact, float) else str(fact)


def _cells(numbers: Sequence[float | None], form: str) -> list[str]:
    cells = ["-" if number is None else form.format(number) for number in numbers]
    if len(numbers) == 2:
        before, after = numbers
        change = None if before is None or after is None else after - before
        cells.append("" if change is None else form.replace(":", ":+").format(change))
    return cells
