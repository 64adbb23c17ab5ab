"""Checkpoints: whole or not at all, and safe to load."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmcoop.errors import DataError
from mmcoop.training.checkpoint import (
    has_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
)
from mmcoop.training.checkpoint_info import WEIGHTS, load_info, weights_hash


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Plain:
    """A class of somebody's own, harmless."""


def network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def saved(tmp_path) -> Path:
    """A checkpoint of `network(0)` with a state."""
    folder = tmp_path / "last"
    save_checkpoint(folder, network(0).state_dict(), {"epoch": 4}, {"epoch": 4, "best": None})
    return folder


# --- there and back


def test_weights_come_back_bit_by_bit(saved):
    model = network(1)
    assert not same(weights_of(model), weights_of(network(0)))
    load_weights(model, saved)
    assert same(weights_of(model), weights_of(network(0)))


def test_info_and_state_come_back(tmp_path):
    info = {"epoch": 3, "validation_accuracy": 0.5, "validation_loss": 1.25}
    optimizer = torch.optim.Adam(network(0).parameters())
    state = {
        "epoch": 3,
        "best": info,
        "nothing": None,
        "optimizer": optimizer.state_dict(),
        "method": {"prototype": torch.arange(6.0).reshape(2, 3)},
    }
    save_checkpoint(tmp_path / "last", network(0).state_dict(), info, state)
    assert load_info(tmp_path / "last") == info
    loaded = load_state(tmp_path / "last")
    assert torch.equal(loaded["method"].pop("prototype"), state["method"].pop("prototype"))
    assert loaded == state


def test_the_files_are_weights_info_and_state_if_there_is_one(tmp_path):
    save_checkpoint(tmp_path / "best", network(0).state_dict(), {"epoch": 1})
    save_checkpoint(tmp_path / "last", network(0).state_dict(), {"epoch": 1}, {"epoch": 1})
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {
        "best/model.safetensors",
        "best/checkpoint.json",
        "last/model.safetensors",
        "last/checkpoint.json",
        "last/state.pt",
    }


def test_the_weights_file_is_plain_safetensors(saved):
    assert same(load_file(saved / WEIGHTS), weights_of(network(0)))


def test_the_state_file_opens_with_weights_only(saved):
    assert torch.load(saved / "state.pt", weights_only=True) == {"epoch": 4, "best": None}


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        save_checkpoint(tmp_path / name, network(5).state_dict(), {"epoch": 1})
    one, other = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("one", "other"))
    assert one == other


def test_weights_that_are_a_view_are_written_with_their_own_values(tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "best", {"turned": table.T}, {})
    assert torch.equal(load_file(tmp_path / "best" / WEIGHTS)["turned"], table.T)


def test_the_hash_is_the_sha256_of_the_weights_file(saved):
    expected = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert weights_hash(saved) == expected


# --- whole or not at all


def test_a_new_checkpoint_takes_the_place_of_the_old_one_and_nothing_else_stays(saved):
    save_checkpoint(saved, network(1).state_dict(), {"epoch": 5})
    assert load_info(saved) == {"epoch": 5}
    assert same(load_file(saved / WEIGHTS), weights_of(network(1)))
    assert sorted(p.name for p in saved.iterdir()) == ["checkpoint.json", "model.safetensors"]
    assert [p.name for p in saved.parent.iterdir()] == ["last"]


def test_a_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(saved):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(saved, network(1).state_dict(), {"epoch": 5}, {"odd": lambda: None})
    assert [p.name for p in saved.parent.iterdir()] == ["last"]
    assert load_info(saved) == {"epoch": 4}
    assert same(load_file(saved / WEIGHTS), weights_of(network(0)))


def test_a_first_save_that_fails_leaves_nothing(tmp_path):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(tmp_path / "last", {}, {"epoch": 5}, {"odd": lambda: None})
    assert list(tmp_path.iterdir()) == []


def cut_off_while_writing(folder: Path) -> None:
    """The state of the disk when a save is killed before its first rename."""
    partial = folder.with_name(".last.partial")
    partial.mkdir()
    (partial / WEIGHTS).write_bytes(b"half of the wei")


def cut_off_between_the_renames(folder: Path) -> None:
    """… after the old checkpoint was moved out of the way, before the new one took its place."""
    new = folder.with_name("new")
    save_checkpoint(new, network(1).state_dict(), {"epoch": 5}, {"epoch": 5})
    new.rename(folder.with_name(".last.partial"))
    folder.rename(folder.with_name(".last.old"))


