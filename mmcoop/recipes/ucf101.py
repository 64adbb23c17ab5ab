"""ucf101: actions, seen as pictures and as optical flow, in the official splits."""

import re
from dataclasses import dataclass
from pathlib import Path

from mmcoop.datasets.clip_reader import Clip
from mmcoop.datasets.source_files import SourceFiles
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import normalised
from mmcoop.reading.json_files import read_text
from mmcoop.recipes.clip_recipe import (
    ClipRecipe,
    Listing,
    broken_links,
    cut_validation,
    unused,
    without_duplicates,
)
from mmcoop.settings import option, required

# Options of this recipe, as messages name them.
_FOLD, _FLOW = map(setting, ("fold", "flow"))

FOLDS = (1, 2, 3)

_CLASS = re.compile(r"(\d{1,9}) (\w+)")
_CLIP = re.compile(r"(\w+)/(v_\w+_g(\d+)_c\d+)\.avi(?: (\d{1,9}))?")


@dataclass(frozen=True, kw_only=True)
class UCF101(ClipRecipe):
    """UCF-101: 13,320 clips of 101 actions, as frames (rgb) and optical flow (flow).

    --splits is the folder of the official lists (classInd.txt, trainlist01.txt, testlist01.txt, …),
    --source that of the videos. Clips of one group (gNN) come from one video; the validation split
    is cut from the training list, group by group. Flow is computed between each frame and the next
    one (DIS; needs `pip install 'mmcoop[flow]'`), or read from --flow.
    """

    splits: Path = required("Folder of the official lists", metavar="FOLDER")
    fold: int = option(1, "Official split: 1, 2 or 3")
    validation: float = option(0.1, "Share of the training clips for validation")
    flow: Path | None = option(
        None, "Folder of precomputed flow, u/CLIP/ and v/CLIP/", metavar="FOLDER"
    )

    def listing(self) -> Listing:
        if self.fold not in FOLDS:
            raise UsageError(f"{_FOLD} {self.fold}: choose one of {', '.join(map(str, FOLDS))}")
        if self.flow is not None and not all((self.flow / d).is_dir() for d in ("u", "v")):
            raise DataError(f"{_FLOW} {self.flow} has no folders u and v")
        classes = self._classes()
        files = SourceFiles(self.source, ["video"])
        # the lists and the videos do not agree on upper and lower case (HandStandPushups)
        paths = {name.lower(): found[0] for name, found in reversed(files.by_stem.items())}
        clips: list[Clip] = []
        for split in ("train", "test"):
            clips += self._clips(split, classes, paths)
        clips, rejects = without_duplicates(clips)
        return Listing(
            name="ucf101",
            source="UCF-101 (Soomro, Zamir, Shah 2012)",
            classes=classes,
            clips=cut_validation(clips, self.validation, self.seed),
            kinds={"flow": ("flow", "path"), "rgb": ("frames", "path")},
            names=files.some_names(),
            rejects=rejects,
            report={**unused(files.paths, files.folder, clips), **broken_links(files)},
            flow_folder=self.flow,
        )

    def _classes(self) -> list[str]:
        names: list[str] = []
        path = self.splits / "classInd.txt"
        for number, line in _lines(path):
            match = _CLASS.fullmatch(line)
            if match is None or int(match[1]) != len(names) + 1:
                raise DataError(
                    f"{path}, line {number}: expected `{len(names) + 1} ClassName`, found {line!r}"
                )
            names.append(match[2])
        return names

    def _clips(self, split: str, classes: list[str], paths: dict[str, Path]) -> list[Clip]:
        clips = []
        path = self.splits / f"{split}list{self.fold:02d}.txt"
        for number, line in _lines(path):
            match = _CLIP.fullmatch(line)
            if match is None:
                raise DataError(
                    f"{path}, line {number}: expected `Class/v_Class_g01_c01.avi`, found {line!r}"
                )
            name, clip, group, label = match.groups()
            if name not in classes or (label and classes[int(label) - 1 : int(label)] != [name]):
                raise DataError(
                    f"{path}, line {number}: {line!r} does not agree with the classes of "
                    "classInd.txt"
                )
            found = paths.get(clip.lower())
            clips.append(
                Clip(
                    clip,
                    split,
                    classes.index(name),
                    f"{name}_g{group}",
                    {"path": found} if found else {},
                )
            )
        return clips


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, numbered from 1."""
    try:
        text = read_text(path)
    except DataError as error:
        raise DataError(f"{error}: {setting('splits')} is the lists' folder") from None
    lines = [(k, line) for k, raw in enumerate(text.splitlines(), 1) if (line := normalised(raw))]
    if not lines:
        raise DataError(f"{path} is empty")
    return lines
