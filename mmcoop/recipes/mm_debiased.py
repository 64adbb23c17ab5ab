"""mm-debiased: the paper's data set on which modalities contribute equally on average.

Its list, `MM-Debiased.json`, has 14,025 clips of VGGSound and Kinetics-400 in 10 classes:
`{id: {"subset": …, "label": …}}`.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcoop.datasets.clip_reader import Clip
from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.source_files import SourceFiles
from mmcoop.datasets.youtube import CLIP_SECONDS, YouTubeFiles, parse_name
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import normalised
from mmcoop.reading.json_files import parse_json, read_text
from mmcoop.recipes.clip_recipe import (
    ClipRecipe,
    Listing,
    broken_links,
    in_splits,
    of_whole_videos,
    unused,
)
from mmcoop.settings import option, required

# Options of this recipe, as messages name them.
_LIST = setting("list")

#: The classes of the list.
CLASSES = (
    "bowling",
    "cleaning floor",
    "lawn mowing",
    "motorcycling",
    "playing cello",
    "playing flute",
    "playing piano",
    "singing",
    "whistling",
    "writing on blackboard",
)

_SUBSETS = {"training": "train", "validation": "validation", "testing": "test"}
_SPLIT_RULES = ("listed", "leak-free")


@dataclass(frozen=True, kw_only=True)
class MMDebiased(ClipRecipe):
    """MM-Debiased: 14,025 clips of 10 classes, sound and picture equally informative on average.

    --list is the authors' MM-Debiased.json. You supply the clips, from VGGSound and Kinetics-400,
    in any folders under --source: named after their id (`ID.mp4`, `ID_30.mp4`, `ID_000030.mp4`,
    `ID_000030_000040.mp4`), or the complete videos (`ID.mp4`, `Title [ID].mp4`), out of which the
    window is cut. 185 videos are in more than one of the list's subsets.
    """

    list: Path = required("The authors' MM-Debiased.json", metavar="FILE")
    split: str = option("listed", "Split: as listed, or leak-free (one split per video)")

    def listing(self) -> Listing:
        if self.split not in _SPLIT_RULES:
            raise UsageError(
                f"unknown {setting('split')} {self.split!r}: choose one of "
                f"{', '.join(_SPLIT_RULES)}"
            )
        entries = _read_list(self.list)
        classes = sorted({entry["label"] for entry in entries.values()})
        files = SourceFiles(self.source, ["video"])
        videos = YouTubeFiles(files)
        clips = []
        for id, entry in entries.items():
            name = parse_name(id)
            assert name is not None
            found = videos.find(id, entry["label"])
            start = end = None
            if name.start is not None:
                start = float(name.start)
                end = float(name.end or name.start + CLIP_SECONDS)
            whole = found is not None and found[1]
            clips.append(
                Clip(
                    id,
                    _SUBSETS[entry["subset"]],
                    classes.index(entry["label"]),
                    name.video,
                    {"path": found[0]} if found else {},
                    # a file named after its window is that window already
                    start if whole or found is None else None,
                    end if whole or found is None else None,
                    perhaps_cut=whole,
                )
            )
        clips = of_whole_videos(clips)
        moved: dict[str, int] = {}
        if self.split == "leak-free":
            listed = clips
            clips = in_splits(clips, leak_free(clips))
            moved = dict(
                Counter(
                    f"{before.split} to {after.split}"
                    for before, after in zip(listed, clips, strict=True)
                    if before.split != after.split
                )
            )
        return Listing(
            name="mm-debiased",
            source="MM-Debiased (Wei et al., CVPR 2024), of VGGSound and Kinetics-400",
            classes=classes,
            clips=clips,
            kinds={"audio": ("spectrogram", "path"), "visual": ("frames", "path")},
            names=files.some_names(),
            report={
                **({"moved_to_keep_every_video_in_one_split": moved} if moved else {}),
                **unused(files.paths, files.folder, clips),
                **broken_links(files),
            },
            shared_groups=self.split == "listed",
        )


def leak_free(clips: list[Clip]) -> list[str]:
    """A split for every clip such that every group is in one alone.

    That where the group has most clips; of equal ones the earlier of train, validation, test.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        counts[clip.group][clip.split] += 1
    home = {
        group: max(SPLITS, key=lambda split: (count[split], -SPLITS.index(split)))
        for group, count in counts.items()
    }
    return [home[clip.group] for clip in clips]


def _read_list(path: Path) -> dict[str, dict[str, str]]:
    expected = 'expected {id: {"subset": "training", "label": "bowling"}, …}'
    try:
        text = read_text(path)
        entries = parse_json(text, path)
    except DataError as error:
        raise DataError(
            f"{_LIST} {error}: give the authors' MM-Debiased.json; {expected}"
        ) from None
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{_LIST} {path} is not the list: {expected}, found {text[:60]!r}")
    listed: dict[str, dict[str, str]] = {}
    for id, entry in entries.items():
        name = normalised(id)
        subset, label = _texts(entry, "subset", "label")
        if not (parse_name(name) and subset in _SUBSETS and label in CLASSES):
            line = text[: max(text.find(json.dumps(id, ensure_ascii=False)), 0)].count("\n") + 1
            raise DataError(
                f"{_LIST} {path}, line {line}: {expected} with subset "
                f"{', '.join(_SUBSETS)} and label {', '.join(CLASSES)}, found "
                f"{json.dumps({id: entry})[:120]}"
            )
        if name in listed:
            raise DataError(f"{_LIST} {path} has two entries of the clip {name}: leave one out")
        listed[name] = {"subset": subset, "label": label}
    return listed


def _texts(entry: Any, *keys: str) -> list[str]:
    """The texts of an entry under these keys; empty where there is none."""
    found = [entry.get(key) if isinstance(entry, dict) else None for key in keys]
    return [normalised(text) if isinstance(text, str) else "" for text in found]