def cut_off_while_the_old_one_is_removed(folder: Path) -> None:
    """… after both renames, with the old checkpoint half removed."""
    cut_off_between_the_renames(folder)
    folder.with_name(".last.partial").rename(folder)
    (folder.with_name(".last.old") / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("cut_off", "epoch", "seed"),
    [
        (cut_off_while_writing, 4, 0),
        (cut_off_between_the_renames, 4, 0),
        (cut_off_while_the_old_one_is_removed, 5, 1),
    ],
)
@pytest.mark.parametrize("first", ["weights", "state", "info", "hash", "asked"])
def test_whenever_a_save_is_killed_one_whole_checkpoint_is_found(
    saved, cut_off, epoch, seed, first
):
    cut_off(saved)
    model = network(9)
    {  # whoever comes first settles it
        "weights": lambda: load_weights(model, saved),
        "state": lambda: load_state(saved),
        "info": lambda: load_info(saved),
        "hash": lambda: weights_hash(saved),
        "asked": lambda: has_checkpoint(saved),
    }[first]()
    assert has_checkpoint(saved)
    assert load_info(saved) == {"epoch": epoch}
    assert load_state(saved)["epoch"] == epoch
    load_weights(model, saved)
    assert same(weights_of(model), weights_of(network(seed)))


@pytest.mark.parametrize(
    "cut_off",
    [cut_off_while_writing, cut_off_between_the_renames, cut_off_while_the_old_one_is_removed],
)
def test_the_next_save_after_a_kill_leaves_nothing_of_it(saved, cut_off):
    cut_off(saved)
    save_checkpoint(saved, network(2).state_dict(), {"epoch": 6})
    assert [p.name for p in saved.parent.iterdir()] == ["last"]
    assert load_info(saved) == {"epoch": 6}
    assert same(load_file(saved / WEIGHTS), weights_of(network(2)))


def test_a_first_save_that_is_killed_leaves_no_checkpoint(tmp_path):
    cut_off_while_writing(tmp_path / "last")
    assert not has_checkpoint(tmp_path / "last")


KILLER = """
import os, random, shutil, signal, sys
from pathlib import Path

import torch

from mmcoop.training.checkpoint import save_checkpoint

old, place = Path(sys.argv[1]), Path(sys.argv[2])
weights = torch.load(sys.argv[3], weights_only=True)
TOUCHING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def save(folder, kill_at):
    # in a fork that is killed at its so-manieth file operation; whether it was
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    done = 0

    def watch(event, arguments):
        nonlocal done
        mode = arguments[1] if event == "open" and isinstance(arguments[1], str) else ""
        if event in TOUCHING or set(mode) & set("wxa"):
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    save_checkpoint(folder, weights, {"epoch": 5}, {"epoch": 5})
    os._exit(0)


point = 0
killed = True
while killed:
    point += 1
    shutil.copytree(old, place / str(point) / "last")
    killed = save(place / str(point) / "last", point)
print(point)
"""


