"""A contact sheet of a data set: a few samples of each class, their modalities below each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import UsageError, setting
from mmcoop.files import atomic_write, check_new_file
from mmcoop.printable import printable
from mmcoop.reading.pictures import decode_jpeg

#: How much of a data set is drawn.
CLASSES = 12
SAMPLES_A_CLASS = 2

#: How the file may be called.
FORMATS = (".png", ".pdf", ".svg", ".jpg")

_CELL = (2.6, 1.5)  # inches
_LETTERS = 34  # of a name, as many as a cell is wide


def draw_preview(dataset: DatasetFolder, path: Path, split: str = "train") -> None:
    """Write a picture (PNG, PDF, SVG, by the name) of the first samples of the first classes.

    Classes are shared out evenly where there are more than `CLASSES`. Pictures stand above sounds,
    those above numbers. Raises `DataError` where a shard is damaged.
    """
    samples = dataset.split(split)
    labels = np.unique(samples.labels)
    shown = labels[np.linspace(0, len(labels) - 1, min(CLASSES, len(labels))).astype(int)]
    names = sorted(dataset.modalities, key=lambda name: _ORDER.index(dataset.modalities[name].kind))
    columns = [
        position
        for label in shown
        for position in np.flatnonzero(samples.labels == label)[:SAMPLES_A_CLASS]
    ]
    wide = min(len(columns), 3 * SAMPLES_A_CLASS)
    bands = -(-len(columns) // wide)
    rows = bands * len(names)
    figure = Figure(figsize=(_CELL[0] * wide, _CELL[1] * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(rows, wide, squeeze=False)
    for cell in cells.flat:
        cell.set_axis_off()
    for k, position in enumerate(columns):
        band, column = divmod(k, wide)
        for row, name in enumerate(names):
            cell = cells[band * len(names) + row, column]
            cell.set_axis_on()
            cell.set_xticks([])
            cell.set_yticks([])
            stored = samples.read(name, np.array([position]))[0]
            _DRAW[dataset.modalities[name].kind](cell, stored, dataset.modalities[name])
            if column == 0:
                cell.set_ylabel(printable(name), fontsize=8, parse_math=False)
            if row == 0:
                label = printable(dataset.classes[samples.labels[position]])[:_LETTERS]
                # its end tells it apart
                id = printable(samples.ids(np.array([position]))[0])[-_LETTERS:]
                cell.set_title(f"{label}\n{id}", fontsize=7, parse_math=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".").lower(), dpi=110)


def check_preview(path: Path, overwrite: bool) -> None:
    """Raise `UsageError` where no picture can be written at `path`."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{setting('preview')} {path}: its name must end in {', '.join(FORMATS)}")
    check_new_file(path, overwrite, "preview")


def _some(frames: Sequence[Any]) -> list[Any]:
    """At most four frames, evenly spaced."""
    return [
        frames[k] for k in np.linspace(0, len(frames) - 1, min(len(frames), 4)).round().astype(int)
    ]


def _frames(cell: Axes, stored: Any, modality: Modality) -> None:
    pictures = [decode_jpeg(jpeg) for jpeg in _some(stored)]
    cell.imshow(np.concatenate(pictures, axis=1))


def _image(cell: Axes, stored: Any, modality: Modality) -> None:
    mean, std = (float(np.mean(x)) for x in (modality.mean, modality.std))
    if stored.shape[0] == 3 and modality.dtype == "uint8":
        cell.imshow(stored.transpose(1, 2, 0))
    else:
        cell.imshow(stored[0], cmap="gray", vmin=mean - 3 * std, vmax=mean + 3 * std)


def _flow(cell: Axes, stored: Any, modality: Modality) -> None:
    """Horizontal displacement, one field beside the other: blue to the left, red to the right."""
    fields = np.concatenate(
        [f[0].astype(float) - modality.no_motion for f in _some(stored)], axis=1
    )
    most = max(float(np.abs(fields).max()), 1e-6)
    cell.imshow(fields, cmap="RdBu_r", vmin=-most, vmax=most)


def _spectrogram(cell: Axes, stored: Any, modality: Modality) -> None:
    """Low tones below. The zeros after the end of a short sound are no sound: left white."""
    levels = stored[0].astype(float)
    ends = np.flatnonzero(levels.any(axis=0)).max(initial=0) + 1
    levels[:, ends:] = np.nan
    cell.imshow(levels, origin="lower", aspect="auto", cmap="magma")


def _series(cell: Axes, stored: Any, modality: Modality) -> None:
    cell.plot(stored, linewidth=0.6)


def _vector(cell: Axes, stored: Any, modality: Modality) -> None:
    cell.bar(np.arange(len(stored)), stored, width=1.0)


_DRAW = {
    "frames": _frames,
    "image": _image,
    "flow": _flow,
    "spectrogram": _spectrogram,
    "series": _series,
    "vector": _vector,
}
# pictures above sound above numbers
_ORDER = list(_DRAW)
