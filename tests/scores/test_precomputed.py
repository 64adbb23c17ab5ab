"""Enhancement by the contributions of a scores file."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import mmcoop
from mmcoop.core.resampling import (
    GRADED_SLACK,
    ROUNDING,
    modality_probability,
    sample_level_examples,
)
from mmcoop.datasets.reader import DatasetFolder, open_dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.files import sha256
from mmcoop.methods.modality import ModalityLevel
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.scores.precomputed import read_precomputed
from mmcoop.training.evaluation import valuate_run
from mmcoop.training.run import Run, load_run
from mmcoop.training.train import extend, resume, train

LAST = Path("checkpoints/last/model.safetensors")
NAMES = ("sound", "touch")


@pytest.fixture(scope="module")
def dataset(noisy) -> DatasetFolder:
    return open_dataset(noisy)


@pytest.fixture(scope="module")
def parent(noisy, quick, tmp_path_factory) -> Run:
    """A joint run; not to be changed."""
    return train(
        tmp_path_factory.mktemp("runs") / "joint", open_dataset(noisy), quick(epochs=3, seed=1)
    )


@pytest.fixture(scope="module")
def phi() -> torch.Tensor:
    """Contributions of 70 samples, multiples of a half."""
    chance = torch.Generator().manual_seed(3)
    return torch.randint(-1, 4, (70, 2), generator=chance).double() / 2


@pytest.fixture
def write(dataset, tmp_path) -> Callable[..., Path]:
    """`write(contributions, …)`: a scores file of the training samples, in their order, with the
    columns that docs/reference/scores.md has and enhancement needs."""

    def make(
        contributions: torch.Tensor,
        name: str = "scores.parquet",
        *,
        labels: np.ndarray | None = None,
        **details: Any,
    ) -> Path:
        split = dataset.split("train")
        names = NAMES[: contributions.shape[1]]
        columns = zip(names, contributions.T.numpy(), strict=True)
        count = len(contributions)
        table = pa.table(
            {
                "id": split.ids(np.arange(count)),
                "label": (split.labels if labels is None else labels)[:count],
                **{f"contribution_{m}": np.ascontiguousarray(phi) for m, phi in columns},
            }
        )
        about = {"format": "mmcoop scores", "modalities": names, "value": "paper", **details}
        path = tmp_path / name
        pq.write_table(table.replace_schema_metadata({"mmcoop": json.dumps(about)}), path)
        return path

    return make


def edited(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """The scores file with its rows or columns changed, what it says of itself kept."""
    table = pq.read_table(path)
    changed = pa.Table.from_pandas(change(table.to_pandas()), preserve_index=False)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    return path


def trained_rows(recorder: Any) -> list[Counter]:
    """How often each row, `(sample, modalities present)`, was trained on, by epoch."""
    return [
        Counter(
            (int(sample), tuple(present.tolist()))
            for batch in batches
            for sample, present in zip(batch.sample, batch.present, strict=True)
        )
        for batches in recorder.epochs()
    ]


def counted(rows: Any) -> Counter:
    return Counter(
        (int(sample), tuple(present.tolist()))
        for sample, present in zip(rows.sample, rows.present, strict=True)
    )


def fine_tuned(folder: Path, dataset: DatasetFolder, parent: Run, config: Any, **more: Any) -> Run:
    return train(folder, dataset, config, parent=parent, **more)


# --- what is trained on


def test_every_epoch_goes_by_the_contributions_of_the_file(
    dataset, parent, phi, write, quick, tmp_path, recorder
):
    config = quick(method="sample", warmup=0)
    run = fine_tuned(
        tmp_path / "run",
        dataset,
        parent,
        config,
        scores=write(phi),
        runtime=Runtime(progress=recorder),
    )
    assert trained_rows(recorder) == [counted(sample_level_examples(phi))] * 3
    assert not [label for label, _ in recorder.tracked if "valuing" in label]
    metrics = run.metrics
    assert (metrics["rows"] == len(sample_level_examples(phi))).all()
    assert (metrics["rows_valued"] == 0).all()
    assert metrics[["contribution_sound", "contribution_touch"]].isna().all(axis=None)
    for epoch in (1, 2, 3):
        splits = pd.read_parquet(run.contributions_file(epoch))["split"]
        assert set(splits) == {"validation"}


def test_one_epoch_by_the_scores_of_the_run_itself_is_one_epoch_that_values_it(
    dataset, parent, quick, tmp_path
):
    scores = tmp_path / "scores.parquet"
    valuate_run(parent, dataset, "train", scores)
    config = quick(method="sample", warmup=0, epochs=1, seed=4)
    given = fine_tuned(tmp_path / "given", dataset, parent, config, scores=scores)
    valued = fine_tuned(tmp_path / "valued", dataset, parent, config)
    assert (given.folder / LAST).read_bytes() == (valued.folder / LAST).read_bytes()
    assert (given.cost["rows_valued"], valued.cost["rows_valued"]) == (0, 140)


def test_modality_level_takes_the_means_of_its_part_of_the_file(
    dataset, parent, phi, write, quick, tmp_path, recorder
):
    phi = phi.clone()
    phi[:, 1] -= 1
    config = quick(method="modality", warmup=0, epochs=2, seed=6)
    fine_tuned(
        tmp_path / "run",
        dataset,
        parent,
        config,
        scores=write(phi),
        runtime=Runtime(progress=recorder),
    )
    asked: list[torch.Tensor] = []

    class Means(ModalityLevel):
        """The same draws, of contributions in memory."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.fraction, self.rule, self.alpha = 0.2, "linear", 1.0

    class FakeTask:
        n_samples, n_modalities, seed, warmup, max_extra = 70, 2, 6, 0, None

        def value(self, samples: torch.Tensor) -> torch.Tensor:
            asked.append(samples)
            return phi[samples]

    method = Means()
    method.__dict__["task"] = FakeTask()
    expected = [counted(method.epoch_samples(epoch)) for epoch in (1, 2)]
    assert trained_rows(recorder) == expected
    assert all(len(samples) == 14 for samples in asked)
    assert all(float(modality_probability(phi[s].mean(0))[1]) > 0 for s in asked)


