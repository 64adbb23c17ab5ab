"""The training methods: what an epoch trains on, and what it costs."""

import inspect
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.resampling import modality_probability, sample_level_examples
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, UsageError
from mmcoop.methods import LEVELS, METHODS, checked_options, method_options
from mmcoop.methods.base import Method, TrainContext
from mmcoop.methods.joint import Joint
from mmcoop.methods.modality import ModalityLevel
from mmcoop.methods.sample import SampleLevel
from mmcoop.methods.unimodal import Unimodal
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.training.build import Architecture
from mmcoop.training.config import TrainConfig, make_config
from mmcoop.training.run import Run
from mmcoop.training.train import train

# The eight correctness patterns of two modalities (first alone, second alone, both) and their
# contributions, from the paper, with the extra rows that each of them asks for.
PATTERNS = [
    ((0, 0, 0), (0.0, 0.0), (2, 2)),
    ((1, 0, 0), (0.5, -0.5), (1, 3)),
    ((0, 1, 0), (-0.5, 0.5), (3, 1)),
    ((1, 1, 0), (0.0, 0.0), (2, 2)),
    ((0, 0, 1), (1.0, 1.0), (0, 0)),
    ((1, 0, 1), (1.5, 0.5), (0, 1)),
    ((0, 1, 1), (0.5, 1.5), (1, 0)),
    ((1, 1, 1), (1.0, 1.0), (0, 0)),
]
CONTRIBUTIONS = torch.tensor([phi for _, phi, _ in PATTERNS], dtype=torch.float64)


class Watch(Progress):
    """Keeps the batches that training goes through, by epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[Batch]] = []

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        kept: list[Batch] = []
        if label.startswith("epoch "):
            self.epochs.append(kept)
        for item in items:
            kept.append(item)
            yield item

    def epoch_samples(self, epoch: int) -> Counter:
        """How often each row, `(sample, modalities present)`, was trained on."""
        return Counter(
            (int(sample), tuple(present.tolist()))
            for batch in self.epochs[epoch - 1]
            for sample, present in zip(batch.sample, batch.present, strict=True)
        )


def model_of(n_modalities: int = 2) -> MultimodalModel:
    names = [f"m{k}" for k in range(n_modalities)]
    return Architecture(
        encoders=dict.fromkeys(names, "mlp"),
        shapes=dict.fromkeys(names, (3,)),
        fusion="concat",
        classes=("no", "yes"),
    ).build()


def task_with(
    contributions: torch.Tensor, *, warmup: int = 0, seed: int = 0
) -> tuple[TrainContext, list]:
    """A task whose samples have these contributions, and the list of what was asked for."""
    asked: list[torch.Tensor | None] = []

    def value(samples: torch.Tensor | None) -> torch.Tensor:
        asked.append(samples)
        return contributions if samples is None else contributions[samples]

    n_samples, n_modalities = contributions.shape
    task = TrainContext(
        model=model_of(n_modalities),
        n_samples=n_samples,
        n_classes=2,
        seed=seed,
        warmup=warmup,
        value=value,
        batches=lambda *_: pytest.fail("no batches are asked for"),
        optimizer=lambda _: pytest.fail("no optimizer is asked for"),
    )
    return task, asked


def counted(rows: Any) -> Counter:
    return Counter(
        (int(sample), tuple(present.tolist()))
        for sample, present in zip(rows.sample, rows.present, strict=True)
    )


def whole(n_samples: int, n_modalities: int = 2) -> Counter:
    return Counter({(i, (True,) * n_modalities): 1 for i in range(n_samples)})


@pytest.fixture
def dataset(senses) -> DatasetFolder:
    return senses


def config_of(**changes: Any) -> TrainConfig:
    settings = {"epochs": 3, "batch_size": 16, "lr": 1e-2, "schedule": "constant", "warmup": 1}
    return make_config(settings, changes)


def contributions_by_hand(run: Run, dataset: DatasetFolder) -> torch.Tensor:
    """φ of every training sample by the run's last weights, by the formula for two modalities."""
    model = run.architecture.build()
    model.load_state_dict(load_file(run.last / "model.safetensors"))
    model.eval()
    split = dataset.split("train")
    inputs = {m: torch.from_numpy(split.read(m, np.arange(len(split)))) for m in ("ear", "eye")}
    labels = torch.from_numpy(split.labels.copy())
    right = {}
    for present in ((True, False), (False, True), (True, True)):
        rows = torch.tensor([present] * len(split))
        with torch.no_grad():
            right[present] = (model(inputs, rows).argmax(1) == labels).double()
    ear, eye, both = right[True, False], right[False, True], 2 * right[True, True]
    return torch.stack([(ear + both - eye) / 2, (eye + both - ear) / 2], dim=1)


