"""The audio input of the paper: a log filter bank as Kaldi computes it."""

import numpy as np

#: Sampling rate of the sound, in Hz.
SAMPLE_RATE = 16_000
MEL_BINS = 128
STEPS_PER_SECOND = 100
TIME_STEPS = 1024  # as in the paper, for clips of 10 s
SHORTEST = 400  # samples: one window of 25 ms

#: AudioSet's mean, and twice its standard deviation: the paper's normalisation.
MEAN = -4.503877
STD = 2 * 5.141276


def filter_bank(sound: np.ndarray, steps: int = TIME_STEPS) -> np.ndarray:
    """Compute a log mel filter bank with Kaldi's method.

    Hanning windows of 25 ms, 10 ms apart; no dither, no energy, HTK's order; the mean of the sound
    is subtracted first. The result is not normalised yet (`MEAN`, `STD`).

    Args:
        sound: Mono sound at 16 kHz, `(samples,)`, at least `SHORTEST` samples.
        steps: Number of time steps, to which the result is cut or padded with zeros.

    Returns:
        float16 `(1, 128, steps)`.
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
