"""What a user may pick by name when samples are valued, and what each is; loads without torch."""

#: Value functions for class labels (`core/valuation/value_functions.py`).
CLASS_VALUES = {
    "paper": "the coalition's size where it is right, else 0",
    "correct": "1 where it is right",
    "probability": "probability of the label",
    "log-likelihood": "its logarithm",
    "margin": "the label's logit less the highest other",
    "negative-loss": "minus the cross-entropy",
    "predicted-probability": "of the class predicted from all modalities",
}

#: The same, for whatever labels there are.
VALUES = {
    **CLASS_VALUES,
    "negative-squared-error": "for regression",
    "label-probability": "of each label's truth, for several labels a sample",
}

#: Ways to draw coalitions (`core/games/estimators.py`).
SAMPLED = {
    "permutation": "orders of arrival, in antithetic pairs",
    "kernel": "KernelSHAP's weighted least squares",
}

#: Ways to work out contributions (`core/valuation/config.py`).
ESTIMATORS = {
    "auto": "exact up to 12 modalities, unless --tolerance or a --budget below 2ⁿ is given, else "
    "kernel",
    "exact": "all 2ⁿ coalitions",
    **SAMPLED,
}

#: What replaces an absent modality (`core/imputers/wrap.py`).
ABSENT = {
    "zero": "zeros",
    "mean": "the mean over the background",
    "marginal": "values of samples of the background, outputs averaged over draws",
}

#: Attributions other than Shapley values (`core/games/indices.py`).
INDICES = {
    "banzhaf": "mean over all coalitions alike",
    "leave-one-out": "what is lost without it",
    "owen": "groups first, then their members (needs --groups)",
}

#: Which interactions are reported (`core/valuation/columns.py`).
INTERACTIONS = {
    "none": "none",
    "pairwise": "of each pair of modalities",
    "all": "of every coalition of two or more",
}


def listed(choices: dict[str, str]) -> str:
    """`name: what it is; …`, for a help text."""
    return "; ".join(f"{name}: {what}" for name, what in choices.items())
