"""Reading media files, with PyAV."""

from pathlib import Path

import av
import numpy as np

from mmcoop.errors import DataError


def read_audio(path: Path, rate: int) -> np.ndarray:
    """The sound of a file, mixed to mono and resampled to `rate` samples a second.

    float32 `(samples,)` in −1…1, the mean of the channels of its first audio stream. Raises
    `DataError` where the file cannot be read or has no sound.
    """
    resampler = av.AudioResampler(format="fltp", rate=rate)  # planar: (channels, samples)
    try:
        with av.open(str(path)) as container:
            frames = []
            if container.streams.audio:
                for frame in (*container.decode(audio=0), None):  # None: what is left inside
                    frames += [part.to_ndarray().mean(0) for part in resampler.resample(frame)]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as sound: {error}") from None
    sound = np.concatenate(frames) if frames else np.zeros(0, np.float32)
    if len(sound) == 0:
        raise DataError(f"{path} has no sound")
    return sound