def test_a_save_that_is_killed_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(
    saved, tmp_path
):
    (tmp_path / "killer.py").write_text(KILLER)
    torch.save(network(1).state_dict(), tmp_path / "weights.pt")
    place = tmp_path / "place"
    done = subprocess.run(
        [sys.executable, tmp_path / "killer.py", saved, place, tmp_path / "weights.pt"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points > 8
    epochs = []
    for point in range(1, points + 1):
        folder = place / str(point) / "last"
        assert has_checkpoint(folder), f"lost when it was killed at operation {point}"
        epoch = load_info(folder)["epoch"]
        model = network(9)
        load_weights(model, folder)
        assert same(weights_of(model), weights_of(network({4: 0, 5: 1}[epoch])))
        assert load_state(folder)["epoch"] == epoch
        epochs.append(epoch)
    # first the old one, from some point on the new one
    assert epochs == sorted(epochs)
    assert set(epochs) == {4, 5}


# --- what cannot be loaded


def test_a_missing_checkpoint_is_named(tmp_path):
    nowhere = tmp_path / "last"
    assert not has_checkpoint(nowhere)
    with pytest.raises(DataError, match=f"^the checkpoint {nowhere / WEIGHTS} is missing$"):
        load_weights(network(), nowhere)
    with pytest.raises(DataError, match=f"^the checkpoint {nowhere / 'state.pt'} is missing$"):
        load_state(nowhere)
    with pytest.raises(DataError, match=f"^{nowhere / 'checkpoint.json'} is missing$"):
        load_info(nowhere)
    with pytest.raises(DataError, match=f"^{nowhere / WEIGHTS} is missing$"):
        weights_hash(nowhere)


def test_a_checkpoint_without_one_of_its_files_is_missing_it(saved):
    (saved / WEIGHTS).unlink()
    with pytest.raises(DataError, match=f"^the checkpoint {saved / WEIGHTS} is missing$"):
        load_weights(network(), saved)
    with pytest.raises(DataError, match=f"^{saved / WEIGHTS} is missing$"):
        weights_hash(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"\xff" * 16 + content[16:],
        lambda content: b"PK" + os.urandom(200),
        lambda content: content + b"more",
    ],
    ids=["empty", "4 bytes", "half", "a byte short", "no header", "noise", "too long"],
)
def test_a_damaged_weights_file_is_refused_and_the_model_stays_as_it_was(saved, damage):
    path = saved / WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    model = network(1)
    with pytest.raises(DataError, match=f"^the checkpoint {path} is damaged: ."):
        load_weights(model, saved)
    assert same(weights_of(model), weights_of(network(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("2.bias"), r"'2\.bias' is missing from it$"),
        (lambda w: w.update(extra=torch.zeros(1)), "'extra' is only in the checkpoint$"),
        (
            lambda w: w.update({"0.weight": torch.zeros(4, 2)}),
            r"'0\.weight' has shape \(4, 2\) there, \(3, 2\) in the model$",
        ),
        # one that torch would broadcast without a word
        (
            lambda w: w.update({"0.bias": torch.zeros(1)}),
            r"'0\.bias' has shape \(1,\) there, \(3,\) in the model$",
        ),
    ],
    ids=["missing", "extra", "shape", "broadcastable"],
)
def test_weights_of_another_architecture_are_refused_and_the_model_stays_as_it_was(
    saved, change, message
):
    weights = weights_of(network(0))
    change(weights)
    save_file(weights, saved / WEIGHTS)
    model = network(1)
    start = f"^{saved / WEIGHTS} is of another architecture: "
    with pytest.raises(DataError, match=start + message):
        load_weights(model, saved)
    assert same(weights_of(model), weights_of(network(1)))


@pytest.mark.parametrize("write", ["torch", "torch, old format", "pickle"])
def test_a_state_file_that_would_run_a_command_is_refused_and_the_command_does_not_run(
    saved, tmp_path, write
):
    proof = tmp_path / "it ran"
    bomb = {"epoch": 4, "optimizer": Command(f"touch '{proof}'")}
    path = saved / "state.pt"
    if write == "pickle":
        path.write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(
        DataError, match=f"^the checkpoint {path} is damaged, or holds more than data: "
    ):
        load_state(saved)
    assert not proof.exists()
    # the bomb is live: loading it carelessly sets it off
    if write == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()


def test_a_state_file_with_an_object_of_somebodys_class_is_refused(saved):
    torch.save({"epoch": 4, "odd": Plain()}, saved / "state.pt")
    expected = f"^the checkpoint {saved / 'state.pt'} is damaged, or holds more than data: "
    with pytest.raises(DataError, match=expected):
        load_state(saved)


def test_a_pickle_in_place_of_the_weights_is_not_unpickled(saved, tmp_path):
    proof = tmp_path / "it ran"
    torch.save({"0.weight": Command(f"touch '{proof}'")}, saved / WEIGHTS)
    with pytest.raises(DataError, match=f"^the checkpoint {saved / WEIGHTS} is damaged: "):
        load_weights(network(), saved)
    assert not proof.exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_a_truncated_state_file_is_refused(saved, kept):
    path = saved / "state.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=f"^the checkpoint {path} is damaged"):
        load_state(saved)


def test_a_state_file_that_holds_something_else_is_refused(saved):
    torch.save([1, 2, 3], saved / "state.pt")
    path = saved / "state.pt"
    expected = f"^the checkpoint {path} does not hold the state of a training$"
    with pytest.raises(DataError, match=expected):
        load_state(saved)


@pytest.mark.parametrize("content", ["[4]", "4", "null"])
def test_info_that_is_not_an_object_is_refused(saved, content):
    (saved / "checkpoint.json").write_text(content)
    path = saved / "checkpoint.json"
    expected = f"^{path} is not what mmcoop writes: "
    with pytest.raises(DataError, match=expected):
        load_info(saved)


def test_info_that_is_not_json_is_refused(saved):
    (saved / "checkpoint.json").write_text('{"epoch": 4')
    with pytest.raises(DataError, match=f"^{saved / 'checkpoint.json'} cannot be read: "):
        load_info(saved)
