"""Arrays and tables of any library become tensors with the numbers they hold, or are refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from mmcoop.core.arrays import as_tensor, is_array
from mmcoop.errors import DataError

TABLE = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}, index=["x", "y", "z"])


@pytest.mark.parametrize(
    "given",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6).reshape(3, 2).T,  # not contiguous
        np.arange(6, dtype=">i4"),  # the other byte order
        np.arange(6)[::-1],
        np.arange(6, dtype=np.uint16),
        np.array([True, False]),
        np.float16([1.5]),
        np.complex64([1j]),
        np.ma.masked_array([1, 2], mask=[False, False]),
        np.array([[1, 2], [3, 4]], dtype=object),
        np.zeros((0, 3)),
        np.broadcast_to(np.arange(3), (2, 3)),  # read-only
        TABLE,
        TABLE.a,
        pd.Series([4, 5], dtype="Int64"),
        pd.Series([4.5, 5.5], index=[100, 99]),
        pd.Categorical([2, 1, 2]),
        [[1, 2], [3, 4]],
        [1.5, 2.5],
        (True, False),
    ],
    ids=str,
)
def test_the_numbers_are_those_of_numpy(given):
    found = as_tensor(given, "x")
    expected = np.asarray(given)
    assert found.shape == expected.shape
    assert found.tolist() == expected.tolist()


SPARSE = {
    "csr": sparse.csr_array,
    "csc": sparse.csc_array,
    "coo": sparse.coo_array,
    "lil": sparse.lil_array,
    "dok": sparse.dok_array,
    "dia": sparse.dia_array,
    "bsr": sparse.bsr_array,
    "matrix": sparse.csr_matrix,
}


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint16"])
def test_sparse_matrices_become_dense(form, dtype):
    dense = [[0, 3, 0], [2, 0, 0]]
    found = as_tensor(SPARSE[form](np.array(dense, dtype)), "x")
    assert found.tolist() == dense
    assert str(found.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize("fill", [0.0, 7.0, np.nan])
def test_sparse_columns_of_pandas_become_dense(fill):
    dense = pd.DataFrame({"a": [0.0, 3.0, 0.0], "b": [7.0, 7.0, 1.0]})
    kind = pd.SparseDtype("float64", fill)
    assert as_tensor(dense.astype(kind), "x").tolist() == [[0, 7], [3, 7], [0, 1]]
    assert as_tensor(dense.astype({"b": kind}), "x").tolist() == [[0, 7], [3, 7], [0, 1]]
    assert as_tensor(dense.b.astype(kind), "x").tolist() == [7, 7, 1]
    assert as_tensor(dense.b.astype(kind).array, "x").tolist() == [7, 7, 1]


def test_precision_is_kept():
    second = 1_700_000_000.123456
    for given in (
        [second],
        np.array([second]),
        pd.Series([second]),
        torch.tensor([second]).double(),
    ):
        assert as_tensor(given, "x").dtype == torch.float64
    assert as_tensor([second], "x").item() == second
    assert as_tensor([2**53 + 1], "x").item() == 2**53 + 1


def test_tensors_are_passed_on_as_they_are():
    for dtype in (torch.float32, torch.uint16, torch.bfloat16, torch.bool):
        x = torch.ones(2).to(dtype)
        assert as_tensor(x, "x") is x
    assert as_tensor([torch.tensor(1), torch.tensor(2)], "x").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (torch.eye(3).to_sparse(), "sparse tensor"),
        (torch.eye(3).to_sparse_csr(), "sparse tensor"),
        (torch.eye(3).to_sparse_csc(), "sparse tensor"),
        (torch.eye(4).to_sparse_bsr((2, 2)), "sparse tensor"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged), "nested"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
        (np.array(["cat", "dog"]), "text"),
        (pd.Series(["cat", "dog"]), "text"),
        (pd.Categorical(["cat", "dog"]), "text"),
        (["cat"], "text"),
        (np.array([b"x"]), "bytes"),
        (np.array(["2026-01-01"], dtype="datetime64[s]"), "dates"),
        (pd.Series(pd.to_timedelta([1, 2], unit="s")), "time spans"),
        (np.array([1, None], dtype=object), "missing values"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), "text"),
        (np.ma.masked_array([1, 2], mask=[False, True]), "masked"),
        (np.zeros(2, dtype=np.longdouble), "float128"),
        ([[1, 2], [3]], "no array of numbers"),
        ([torch.ones(2), torch.ones(3)], "different shapes"),
        (object(), "missing values or objects"),
    ],
)
def test_what_has_no_numbers_of_a_kind_that_torch_takes_is_refused_by_name(given, named):
    with pytest.raises(DataError, match=f"^the thing: .*{named}"):
        as_tensor(given, "the thing")


def test_arrays_are_told_from_other_things():
    assert all(map(is_array, (torch.ones(1), np.ones(1), TABLE, TABLE.a, sparse.eye_array(2))))
    assert not any(map(is_array, ([1], {"a": 1}, None, 3, "x", np.ndarray, pd.Series)))
