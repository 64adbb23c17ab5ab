"""Reading media files, with PyAV."""

from pathlib import Path

import av
import numpy as np

from mmcoop.errors import DataError


def read_audio(path: Path, rate: int) -> np.ndarray:
    """The sound of a file, mixed to mono and resampled to `rate` samples a second.

    float32 `(samples,)` in −1…1, its first audio stream. Raises `DataError` where the file cannot
    be read or has no sound.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise DataError(f"{path} has no sound")
            frames = [
                resampled.to_ndarray().ravel()
                for frame in container.decode(audio=0)
                for resampled in resampler.resample(frame)
            ]
            frames += [frame.to_ndarray().ravel() for frame in resampler.resample(None)]
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be read as sound: {error}") from None
    sound = np.concatenate(frames) if frames else np.zeros(0, np.float32)
    if len(sound) == 0:
        raise DataError(f"{path} has no sound")
    return sound
