"""Clips of sound for tests."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def tone(hz: float, samples: int = 16_000) -> NDArray[np.float32]:
    """A sine of full scale at 16 kHz, float32."""
    return np.sin(2 * np.pi * hz * np.arange(samples) / 16_000).astype(np.float32)


def save_wav(path: Path, *channels: NDArray[np.float32], rate: int = 16_000, width: int = 2) -> Path:
    """A WAV file of samples from -1 to 1, one array for each channel, ``width`` bytes each."""
    with wave.open(str(path), "wb") as clip:
        clip.setnchannels(len(channels))
        clip.setsampwidth(width)
        clip.setframerate(rate)
        samples = np.rint(np.stack(channels, 1) * (2 ** (8 * width - 1) - 1))
        clip.writeframes(samples.astype(f"<i{width}").tobytes())
    return path
