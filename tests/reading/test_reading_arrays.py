"""`.npy` files: opened as NumPy opens them, objects and false sizes refused."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as arrays

from mmcoop.errors import DataError
from mmcoop.reading.arrays import open_array


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    array=arrays.arrays(
        arrays.scalar_dtypes(),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4),
    )
)
def test_an_array_is_opened_as_numpy_reads_it_and_cannot_be_written(tmp_path, array):
    path = tmp_path / "a.npy"
    np.save(path, array.copy(order="F"))
    found = open_array(path)
    assert found.dtype == np.load(path).dtype
    assert found.shape == array.shape
    assert found.tobytes() == np.load(path).tobytes()
    assert not found.flags.writeable


def test_objects_are_refused_and_run_nothing(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=rf"^{path} cannot be read: .*objects"):
        open_array(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"no array at all",
        lambda content: content.replace(b"(2, 3), ", b"(2, -3),"),
        lambda content: content.replace(b"(2, 3), ", b"(9**9**9"),
        lambda content: content.replace(b"'<f8'", b"'<f9'"),
        lambda content: content.replace(b"(2, 3), }        ", b"(2000000, 3), } "),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(tmp_path, change):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0).reshape(2, 3))
    content = path.read_bytes()
    assert change(content) != content
    path.write_bytes(change(content))
    with pytest.raises(DataError, match=rf"^{path} cannot be read: [^\n]+$"):
        open_array(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(DataError, match=rf"^{path} cannot be read: No such file or directory$"):
        open_array(path)