def test_training_from_scratch_goes_by_the_file_after_its_warm_up(
    dataset, phi, write, quick, tmp_path, recorder
):
    config = quick(method="sample", warmup=2)
    train(tmp_path / "run", dataset, config, scores=write(phi), runtime=Runtime(progress=recorder))
    whole = Counter({(i, (True, True)): 1 for i in range(70)})
    assert trained_rows(recorder) == [whole, whole, counted(sample_level_examples(phi))]


def test_extra_rows_by_a_file_are_limited_too(
    dataset, parent, phi, write, quick, tmp_path, recorder
):
    config = quick(method="sample", warmup=0, max_extra=1, epochs=1)
    fine_tuned(
        tmp_path / "run",
        dataset,
        parent,
        config,
        scores=write(phi),
        runtime=Runtime(progress=recorder),
    )
    assert trained_rows(recorder) == [counted(sample_level_examples(phi, 1))]


def test_scores_of_a_model_of_ones_own_will_do(dataset, parent, quick, tmp_path, recorder):
    def by_ear(inputs, present):
        heard = inputs["sound"][:, :4] * present[:, :1]
        return heard + 0.1 * inputs["touch"] * present[:, 1:]

    batches = mmcoop.load_batches(dataset.split("train"), batch_size=20, with_ids=True)
    valuation = mmcoop.valuate(by_ear, batches, modalities=["touch", "sound"])
    valuation.save(tmp_path / "own.parquet")
    config = quick(method="sample", warmup=0, epochs=1)
    fine_tuned(
        tmp_path / "run",
        dataset,
        parent,
        config,
        scores=tmp_path / "own.parquet",
        runtime=Runtime(progress=recorder),
    )
    # the model's order of modalities, not the file's
    expected = sample_level_examples(valuation.contributions.flip(1))
    assert trained_rows(recorder) == [counted(expected)]
    assert expected.present.sum(0)[0] != expected.present.sum(0)[1]


# --- what is read


def test_rows_may_come_in_any_order_among_those_of_other_samples(dataset, phi, write):
    path = write(phi)
    others = pd.DataFrame(
        {"id": ["test-0", "elsewhere"], "contribution_sound": np.nan, "contribution_touch": 9.0}
    )
    edited(path, lambda frame: pd.concat([frame, others]).sample(frac=1, random_state=1))
    given = read_precomputed(path, dataset, NAMES)
    assert torch.equal(given.contributions, phi)
    assert (given.path, given.sha256) == (path, sha256(path))