# --- joint training


def test_joint_training_is_every_sample_once_and_whole():
    task, asked = task_with(CONTRIBUTIONS)
    for epoch in (1, 7):
        assert counted(Joint(task).epoch_samples(epoch)) == whole(8)
    assert asked == []


def test_the_loss_is_the_cross_entropy_of_what_is_present():
    task, _ = task_with(CONTRIBUTIONS)
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(4, 3, generator=generator) for m in task.model.modalities}
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    labels = torch.tensor([0, 1, 1, 0])
    batch = Batch(inputs, present, labels, torch.arange(4))
    logits = task.model(inputs, present)
    by_hand = -torch.log_softmax(logits, 1)[torch.arange(4), labels].mean()
    torch.testing.assert_close(Joint(task).loss(batch), by_hand)


def test_one_update_is_one_step_down_the_gradient_and_returns_the_loss_before_it():
    task, _ = task_with(CONTRIBUTIONS)
    inputs = {m: torch.randn(4, 3) for m in task.model.modalities}
    batch = Batch(
        inputs, torch.ones(4, 2, dtype=torch.bool), torch.tensor([0, 1, 1, 0]), torch.arange(4)
    )
    before = [p.detach().clone() for p in task.model.parameters()]
    loss = F.cross_entropy(task.model(inputs), batch.labels)
    gradients = torch.autograd.grad(loss, list(task.model.parameters()))
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    # gradients that somebody left there must not count
    for p in task.model.parameters():
        p.grad = torch.full_like(p, 100.0)
    returned = Joint(task).update(batch, optimizer)
    assert not returned.requires_grad
    torch.testing.assert_close(returned, loss.detach())
    for p, start, gradient in zip(task.model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), start - 0.1 * gradient)


def test_a_method_does_not_own_the_models_weights():
    task, _ = task_with(CONTRIBUTIONS)
    method = SampleLevel(task)
    assert method.task is task
    assert list(method.parameters()) == []
    assert method.state_dict() == {}


# --- sample-level enhancement


def test_each_correctness_pattern_gets_the_extra_rows_of_the_paper():
    task, asked = task_with(CONTRIBUTIONS)
    rows = counted(SampleLevel(task).epoch_samples(1))
    expected = whole(8)
    for sample, (_, _, (first, second)) in enumerate(PATTERNS):
        expected[sample, (True, False)] += first
        expected[sample, (False, True)] += second
    assert rows == +expected
    assert asked == [None]


def test_with_three_modalities_an_extra_row_has_one_of_them_alone():
    phi = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 0.5], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    task, _ = task_with(phi)
    expected = whole(3, 3)
    expected[1, (True, False, False)] = 1
    expected[1, (False, False, True)] = 1
    expected[2, (True, False, False)] = 3
    expected[2, (False, True, False)] = 2
    assert counted(SampleLevel(task).epoch_samples(1)) == expected


def test_a_limit_cuts_the_rows_of_the_modalities_that_contribute_more():
    phi = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 0.5], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    task = replace(task_with(phi)[0], max_extra=4)
    expected = whole(3, 3)
    expected[1, (True, False, False)] = 1
    expected[1, (False, False, True)] = 1
    expected[2, (True, False, False)] = 3
    expected[2, (False, True, False)] = 1
    assert counted(SampleLevel(task).epoch_samples(1)) == expected


