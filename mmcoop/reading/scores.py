"""Scores files: their details and columns, read without torch.

`docs/reference/scores.md` describes the file; `mmcoop/scores/table.py` writes it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pyarrow as pa
from pydantic import Field, with_config
from typing_extensions import TypedDict

from mmcoop.errors import DataError
from mmcoop.reading.arrow_tables import parquet_schema, read_parquet
from mmcoop.reading.json_files import AS_WRITTEN, checked, parse_json

#: The entry of a Parquet file's metadata that holds the details.
METADATA_KEY = b"mmcoop"

#: The value of the entry `ids` if ids are positions of samples, unknown to any dataset.
POSITIONS = "positions"


@with_config(AS_WRITTEN)
class _ValuedDataset(TypedDict):
    name: NotRequired[str]
    fingerprint: NotRequired[str]


@with_config(AS_WRITTEN)
class ScoresDetails(TypedDict):
    """The details of a scores file, as far as they are checked."""

    modalities: Annotated[list[str], Field(min_length=1)]
    classes: NotRequired[Annotated[int, Field(ge=0, le=2**24)]]
    seed: NotRequired[int | None]
    dataset: NotRequired[_ValuedDataset | None]


def read_scores_details(path: Path) -> dict[str, Any]:
    """Read the details of a scores file.

    Raises:
        DataError: It is not a scores file.
    """
    try:
        metadata = parquet_schema(path).metadata or {}
        if METADATA_KEY not in metadata:
            raise DataError("it has no details of a valuation")
        where = "the text of its metadata"
        return dict(checked(parse_json(metadata[METADATA_KEY], where), ScoresDetails, where))
    except DataError as error:
        raise DataError(f"{path} is not a scores file of mmcoop: {error}") from None


def read_scores(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a scores file.

    Raises:
        DataError: The file is damaged, or lacks a column.
    """
    try:
        return read_parquet(path, columns)
    except DataError as error:
        raise DataError(f"{path} is not a scores file of mmcoop: {error}") from None
