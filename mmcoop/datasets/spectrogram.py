"""The audio input of the paper: a log filter bank as Kaldi computes it."""

import numpy as np

#: Samples a second of the sound it is made of.
SAMPLE_RATE = 16_000
MEL_BINS = 128
STEPS_PER_SECOND = 100
TIME_STEPS = 1024  # those of the paper, for clips of 10 s
SHORTEST = 400  # samples: one window of 25 ms

#: Mean, and twice the standard deviation, of AudioSet, with which the paper normalises.
MEAN = -4.503877
STD = 2 * 5.141276


def filter_bank(sound: np.ndarray, steps: int = TIME_STEPS) -> np.ndarray:
    """Log filter bank float16 `(1, 128, steps)` of mono sound `(samples,)` at 16 kHz.

    The sound's mean is removed; Hanning windows of 25 ms, 10 ms apart; no dither, no energy, HTK's
    order. Cut to `steps`, or padded with zeros. Not normalised yet (`MEAN`, `STD`). Needs
    `SHORTEST` samples.
    """
    import torch
    from torchaudio.compliance.kaldi import fbank

    x = torch.from_numpy(sound - sound.mean()).unsqueeze(0)
    bank = fbank(
        x,
        htk_compat=True,
        sample_frequency=SAMPLE_RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=MEL_BINS,
        dither=0.0,
        frame_shift=10,
    )[:steps]
    padded = np.zeros((1, MEL_BINS, steps), np.float16)
    padded[0, :, : len(bank)] = bank.T.numpy()
    return padded
