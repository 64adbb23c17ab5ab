"""What `mmcoop valuate` and `mmcoop info` print of scores: means and intervals, by split."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import torch
from rich.table import Table

from mmcoop.core.games.metrics import intershap, shape_cooperation
from mmcoop.reporting.tables import accuracy_table, percent
from mmcoop.scores.resume import EMAP_GAP
from mmcoop.scores.scores import Scores
from mmcoop.scores.summary import Summary


def valuation_report(
    scores: Scores, subject: Mapping[str, Any], held_out: float | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """What scores say of their samples: the answer as JSON has it, and the tables.

    Args:
        scores: The scores; their file is named where they have one.
        subject: What was valued, `{"run": …}` or `{"model": …}`, and the folds, if there were any,
            as `cross_fit`.
        held_out: The accuracy on validation samples, where training samples were valued by a model
            that has seen them.
    """
    summaries = scores.summaries()
    whole = list(summaries.values())[-1]
    split, value = str(scores.details.get("split", "")), scores.details.get("value")
    answer: dict[str, Any] = {
        **subject,
        "split": split,
        "out": str(scores.path),
        "value": value,
        "estimator": scores.details.get("estimator"),
        **valuation_answer(whole),
    }
    gap = scores.details.get(EMAP_GAP)
    if isinstance(gap, float):
        answer["emap_gap"] = gap
    name = str(next(iter(subject.values()), "scores"))
    if folds := subject.get("cross_fit"):
        name += f", {folds} folds"
    what = f"{split} samples" if split else "samples"
    place = f" → {scores.path}" if scores.path else ""
    tables: list[Any] = [
        f"{name}, {whole.samples:,} {what}, value {value}{_imputer(scores)}{place}:",
        contributions_table(summaries),
    ]
    if whole.unpredicted:
        tables.insert(
            1,
            f"{whole.unpredicted:,} of them have logits with NaN, which predict no class (-1) and "
            "count as wrong: look for NaN in the weights and in the data",
        )
    if "train" in summaries and "validation" in summaries:
        held_out = summaries["validation"].accuracy.get("+".join(whole.modalities))
    tables += memorised(summaries.get("train"), held_out)
    if len(summaries) > 1:
        answer["splits"] = {
            split: valuation_answer(part) for split, part in summaries.items() if part is not whole
        }
        if {"train", "validation"} <= summaries.keys():
            answer["agreement"] = agreement(summaries["train"], summaries["validation"])
            tables.append(agreement_table(answer["agreement"]))
    if whole.accuracy:
        tables.append(accuracy_table(whole.accuracy, answer["coalition_intervals"]))
    if answer["further"] or "emap_gap" in answer:
        tables.append(further_table(answer))
    return answer, tables


def _imputer(scores: Scores) -> str:
    """How absent modalities were replaced, if not by the model itself."""
    absent = scores.details.get("absent")
    return f", absent: {absent}" if absent and absent != "zero" else ""


#: From so much more accuracy on training samples than on validation samples on, they are memorised.
MEMORISED = 0.05


def memorised(train: Summary | None, held_out: float | None) -> list[str]:
    """A sentence where the model knows training samples by heart, which flatters contributions."""
    if train is None or held_out is None or not train.accuracy:
        return []
    known = train.accuracy["+".join(train.modalities)]
    if not known - held_out >= MEMORISED:
        return []
    return [
        f"The model is right on {percent(known)} of the training samples, which it has seen, and "
        f"on {percent(held_out)} of the validation samples: contributions to training samples show "
        "what it has memorised too. Value samples that it has not seen: --cross-fit 5, or --split "
        "validation."
    ]


def valuation_answer(summary: Summary) -> dict[str, Any]:
    """What a valuation says of a split, as JSON has it; intervals are 95 % bootstrap ones."""
    return {
        "samples": summary.samples,
        **({"unpredicted": summary.unpredicted} if summary.unpredicted else {}),
        "contributions": summary.mean_contribution,
        "intervals": {m: list(summary.interval(f"contribution_{m}")) for m in summary.modalities},
        "low_contributing": summary.low_contributing,
        "low_contributing_intervals": {
            m: list(summary.interval(f"low_{m}")) for m in summary.modalities
        },
        **({"standard_errors": summary.stderr} if summary.stderr else {}),
        "coalitions": summary.accuracy,
        "coalition_intervals": {
            name: list(summary.interval(f"accuracy_{name}"))
            for name in summary.accuracy
            if summary.has(f"accuracy_{name}")
        },
        "efficiency_residual": summary.residual,
        "mm_shap": summary.shares,
        **_measures(summary),
        "further": {
            name: {"mean": summary.mean(name), "interval": list(summary.interval(name))}
            for name in summary.extra
        },
    }


def agreement(train: Summary, validation: Summary) -> dict[str, Any]:
    """How far contributions to training samples are from those to validation samples: the
    difference of the means by modality, and its 95 % interval.
    """
    return {
        m: {
            "difference": train.mean_contribution[m] - validation.mean_contribution[m],
            "interval": list(train.interval(f"contribution_{m}", minus=validation)),
        }
        for m in train.modalities
    }


def contributions_table(summaries: Mapping[str, Summary]) -> Table:
    """Mean contribution φ with its interval, mean standard error if coalitions were sampled,
    the share of low-contributing samples and MM-SHAP's share: one row per modality and split.
    """
    several = len(summaries) > 1
    table = Table()
    table.add_column("modality", overflow="fold")
    if several:
        table.add_column("split", no_wrap=True)
    first = next(iter(summaries.values()))
    drawn = ["s.e."] if first.stderr else []
    below = "φ < own share" if first.fair_share is None else f"φ < {first.fair_share:.3g}"
    for heading in ("mean φ", "95 % interval", *drawn, below, "MM-SHAP"):
        table.add_column(heading, justify="right", no_wrap=True)
    for modality in first.modalities:
        for split, summary in summaries.items():
            low, high = summary.interval(f"contribution_{modality}")
            table.add_row(
                modality if summary is first else "",
                *([split] if several else []),
                f"{summary.mean_contribution[modality]:.3f}",
                f"{low:.3f} … {high:.3f}",
                *(f"{summary.stderr[modality]:.3f}" for _ in drawn),
                percent(summary.low_contributing[modality]),
                "-" if isnan(share := summary.shares[modality]) else percent(share),
            )
        if several:
            table.add_section()
    return table


def agreement_table(found: Mapping[str, Any]) -> Table:
    """Train less validation, one row per modality."""
    table = Table()
    table.add_column("modality", overflow="fold")
    table.add_column("φ on train − φ on validation", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for modality, content in found.items():
        table.add_row(modality, *_with_interval(content["difference"], content["interval"]))
    return table


def further_table(answer: Mapping[str, Any], most: int = 40) -> Table:
    """Means of the further columns, and the field's summaries that a valuation gives."""
    table = Table()
    table.add_column("further", overflow="fold")
    for heading in ("mean", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, content in list(answer["further"].items())[:most]:
        table.add_row(name.replace("_", " "), *_with_interval(content["mean"], content["interval"]))
    if (left := len(answer["further"]) - most) > 0:
        table.add_row(f"{left} others: see --json", "", "")
    for name, label in (
        ("intershap", "InterSHAP, global"),
        ("shape", "SHAPE cooperation (macro-F1)"),
        ("emap_gap", "EMAP gap (macro-F1)"),
    ):
        if answer.get(name) is not None:
            table.add_row(label, *_with_interval(answer[name]))
    return table


def _with_interval(number: float, interval: Sequence[float] = ()) -> tuple[str, str]:
    """The cells of a number and its interval; what is undefined, as 0/0 is, is a dash."""
    if isnan(number):
        return "-", ""
    return f"{number:+.3f}", " … ".join(f"{end:+.3f}" for end in interval)


def _measures(summary: Summary) -> dict[str, Any]:
    """InterSHAP and SHAPE, where the values of all coalitions are there."""
    table = summary.table
    if table is None or "intershap" not in summary.extra:
        return {}
    # interactions are linear in the values: those of the mean are the means of those
    found: dict[str, Any] = {"intershap": intershap(table.unsqueeze(0)).score}
    f1 = summary.in_table_order(torch.tensor(list(summary.macro_f1.values())))
    if f1 is not None:
        found["shape"] = shape_cooperation(f1)
    return found
