"""A scikit-learn pipeline on groups of features: which group do its diagnoses rest on?

    python examples/scikit_learn_pipeline.py

The breast-cancer data describe cell nuclei by 10 features, with the average, the standard error and
the worst value of each: three modalities of 10 columns. The adapter is one function. The choice of
the imputer matters: no cell has zeros as its values, so with zeros no group seems informative.
"""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmcoop import replace_inputs, valuate

GROUPS = ("average", "error", "worst")


def in_groups(table: np.ndarray) -> dict[str, torch.Tensor]:
    parts = np.split(table, len(GROUPS), axis=1)
    return {group: torch.from_numpy(part) for group, part in zip(GROUPS, parts, strict=True)}


def main() -> None:
    table, labels = load_breast_cancer(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(table, labels, random_state=0)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, train_labels)

    def model(inputs: dict[str, torch.Tensor]) -> np.ndarray:
        # outputs are read as logits: log-probabilities qualify, probabilities do not
        columns = torch.cat([inputs[group] for group in GROUPS], dim=1).numpy()
        return np.log(pipeline.predict_proba(columns).clip(1e-12))

    batches = [{"inputs": in_groups(test), "labels": test_labels}]
    for absent in ("zero", "mean", "marginal"):
        wrapped = replace_inputs(model, GROUPS, absent, background=in_groups(train), draws=100)
        scores = valuate(wrapped, batches, modalities=GROUPS).to_frame()
        print(f"{wrapped.absent}:")
        for group in GROUPS:
            alone = 100 * (scores[f"value_{group}"] > 0).mean()
            phi = scores[f"contribution_{group}"].mean()
            print(f"  {group}: mean φ {phi:.2f}, right alone on {alone:.0f} %")
    print(
        f"all together: right on {100 * scores['correct'].mean():.0f} % of {len(scores)} diagnoses"
    )


if __name__ == "__main__":
    main()