@pytest.mark.parametrize(
    ("details", "factor"),
    [
        ({"value": "paper", "fair_share": 1}, 1.0),
        ({"value": "paper", "fair_share": 1.0, "best": None}, 1.0),
        ({"value": "paper"}, 1.0),
        ({"value": "of my own", "fair_share": 4.0, "best": None}, 4.0),
    ],
)
def test_contributions_are_read_in_fair_shares(dataset, phi, write, details, factor):
    path = write(phi * factor, **details)
    given = read_precomputed(path, dataset, NAMES)
    torch.testing.assert_close(given.contributions, phi, rtol=1e-15, atol=0)
    assert given.slack == ROUNDING


@pytest.mark.parametrize(
    ("details", "best"),
    [
        ({"value": "correct", "fair_share": None, "best": 1.0}, 1.0),
        ({"value": "of my own", "fair_share": None, "best": 4}, 4.0),
        # as earlier versions wrote them: the n-th part of the best value, for two modalities
        ({"value": "probability", "fair_share": 0.5}, 1.0),
        ({"value": "of my own", "fair_share": 4.0}, 8.0),
    ],
)
def test_graded_contributions_are_compared_with_the_samples_own_share(
    dataset, phi, write, details, best
):
    given = read_precomputed(write(phi, **details), dataset, NAMES)
    for (a, b), found in zip(phi.tolist(), given.contributions.tolist(), strict=True):
        share = (a + b) / 2
        assert found == pytest.approx([1 + 2 * (x - share) / best for x in (a, b)])
    assert given.slack == GRADED_SLACK


def test_scores_are_joined_by_ids_however_they_are_spelt(dataset, phi, write):
    path = write(phi)
    table = pq.read_table(path)
    ids = [f"\ufeff{id} " for id in table["id"].to_pylist()]
    pq.write_table(table.set_column(0, "id", [ids]), path)
    assert torch.equal(read_precomputed(path, dataset, NAMES).contributions, phi)
    twice = pa.concat_tables([table, table.set_column(0, "id", [ids])])
    pq.write_table(twice, path)
    with pytest.raises(DataError, match="has two scores of sample"):
        read_precomputed(path, dataset, NAMES)


def test_without_labels_there_are_none_to_compare(dataset, phi, write):
    labels = np.full(70, -1)
    read_precomputed(write(phi, labels=labels), dataset, NAMES)
    for change in (
        lambda frame: frame.drop(columns="label"),
        lambda frame: frame.assign(label="north"),
        lambda frame: frame.assign(label=pd.array([None] * 70, dtype="Int64")),
    ):
        given = read_precomputed(edited(write(phi), change), dataset, NAMES)
        assert torch.equal(given.contributions, phi)


# --- what is refused


def refused(kind: type[Exception], message: str, path: Path, dataset: DatasetFolder) -> None:
    with pytest.raises(kind) as error:
        read_precomputed(path, dataset, NAMES)
    assert str(error.value) == message.format(path=path, folder=dataset.folder)


def test_training_samples_without_scores_are_counted_and_named(dataset, phi, write):
    refused(
        DataError,
        "{path} has no scores of 10 of the 70 training samples ('train-60', 'train-61', "
        "'train-62', …): value the training split, mmcoop valuate --split train",
        write(phi[:60]),
        dataset,
    )
    refused(
        DataError,
        "{path} has no scores of 1 of the 70 training samples ('train-69'): value the training "
        "split, mmcoop valuate --split train",
        write(phi[:69]),
        dataset,
    )


def test_two_scores_of_a_sample_are_refused(dataset, phi, write):
    path = edited(write(phi), lambda frame: pd.concat([frame, frame.iloc[[7]]]))
    refused(DataError, "{path} has two scores of sample 'train-7': keep one of them", path, dataset)


@pytest.mark.parametrize("number", [np.nan, np.inf, None])
def test_contributions_that_are_no_numbers_are_counted_and_named(dataset, phi, write, number):
    def spoil(frame):
        frame.loc[[3, 50], "contribution_touch"] = number
        return frame

    refused(
        DataError,
        "{path}: the contributions to 2 of the 70 training samples ('train-3', 'train-50') are NaN "
        "or infinite: value them again",
        edited(write(phi), spoil),
        dataset,
    )


def test_scores_of_other_modalities_are_refused(dataset, phi, write):
    refused(
        DataError,
        "{path} has scores of the modalities sound, the model has sound, touch: value a model of "
        "the same ones",
        write(phi[:, :1]),
        dataset,
    )


def test_scores_of_another_data_set_are_refused(dataset, phi, write):
    details = {"dataset": {"name": "noisy", "fingerprint": "another"}}
    refused(
        DataError,
        "{path} has scores of another data set than {folder}: make them with mmcoop valuate "
        "--data {folder}, from a run trained on it",
        write(phi, **details),
        dataset,
    )