def test_a_limit_cuts_draws_of_the_modalities_that_are_stronger_on_the_whole():
    means = [0.2, -2.0, 1.9, -2.5]  # two of them are drawn for every sample
    task, _ = task_with(torch.tensor([means] * 40, dtype=torch.float64))
    drawn = ModalityLevel(task).epoch_samples(1).present[40:].sum(0).tolist()
    assert drawn[1] == drawn[3] == 40
    assert drawn[0] > 20
    assert drawn[2] == 0
    for most, expected in ((1, [0, 0, 0, 40]), (2, [0, 40, 0, 40]), (3, drawn)):
        rows = ModalityLevel(replace(task, max_extra=most)).epoch_samples(1)
        assert rows.present[40:].sum(0).tolist() == expected


def test_the_limit_of_the_configuration_holds_in_every_epoch(dataset, tmp_path):
    free, watch = Watch(), Watch()
    settings = {"method": "sample", "warmup": 0, "epochs": 2, "lr": 1e-4}
    train(tmp_path / "free", dataset, config_of(**settings), runtime=Runtime(progress=free))
    train(
        tmp_path / "run",
        dataset,
        config_of(max_extra=2, **settings),
        runtime=Runtime(progress=watch),
    )
    assert max(Counter(sample for sample, _ in free.epoch_samples(1).elements()).values()) > 3
    for epoch in (1, 2):
        trained = Counter(sample for sample, _ in watch.epoch_samples(epoch).elements())
        assert max(trained.values()) == 3
        assert watch.epoch_samples(epoch) >= whole(50)


def test_the_methods_that_add_rows_by_contributions_say_so():
    adding = [name for name in METHODS if METHODS.load(name).adds_rows]
    assert adding == ["sample", "modality", "random"]


@pytest.mark.parametrize("method", [SampleLevel, ModalityLevel])
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_in_the_warm_up_nothing_is_valued_and_nothing_added(method, warmup):
    task, asked = task_with(CONTRIBUTIONS, warmup=warmup)
    method = method(task)
    for epoch in range(1, warmup + 1):
        assert counted(method.epoch_samples(epoch)) == whole(8)
    assert asked == []
    method.epoch_samples(warmup + 1)
    assert len(asked) == 1


def test_contributions_that_are_no_numbers_are_refused():
    task, _ = task_with(torch.tensor([[math.nan, 1.0]]))
    with pytest.raises(DataError, match="^contributions hold NaN: value the samples again$"):
        SampleLevel(task).epoch_samples(1)


def test_enhanced_epochs_train_on_the_rows_of_the_contributions_by_the_weights_before(
    dataset, tmp_path
):
    watch = Watch()
    config = config_of(method="sample", warmup=2, epochs=4, seed=1)
    run = train(tmp_path / "run", dataset, config, runtime=Runtime(progress=watch))
    assert watch.epoch_samples(1) == watch.epoch_samples(2) == whole(50)
    for epoch in (3, 4):
        shorter = config_of(method="sample", warmup=2, epochs=epoch - 1, seed=1)
        before = train(tmp_path / str(epoch), dataset, shorter)
        phi = contributions_by_hand(before, dataset)
        assert (phi < 1).any()  # or nothing is added

        frame = pd.read_parquet(run.contributions_file(epoch))
        valued = frame[frame["split"] == "train"]
        assert valued["id"].tolist() == [f"train-{i}" for i in range(50)]
        np.testing.assert_allclose(
            valued[["contribution_ear", "contribution_eye"]], phi.numpy(), atol=1e-12
        )

        assert watch.epoch_samples(epoch) == counted(sample_level_examples(phi))
        # the rule once more, from the paper's table of contributions alone
        extra = {1.5: 0, 1.0: 0, 0.5: 1, 0.0: 2, -0.5: 3}
        added = sum(extra[x] for x in phi.flatten().tolist())
        row = run.metrics.set_index("epoch").loc[epoch]
        assert row["rows"] == 50 + added
        assert row["rows_encoded"] == 100 + added
        assert row["rows_valued"] == 100
        assert row["contribution_ear"] == pytest.approx(float(phi[:, 0].mean()), abs=1e-12)
        assert row["contribution_eye"] == pytest.approx(float(phi[:, 1].mean()), abs=1e-12)


