"""kinetics-sounds: the clips of Kinetics whose class can be seen and heard, by published lists.

A list has one line per clip, `id,seconds,class`, with class numbers 0…30.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mmcoop.datasets.clip_reader import Clip
from mmcoop.datasets.source_files import SourceFiles
from mmcoop.datasets.youtube import YouTubeFiles, parse_name
from mmcoop.errors import DataError
from mmcoop.names import normalised
from mmcoop.reading.json_files import read_text
from mmcoop.recipes.clip_recipe import (
    ClipRecipe,
    Listing,
    broken_links,
    cut_validation,
    of_whole_videos,
    unused,
    without_duplicates,
)
from mmcoop.settings import option, required

#: The classes of the published lists, by number.
CLASSES = (
    "blowing_nose",
    "blowing_out_candles",
    "bowling",
    "chopping_wood",
    "dribbling_basketball",
    "laughing",
    "mowing_lawn",
    "playing_accordion",
    "playing_bagpipes",
    "playing_bass_guitar",
    "playing_clarinet",
    "playing_drums",
    "playing_guitar",
    "playing_harmonica",
    "playing_keyboard",
    "playing_organ",
    "playing_piano",
    "playing_saxophone",
    "playing_trombone",
    "playing_trumpet",
    "playing_violin",
    "playing_xylophone",
    "ripping_paper",
    "shoveling_snow",
    "shuffling_cards",
    "singing",
    "stomping_grapes",
    "tap_dancing",
    "tapping_guitar",
    "tapping_pen",
    "tickling",
)

_LINE = re.compile(r"([^,\s]+),(\d+(?:\.\d+)?),(\d{1,9})")


@dataclass(frozen=True, kw_only=True)
class KineticsSounds(ClipRecipe):
    """Kinetics Sounds: 31 classes of Kinetics that can be seen and heard, by published lists.

    --train-list and --test-list are my_train.txt (14,799 clips) and my_test.txt (2,597 clips), with
    lines `id,seconds,class`. You supply the clips, in any folders under --source, named after their
    id, or the complete videos. The validation split is cut from the training list, video by video.
    """

    train_list: Path = required("The published my_train.txt", metavar="FILE")
    test_list: Path = required("The published my_test.txt", metavar="FILE")
    validation: float = option(0.1, "Share of the training clips for validation")

    def listing(self) -> Listing:
        files = SourceFiles(self.source, ["video"])
        videos = YouTubeFiles(files)
        train, test = (
            _read_list(path, split, videos)
            for path, split in ((self.train_list, "train"), (self.test_list, "test"))
        )
        clips, rejects = without_duplicates([*train, *test])
        clips = of_whole_videos(clips)
        tested = {clip.group for clip in clips if clip.split == "test"}
        # a video that is in the test list, too, stays in training: validation shares no video
        clips = cut_validation(clips, self.validation, self.seed, keep=tested)
        return Listing(
            name="kinetics-sounds",
            source="Kinetics Sounds, of Kinetics-400",
            classes=CLASSES,
            clips=clips,
            kinds={"audio": ("spectrogram", "path"), "visual": ("frames", "path")},
            names=files.some_names(),
            rejects=rejects,
            report={**unused(files.paths, files.folder, clips), **broken_links(files)},
            shared_groups=True,
        )


def _read_list(path: Path, split: str, videos: YouTubeFiles) -> list[Clip]:
    expected = f"expected `id,seconds,class` with a class of 0…{len(CLASSES) - 1}"
    lines = read_text(path).splitlines()
    clips = []
    for number, line in enumerate(lines, start=1):
        line = normalised(line)
        if not line:
            continue
        match = _LINE.fullmatch(line)
        name = parse_name(match[1]) if match else None
        if match is None or name is None or int(match[3]) >= len(CLASSES):
            raise DataError(f"{path}, line {number}: {expected}, found {line[:80]!r}")
        label = int(match[3])
        found = videos.find(match[1], CLASSES[label])
        start = end = None
        if name.start is not None and (found is None or found[1]):
            start = float(name.start)
            end = float(name.end or name.start + float(match[2]))
        clips.append(
            Clip(
                match[1],
                split,
                label,
                name.video,
                {"path": found[0]} if found else {},
                start,
                end,
                perhaps_cut=found is not None and found[1],
            )
        )
    if not clips:
        raise DataError(f"the list {path} is empty: {expected}")
    return clips