def test_scores_with_positions_for_ids_are_refused(dataset, phi, write):
    with pytest.raises(DataError, match="has positions for ids"):
        read_precomputed(write(phi, ids="positions"), dataset, dataset.modalities)


def test_scores_of_other_samples_with_the_same_ids_are_noticed_by_their_classes(
    dataset, phi, write
):
    def shifted(frame):
        return frame.assign(id=np.roll(frame["id"].to_numpy(), 4 * 5 + 1))

    refused(
        DataError,
        "{path} has another class of 70 training samples ('train-0', 'train-1', 'train-2', …) than "
        "the data set: these scores are of other samples",
        edited(write(phi), shifted),
        dataset,
    )


@pytest.mark.parametrize(
    "details",
    [
        {"value": "log-likelihood"},
        {"value": "log-likelihood", "fair_share": None},
        {"value": "margin", "fair_share": 0},
        {"value": "margin", "fair_share": 0.0},
        {"value": "margin", "fair_share": -1.0},
        {"value": "margin", "fair_share": "1"},
        {"value": "margin", "fair_share": True},
        {"value": "margin", "fair_share": float("nan")},
        {"value": "margin", "fair_share": float("inf")},
    ],
)
def test_value_functions_without_a_fair_share_are_refused_with_those_that_have_one(
    dataset, phi, write, details
):
    refused(
        UsageError,
        f"{{path}} has scores by the value function {details['value']!r}, which has no fair share, "
        "so that enhancement cannot say what contributes little: value the samples by paper, "
        "correct or probability",
        write(phi, **details),
        dataset,
    )


@pytest.mark.parametrize("kind", ["nothing", "text", "another table", "no contributions"])
def test_what_is_no_scores_file_is_refused(dataset, phi, write, tmp_path, kind):
    path = tmp_path / "other.parquet"
    if kind == "text":
        path.write_text("id,contribution_sound")
    if kind == "another table":
        pd.DataFrame({"id": ["train-0"]}).to_parquet(path)
    if kind == "no contributions":
        path = edited(write(phi), lambda frame: frame.drop(columns="contribution_sound"))
    with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop: "):
        read_precomputed(path, dataset, NAMES)


@pytest.mark.parametrize("details", [{"modalities": 3}, {"dataset": "noisy"}])
def test_a_scores_file_that_says_something_odd_of_itself_is_refused(dataset, phi, write, details):
    path = write(phi, **details)
    with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop: "):
        read_precomputed(path, dataset, NAMES)


def test_a_method_that_needs_no_contributions_is_given_none(dataset, phi, write, quick, tmp_path):
    expected = "^method 'joint' needs no contributions: leave scores out$"
    with pytest.raises(UsageError, match=expected):
        train(tmp_path / "run", dataset, quick(), scores=write(phi))
    assert not (tmp_path / "run").exists()


def test_scores_in_a_folder_that_is_replaced_are_refused(dataset, quick, tmp_path):
    run = train(tmp_path / "run", dataset, quick(method="sample", warmup=0, epochs=1))
    scores = run.contributions_file(1)
    expected = f"^{scores} is in {run.folder}, which is replaced: choose another out$"
    with pytest.raises(UsageError, match=expected):
        train(run.folder, dataset, quick(method="sample"), scores=scores, overwrite=True)
    assert scores.is_file()
    # the scores of an epoch are a scores file, and hold all training samples
    train(tmp_path / "next", dataset, quick(method="sample", warmup=0, epochs=1), scores=scores)


def test_unusable_scores_are_refused_before_anything_is_written(
    dataset, parent, phi, write, quick, tmp_path
):
    with pytest.raises(DataError, match="has no scores of 1 of the 70"):
        fine_tuned(
            tmp_path / "run", dataset, parent, quick(method="sample"), scores=write(phi[:69])
        )
    assert not (tmp_path / "run").exists()


# --- what is recorded, and going on