def test_the_rows_of_an_enhanced_epoch_are_shuffled_together(dataset, tmp_path):
    watch = Watch()
    train(
        tmp_path / "run",
        dataset,
        config_of(method="sample", warmup=1, epochs=2),
        runtime=Runtime(progress=watch),
    )
    alone = torch.cat([batch.present for batch in watch.epochs[1]]).sum(1) == 1
    assert alone.sum() >= 5
    # whole rows come after rows of one modality, not only before them
    first, last = int(alone.nonzero()[0]), int((~alone).nonzero()[-1])
    assert first < last
    assert alone[: len(alone) // 2].any()
    assert alone[len(alone) // 2 :].any()


@pytest.mark.parametrize("method", ["sample", "modality"])
def test_the_warm_up_is_joint_training(dataset, tmp_path, method):
    config = {"warmup": 3, "epochs": 3, "seed": 4}
    train(tmp_path / "a" / "run", dataset, config_of(method=method, **config))
    train(tmp_path / "b" / "run", dataset, config_of(method="joint", **config))
    for name in (
        "checkpoints/last/model.safetensors",
        "checkpoints/best/model.safetensors",
        "contributions/epoch-0003.parquet",
    ):
        one, other = ((tmp_path / place / "run" / name).read_bytes() for place in "ab")
        assert one == other


def test_enhancing_changes_the_weights(dataset, tmp_path):
    config = {"warmup": 1, "epochs": 2, "seed": 4}
    weights = {
        train(tmp_path / method, dataset, config_of(method=method, **config)).weights_hash
        for method in ("joint", "sample", "modality")
    }
    last = {
        (tmp_path / method / "checkpoints" / "last" / "model.safetensors").read_bytes()
        for method in ("joint", "sample", "modality")
    }
    assert len(last) == 3
    assert len(weights) >= 2


# --- modality-level enhancement


@pytest.mark.parametrize(
    ("n_samples", "fraction", "size"), [(40, 0.2, 8), (41, 0.5, 20), (40, 1.0, 40), (3, 0.01, 1)]
)
def test_only_the_fraction_of_the_samples_is_valued(n_samples, fraction, size):
    task, asked = task_with(torch.ones(n_samples, 2, dtype=torch.float64))
    ModalityLevel(task, fraction=fraction).epoch_samples(1)
    ((samples),) = asked
    assert len(samples) == size
    assert len(set(samples.tolist())) == size
    assert samples.tolist() == sorted(samples.tolist())
    assert set(samples.tolist()) <= set(range(n_samples))


def test_every_epoch_values_another_part_and_the_same_seed_the_same_part():
    parts = {}
    for seed, epoch in itertools.product((0, 1), (1, 2)):
        task, asked = task_with(torch.ones(200, 2, dtype=torch.float64), seed=seed)
        method = ModalityLevel(task)
        method.epoch_samples(epoch)
        method.epoch_samples(epoch)
        assert torch.equal(asked[0], asked[1])
        parts[seed, epoch] = tuple(asked[0].tolist())
    assert len(set(parts.values())) == 4


@pytest.mark.parametrize("rule", ["linear", "tanh", "power"])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_weaker_modality_is_added_as_often_as_the_rule_says(rule, alpha):
    # φ = (1.4, 0.6) on every sample, so that any part of them has a gap of 0.8
    n = 4000
    task, _ = task_with(torch.tensor([[1.4, 0.6]], dtype=torch.float64).repeat(n, 1))
    rows = counted(ModalityLevel(task, rule=rule, alpha=alpha).epoch_samples(1))
    gap = 0.8
    p = {
        "linear": 2 / 3 * alpha * gap,
        "tanh": math.tanh(2 / 3 * alpha * gap),
        "power": alpha * (2 / 3 * gap) ** 1.5,
    }[rule]
    strong = [k for k in rows if k[1] == (True, False)]
    weak = [k for k in rows if k[1] == (False, True)]
    assert strong == []
    assert all(rows[k] == 1 for k in weak)
    assert abs(len(weak) - n * p) < 5 * math.sqrt(n * p * (1 - p))
    assert rows == whole(n) + Counter(weak)


def test_the_draw_differs_from_epoch_to_epoch_and_is_decided_by_the_seed():
    task, _ = task_with(torch.tensor([[1.4, 0.6]], dtype=torch.float64).repeat(100, 1))
    method = ModalityLevel(task)
    assert counted(method.epoch_samples(1)) == counted(method.epoch_samples(1))
    assert counted(method.epoch_samples(1)) != counted(method.epoch_samples(2))


def test_modalities_that_contribute_the_same_get_no_extra_rows():
    task, _ = task_with(torch.ones(50, 3, dtype=torch.float64))
    assert counted(ModalityLevel(task).epoch_samples(1)) == whole(50, 3)


def test_the_gap_is_that_of_the_means_over_the_part_that_was_valued():
    phi = torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task, asked = task_with(phi)
    rows = ModalityLevel(task, fraction=0.1, alpha=1e9).epoch_samples(1)
    # so large an alpha turns any gap into certainty: the weaker one of the part is always added
    weak = int(phi[asked[0]].mean(0).argmin())
    present = (weak == 0, weak == 1)
    assert counted(rows) == whole(60) + Counter({(i, present): 1 for i in range(60)})


def test_a_modality_level_run_values_its_part_only_and_adds_by_the_probability(dataset, tmp_path):
    watch = Watch()
    config = config_of(
        method="modality", warmup=1, epochs=4, seed=2, options={"fraction": 0.3, "alpha": 1.4}
    )
    run = train(tmp_path / "run", dataset, config, runtime=Runtime(progress=watch))
    metrics = run.metrics.set_index("epoch")
    assert metrics["rows_valued"].tolist() == [0, 30, 30, 30]  # 15 samples of two modalities
    parts = []
    for epoch in (2, 3, 4):
        frame = pd.read_parquet(run.contributions_file(epoch))
        valued = frame[frame["split"] == "train"]
        assert len(valued) == 15
        assert frame["split"].tolist() == ["train"] * 15 + ["validation"] * 12
        parts.append(tuple(valued["id"]))

        shorter = config_of(
            method="modality",
            warmup=1,
            epochs=epoch - 1,
            seed=2,
            options={"fraction": 0.3, "alpha": 1.4},
        )
        before = train(tmp_path / str(epoch), dataset, shorter)
        phi = contributions_by_hand(before, dataset)
        sample = [int(name.removeprefix("train-")) for name in valued["id"]]
        np.testing.assert_allclose(
            valued[["contribution_ear", "contribution_eye"]], phi[sample].numpy(), atol=1e-12
        )
        means = phi[sample].mean(0)
        probability = modality_probability(means, "linear", 1.4)
        rows = watch.epoch_samples(epoch)
        added = {k: v for k, v in rows.items() if k[1] != (True, True)}
        for column, present in enumerate(((True, False), (False, True))):
            number = sum(v for k, v in added.items() if k[1] == present)
            p = float(probability[column])
            assert abs(number - 50 * p) <= 5 * math.sqrt(50 * p * (1 - p))
        assert rows - Counter(added) == whole(50)
        assert metrics.loc[epoch, "rows"] == 50 + len(added)
        assert metrics.loc[epoch, "rows_encoded"] == 100 + len(added)
    assert len(set(parts)) == 3


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, math.nan])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    task, _ = task_with(CONTRIBUTIONS)
    with pytest.raises(
        UsageError, match=f"^fraction is {fraction}: it must be above 0 and at most 1$"
    ):
        ModalityLevel(task, fraction=fraction)


