"""Spoken words as the tensors that speech models take: a caller makes the spectrogram, and sends it like an image.

Models for speech are trained on what ``spectrogram`` makes. To a cluster it is pixels like any others, so every code
protects it.
"""

from __future__ import annotations

import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Samples in a second, and in a clip."""
SIZE = 64
"""Mel bands, and points in time."""
WINDOWS = (256, 512, 1024)
"""Samples that each channel looks at around a point in time: 16, 32 and 64 ms."""
LOWEST_HZ = 20.0
RANGE_DB = 60.0
"""From black to white."""
_SILENCE = 1e-5
"""Power of a clip's loudest band below which it counts as silent; a sine of full scale has thousands."""


def read_wav(file: Path) -> NDArray[np.float32]:
    """The samples of a WAV file, float32 ``[n]`` from -1 to 1, channels averaged.

    Raises ValueError for one of another form than 16 kHz and 16 bit, OSError if the file cannot be read.
    """
    try:
        with file.open("rb") as opened, wave.open(opened) as clip:
            channels, width, rate = clip.getnchannels(), clip.getsampwidth(), clip.getframerate()
            content = clip.readframes(clip.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file} is no WAV file of plain samples: {error}") from None
    if (width, rate) != (2, RATE):
        raise ValueError(
            f"{file} has {8 * width} bits at {rate} Hz: make 16 bits at {RATE} Hz of it, "
            f"such as with ffmpeg -i IN -ar {RATE} -ac 1 -c:a pcm_s16le OUT.wav"
        )
    samples = np.frombuffer(content[: len(content) // (2 * channels) * 2 * channels], "<i2").reshape(-1, channels)
    mean: NDArray[np.float32] = samples.mean(1, dtype=np.float32) / np.float32(32768)
    return mean


def spectrogram(samples: NDArray[np.float32], size: int = SIZE) -> NDArray[np.uint8]:
    """The mel spectrogram of one second at 16 kHz, ``[n]``: uint8 ``[size, size, 3]``, the highest band first.

    A longer clip is cut at its end, a shorter one goes on in silence. Each channel has a window of its own length,
    and goes from 0 at ``RANGE_DB`` below its loudest point, and below, to 255 there: how loud a clip is makes no
    difference.
    """
    clip = np.zeros(RATE, np.float32)
    clip[: len(samples)] = samples[:RATE]
    longest = max(WINDOWS)
    padded = np.pad(clip, longest)
    middles = longest + np.rint((np.arange(size) + 0.5) * RATE / size).astype(np.int64)
    channels = []
    for window in WINDOWS:
        hann = np.hanning(window + 1)[:-1].astype(np.float32)
        frames = padded[middles[:, None] + np.arange(window) - window // 2] * (hann / np.sqrt(np.square(hann).sum()))
        # Not by @: OpenBLAS would start threads, which take 30 times as long on busy cores.
        power = np.einsum("tf,fb->tb", np.square(np.abs(np.fft.rfft(frames, longest))), mel_filters(size))
        loudest = max(float(power.max()), _SILENCE)
        level = 1 + 10 / RANGE_DB * np.log10(np.maximum(power / loudest, 1e-12))
        channels.append(np.rint(255 * level.clip(0, 1)).astype(np.uint8).T[::-1])
    return np.ascontiguousarray(np.stack(channels, 2))


@lru_cache(maxsize=8)
def mel_filters(bands: int) -> NDArray[np.float32]:
    """Triangles that are equally wide in mel, from ``LOWEST_HZ`` to 8 kHz: float32 ``[513, bands]``."""
    lowest, highest = 2595 * np.log10(1 + np.array([LOWEST_HZ, RATE / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(lowest, highest, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(max(WINDOWS), 1 / RATE)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: NDArray[np.float32] = np.minimum(rising, falling).clip(0).astype(np.float32)
    return filters