class StopAfter(Progress):
    """Ctrl-C when so many epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def note(self, text: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def cut(dataset, parent, phi, write, quick, tmp_path) -> Path:
    """A run by scores that was interrupted after its first epoch of three."""
    folder = tmp_path / "cut"
    with pytest.raises(Interrupted):
        fine_tuned(
            folder,
            dataset,
            parent,
            quick(method="sample", warmup=0),
            scores=write(phi),
            runtime=Runtime(progress=StopAfter(1)),
        )
    return folder


def test_the_run_records_the_file_and_its_sha256(cut, tmp_path):
    path = tmp_path / "scores.parquet"
    content = json.loads((cut / "run.json").read_text())
    assert content["scores"] == {"path": str(path), "sha256": sha256(path)}
    assert load_run(cut).scores == content["scores"]


def test_a_run_that_values_its_samples_records_no_file(parent):
    assert json.loads((parent.folder / "run.json").read_text())["scores"] is None


def test_a_run_that_says_nothing_of_scores_has_none(parent, tmp_path):
    folder = shutil.copytree(parent.folder, tmp_path / "old")
    content = json.loads((folder / "run.json").read_text())
    del content["scores"]
    (folder / "run.json").write_text(json.dumps(content))
    assert load_run(folder).scores is None


@pytest.mark.parametrize("where", ["recorded", "given", "moved"])
def test_a_resumed_run_goes_on_by_the_same_file(
    cut, dataset, parent, quick, tmp_path, where, recorder, phi
):
    scores = tmp_path / "scores.parquet"
    whole = fine_tuned(
        tmp_path / "whole", dataset, parent, quick(method="sample", warmup=0), scores=scores
    )
    given = None if where == "recorded" else scores
    if where == "moved":
        given = scores.rename(tmp_path / "elsewhere.parquet")
    run = resume(cut, dataset, scores=given, runtime=Runtime(progress=recorder))
    assert run.status == "finished"
    assert trained_rows(recorder) == [counted(sample_level_examples(phi))] * 2
    one, other = load_file(cut / LAST), load_file(whole.folder / LAST)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_does_not_go_on_by_a_file_that_has_changed(cut, dataset, phi, write):
    path = write(phi.flip(0))
    expected = (
        f"^{path} is not the scores file any more that the run was started with .its sha256 is "
        "another one.: restore it, or start anew with overwrite=True$"
    )
    with pytest.raises(DataError, match=expected):
        resume(cut, dataset)


def test_a_run_does_not_go_on_without_its_file(cut, dataset, tmp_path):
    path = tmp_path / "scores.parquet"
    path.unlink()
    with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop: "):
        resume(cut, dataset)
    with pytest.raises(DataError, match=f"^there is no scores file {path}$"):
        resume(cut, dataset, scores=path)


def test_a_run_does_not_go_on_by_another_file(cut, dataset, parent, phi, write, tmp_path):
    other = write(phi.flip(0), "other.parquet")
    first = tmp_path / "scores.parquet"
    for run, begun in ((cut, f"the scores {first}"), (parent.folder, "no scores")):
        expected = (
            f"^{run} was started with {begun}, not {other}: a run goes on as it began; leave "
            "scores out, or start anew with overwrite=True$"
        )
        with pytest.raises(UsageError, match=expected):
            resume(run, dataset, scores=other)


def test_a_run_by_scores_is_not_the_beginning_of_one_that_values(
    dataset, phi, write, quick, tmp_path
):
    config = quick(method="sample", warmup=0, epochs=1)
    run = train(tmp_path / "run", dataset, config, scores=write(phi))
    expected = f"^{run.folder} is not the beginning of the run that is asked for$"
    with pytest.raises(UsageError, match=expected):
        extend(tmp_path / "longer", run, dataset, replace(config, epochs=2))


# --- the commands


def test_the_commands_take_scores(mmcoop, noisy, parent, phi, write, tmp_path):
    write(phi)
    common = ["--data", str(noisy), "--epochs", "1", "--scores", "scores.parquet"]
    said = mmcoop(tmp_path, "enhance", "--run", str(parent.folder), *common, "--out", "e")
    assert said.returncode == 0, said.stderr
    said = mmcoop(tmp_path, "train", "--method", "sample", "--warmup", "0", *common, "--out", "t")
    assert said.returncode == 0, said.stderr
    for folder in ("e", "t"):
        run = load_run(tmp_path / folder)
        assert run.scores == {
            "path": "scores.parquet",
            "sha256": sha256(tmp_path / "scores.parquet"),
        }
        assert int(run.metrics["rows"][0]) == len(sample_level_examples(phi))
        facts = json.loads(mmcoop(tmp_path, "info", folder, "--json").stdout)
        assert facts["scores"] == "scores.parquet"
    again = mmcoop(tmp_path, "enhance", "--resume", "--out", "e", "--scores", "scores.parquet")
    assert again.returncode == 0, again.stderr
    said = mmcoop(tmp_path, "train", *common, "--out", "j")
    assert said.returncode == 2
    assert "needs no contributions: leave --scores out" in said.stderr