def test_an_unknown_rule_is_refused_with_the_legal_ones():
    task, _ = task_with(CONTRIBUTIONS)
    with pytest.raises(
        UsageError, match="^unknown rule 'dice': choose one of linear, tanh, power$"
    ):
        ModalityLevel(task, rule="dice")


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_an_alpha_that_makes_no_probability_is_refused_at_once(alpha):
    task, _ = task_with(CONTRIBUTIONS, warmup=5)
    with pytest.raises(UsageError, match=f"^alpha is {alpha}: it must be a number that is not neg"):
        ModalityLevel(task, alpha=alpha)


# --- unimodal training


def test_unimodal_training_builds_encodes_and_values_one_modality_only(dataset, tmp_path):
    watch = Watch()
    config = config_of(method="unimodal", options={"modality": "eye"})
    run = train(tmp_path / "run", dataset, config, runtime=Runtime(progress=watch))
    assert run.modalities == run.model.modalities == ("eye",)
    assert list(run.model.encoders) == ["eye"]
    assert run.metrics["rows"].tolist() == run.metrics["rows_encoded"].tolist() == [50] * 3
    assert all(list(batch.inputs) == ["eye"] for epoch in watch.epochs for batch in epoch)
    assert watch.epoch_samples(1) == whole(50, 1)
    frame = pd.read_parquet(run.contributions_file(3))
    assert [c for c in frame.columns if c.startswith(("contribution_", "value_"))] == [
        "contribution_eye",
        "value_eye",
    ]


