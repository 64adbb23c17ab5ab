"""How fast clips become a data set, against only decoding them.

The floor decodes the pictures and sound of every clip with PyAV, in as many processes as the build,
and discards the result. The build also scales and encodes pictures, computes filter banks, writes
and hashes. The two run in turn; times include start-up. Every clip in the folder that has both
sound and pictures is used `--repeat` times.

    python benchmarks/build_speed.py ../shared/data/clips --repeat 20 --workers 2
"""

import argparse
import statistics
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import av

from mmcoop.datasets.building import BuildPlan, build_clips
from mmcoop.datasets.clip_reader import Clip, Reading, read_clip
from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.rejects import Unusable
from mmcoop.datasets.source_files import SourceFiles
from mmcoop.datasets.writer import Header

KINDS = {"audio": ("spectrogram", "path"), "visual": ("frames", "path")}


def decode(path: Path) -> int:
    """Decode a file and forget it; how many frames there were."""
    frames = 0
    with av.open(str(path)) as container:
        streams = [container.streams.best("video"), container.streams.best("audio")]
        for stream in streams:
            stream.codec_context.thread_count = 1
        for packet in container.demux(*streams):
            frames += len(packet.decode())
    return frames


def usable(path: Path) -> bool:
    try:
        read_clip(Clip("clip", "train", 0, "clip", {"path": path}), Reading(KINDS))
    except Unusable:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    paths = [p for p in SourceFiles(arguments.clips, ["video"]).paths if usable(p)]
    paths *= arguments.repeat
    clips = [
        Clip(f"clip-{k:05d}", SPLITS[k % 3], 0, f"clip-{k:05d}", {"path": path})
        for k, path in enumerate(paths)
    ]
    reading = Reading(KINDS)
    header = Header("bench", "bench", {}, ["class", "other"], reading.modalities(), "clips",
                    columns={"duration": "float32", "notes": "string"})  # fmt: skip
    speeds: dict[str, list[float]] = {"decode and throw away": [], "build": []}
    context = get_context("forkserver")
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        with context.Pool(arguments.workers) as pool:
            pool.map(decode, paths, chunksize=1)
        speeds["decode and throw away"].append(len(paths) / (time.perf_counter() - started))
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            build_clips(Path(folder, "data"), BuildPlan(header, reading, clips),
                        workers=arguments.workers)  # fmt: skip
            speeds["build"].append(len(paths) / (time.perf_counter() - started))
    print(f"{len(paths)} clips, {arguments.workers} processes, median of {arguments.rounds}:")
    for name, found in speeds.items():
        print(f"{name}: {statistics.median(found):.1f} clips/s")
    ratio = statistics.median(
        floor / build
        for floor, build in zip(speeds["decode and throw away"], speeds["build"], strict=True)
    )
    print(f"build / floor, in time: {ratio:.2f}")


if __name__ == "__main__":
    main()
