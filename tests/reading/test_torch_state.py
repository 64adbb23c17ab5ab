"""What `torch.save` wrote: read as `torch.load` reads it; code and false sizes are refused."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from mmcoop.errors import DataError
from mmcoop.reading.torch_state import read_torch


def same(one, other) -> bool:
    """Whether two states have the same types, values and tensors."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


DTYPES = [
    *[torch.float64, torch.float32, torch.float16, torch.bfloat16],
    *[torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool],
]
TABLE = torch.arange(12.0).reshape(3, 4)
NETWORK = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    "state",
    [
        {"epoch": 3, "loss": 0.5, "best": None, "name": "ä", "on": [True, False], 7: (1, 2, 3, 4)},
        {"big": 2**40, "deep": [[[{}], ()]], "empty": {}},
        {str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in DTYPES},
        {"table": TABLE, "turned": TABLE.T, "part": TABLE[1:, ::2], "none": TABLE[:0]},
        {"one": torch.tensor(2.5), "spread": torch.tensor([1.0]).expand(1)},
        NETWORK.state_dict(),
        OrderedDict(a=nn.Parameter(torch.ones(2)).data),
        torch.optim.Adam(NETWORK.parameters()).state_dict(),
    ],
    ids=range(8),
)
def test_a_state_is_read_as_torch_loads_it(tmp_path, state):
    path = tmp_path / "state.pt"
    torch.save(state, path)
    found = read_torch(path)
    assert same(found, torch.load(path, weights_only=True))
    assert same(found, state)


def test_tensors_can_be_written_to_and_share_what_they_shared(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"all": TABLE, "row": TABLE[0]}, path)
    found = read_torch(path)
    found["row"][0] = 9
    assert found["all"][0, 0] == 9


class Command:
    """What makes a file, if a pickle of it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


def test_code_is_refused_and_not_run(tmp_path):
    path, proof = tmp_path / "state.pt", tmp_path / "proof"
    torch.save({"a": Command(proof)}, path)
    with pytest.raises(DataError, match=rf"^{path} is damaged, or holds more than data: it asks"):
        read_torch(path)
    assert not proof.exists()
    torch.save(NETWORK, path)
    with pytest.raises(DataError, match=rf"^{path} is damaged, or holds more than data: it asks"):
        read_torch(path)


def rewritten(path: Path, change, *, compress: int = zipfile.ZIP_STORED) -> Path:
    """The archive with its parts, by the ends of their names, as `change` returns them."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    changed = path.with_name("changed.pt")
    with zipfile.ZipFile(changed, "w", compress) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name.split("/", 1)[1], content))
    return changed


def enlarged(name: str, content: bytes) -> bytes:
    """The description of a tensor of 3 × 4 numbers, as one of 3 × 200."""
    return content.replace(b"K\x03K\x04\x86", b"K\x03K\xc8\x86") if name == "data.pkl" else content


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (enlarged, "a tensor reaches outside of its storage"),
        (
            lambda name, content: content[:-4] if name == "data/0" else content,
            "storage 0 has 44 bytes, not 12 numbers",
        ),
        (
            lambda name, content: b"big" if name == "byteorder" else content,
            "its numbers are not little-endian",
        ),
        (
            lambda name, content: pickle.dumps(print) if name == "data.pkl" else content,
            "it asks for builtins.print",
        ),
        (lambda name, content: b"" if name == "data.pkl" else content, ""),
    ],
)
def test_what_is_stated_wrong_is_refused_with_the_reason(tmp_path, change, reason):
    path = tmp_path / "state.pt"
    torch.save({"table": TABLE}, path)
    same_parts = rewritten(path, lambda name, content: content)
    assert same(read_torch(same_parts), {"table": TABLE})
    changed = rewritten(path, change)
    with pytest.raises(
        DataError, match=f"^{changed} is damaged, or holds more than data: {reason}"
    ):
        read_torch(changed)


def test_compressed_parts_are_refused(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"table": torch.zeros(1000)}, path)
    changed = rewritten(path, lambda name, content: content, compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"is damaged, or holds more than data: .* is compressed$"):
        read_torch(changed)


def test_numbers_that_were_changed_or_cut_off_or_are_missing_are_refused(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"table": TABLE}, path)
    content = path.read_bytes()
    at = content.index(TABLE.numpy().tobytes())
    path.write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    with pytest.raises(DataError, match=rf"^{path} is damaged, or holds more than data: Bad CRC"):
        read_torch(path)
    path.write_bytes(content[:-40])
    with pytest.raises(DataError, match=rf"^{path} is damaged, or holds more than data: "):
        read_torch(path)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'nothing'} is missing$"):
        read_torch(tmp_path / "nothing")