def test_unimodal_training_refuses_a_modality_that_is_not_there():
    with pytest.raises(
        UsageError, match="^the data set has no modality 'nose': choose one of ear, eye$"
    ):
        Unimodal.modalities(("ear", "eye"), {"modality": "nose"})
    assert Unimodal.modalities(("ear", "eye"), {"modality": "eye"}) == ("eye",)


@pytest.mark.parametrize("method", [Joint, SampleLevel, ModalityLevel])
def test_all_other_methods_train_all_modalities(method):
    assert method.modalities(["ear", "eye"], {}) == ("ear", "eye")


# --- the table of methods and their options


def test_every_method_can_be_loaded_is_a_method_and_says_what_it_is():
    for name, entry in METHODS.items():
        assert issubclass(METHODS.load(name), Method)
        assert METHODS.load(name).__doc__
        assert entry.summary


def test_the_levels_of_enhancement_are_the_methods_with_a_warm_up():
    assert {name for name in METHODS if METHODS.load(name).has_warmup} >= set(LEVELS)
    assert not Joint.has_warmup
    assert not Unimodal.has_warmup


@pytest.mark.parametrize("method", METHODS)
def test_the_options_of_a_method_are_the_keywords_of_its_class(method):
    parameters = inspect.signature(METHODS.load(method).__init__).parameters.values()
    keywords = {
        p.name: (p.annotation, MISSING if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    assert {name: (o.type, o.default) for name, o in method_options(method).items()} == keywords


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"fraction": 0.2, "rule": "linear", "alpha": 1.0}),
        ({"fraction": "0.5"}, {"fraction": 0.5, "rule": "linear", "alpha": 1.0}),
        ({"alpha": 2, "rule": "tanh"}, {"fraction": 0.2, "rule": "tanh", "alpha": 2.0}),
    ],
)
def test_options_are_read_as_their_types_and_completed(given, expected):
    options = checked_options("modality", given)
    assert options == expected
    assert isinstance(options["alpha"], float)


def test_an_option_the_method_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(UsageError) as error:
        checked_options("modality", {"speed": 1})
    assert str(error.value) == (
        "method 'modality' has no option 'speed'; its options: fraction, rule, alpha"
    )


def test_a_method_without_options_says_so():
    with pytest.raises(UsageError, match="^method 'joint' has no option 'alpha'.* options: none$"):
        checked_options("joint", {"alpha": 1})


def test_an_option_that_is_missing_is_named():
    with pytest.raises(UsageError, match="^method 'unimodal' needs the option 'modality'$"):
        checked_options("unimodal", {})


@pytest.mark.parametrize("given", ["much", "", [0.5], None])
def test_an_option_that_cannot_be_read_as_its_type_is_refused(given):
    with pytest.raises(UsageError) as error:
        checked_options("modality", {"fraction": given})
    assert str(error.value) == (
        f"option 'fraction' of method 'modality' must be float, not {given!r}"
    )


def test_an_unknown_method_is_refused_with_the_legal_ones():
    with pytest.raises(UsageError, match="^unknown method 'magic': choose one of joint, unimodal"):
        checked_options("magic", {})
