"""From sound to the tensor that is sent, and a cluster that protects it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bench.cluster.local import Cluster
from collage.client import Client
from collage.speech import RATE, SIZE, mel_filters, read_wav, spectrogram
from tests.clips import save_wav, tone
from tests.onnx_models import COLOURS, linear_outputs, save_linear, save_parity

EDGES_MEL = 2595 * np.log10(1 + np.array([20, 8000]) / 700)


def band(hz: float) -> int:
    """The row of the mel band whose middle is nearest."""
    share = (2595 * np.log10(1 + hz / 700) - EDGES_MEL[0]) / (EDGES_MEL[1] - EDGES_MEL[0])
    return SIZE - round(share * (SIZE + 1))


@pytest.mark.parametrize("hz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_a_line_in_its_mel_band(hz: float) -> None:
    picture = spectrogram(tone(hz))
    assert (picture.shape, picture.dtype, picture.flags.c_contiguous) == ((SIZE, SIZE, 3), np.uint8, True)
    inside = picture[:, 4:-4]
    assert (np.abs(inside.astype(int).argmax(0) - band(hz)) <= 1).all()
    assert inside.max() == 255
    far = np.abs(np.arange(SIZE) - band(hz)) > 8
    assert inside[far].max() < 128, "30 dB below"


def test_channels_see_sharper_times_or_sharper_tones() -> None:
    click = np.zeros(RATE, np.float32)
    click[RATE // SIZE * 20 + RATE // SIZE // 2] = 1
    assert (spectrogram(click) > 0).any(0).sum(0).tolist() == [1, 3, 5], "points 250 samples apart"
    bands = (spectrogram(tone(500))[:, SIZE // 2] > 128).sum(0)
    assert bands[0] > bands[1] > bands[2]


def test_time_goes_to_the_right_and_a_clip_is_cut_and_filled_up_at_its_end() -> None:
    early = spectrogram(tone(1000, RATE // 4))
    assert early[band(1000), : SIZE // 4 - 2].min() > 200
    assert early[:, SIZE // 4 + 3 :].max() == 0
    long = tone(1000, 2 * RATE)
    np.testing.assert_array_equal(spectrogram(long), spectrogram(long[:RATE]))


def test_loudness_makes_no_difference_and_silence_is_black() -> None:
    sound = tone(700) + 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    loud, soft = spectrogram(sound).astype(int), spectrogram(sound / 32).astype(int)
    assert np.abs(loud - soft).max() <= 1
    for silent in (np.zeros(0, np.float32), np.zeros(RATE, np.float32)):
        assert spectrogram(silent).max() == 0


@pytest.mark.parametrize("bands", [32, SIZE, 83])
def test_every_mel_band_hears_something(bands: int) -> None:
    filters = mel_filters(bands)
    assert filters.shape == (513, bands)
    assert filters.min() == 0
    assert filters.sum(0).min() > 0.5
    assert spectrogram(tone(500), bands).shape == (bands, bands, 3)


def test_samples_of_a_wav_file(tmp_path: Path) -> None:
    left, right = tone(440, 100), tone(880, 100)
    np.testing.assert_allclose(read_wav(save_wav(tmp_path / "a.wav", left)), left, atol=1e-4)
    np.testing.assert_allclose(read_wav(save_wav(tmp_path / "b.wav", left, right)), (left + right) / 2, atol=1e-4)
    assert read_wav(save_wav(tmp_path / "c.wav", left[:0])).shape == (0,)


def test_other_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.wav has 16 bits at 44100 Hz: make .* ffmpeg"):
        read_wav(save_wav(tmp_path / "a.wav", tone(440, 10), rate=44100))
    with pytest.raises(ValueError, match="32 bits at 16000 Hz"):
        read_wav(save_wav(tmp_path / "b.wav", 0.5 * tone(440, 10), width=4))
    (tmp_path / "c.wav").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"c\.wav is no WAV file"):
        read_wav(tmp_path / "c.wav")
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "absent.wav")


@pytest.mark.timeout(120)
async def test_a_straggling_clip_is_decoded_from_the_parity_model(tmp_path: Path) -> None:
    """Two different clips are in flight together, as tensors; one of the two workers is frozen."""
    flags = ("--policy", "collage-only", "--deadline-s", "0.3", "--extra-load", "1")
    cluster = Cluster(
        save_linear(tmp_path / "f.onnx", size=SIZE),
        [save_parity(tmp_path / "p.onnx", size=SIZE)],
        s_cnn_workers=2,
        frontend_flags=flags,
        logs=tmp_path / "logs",
    )
    clips = [spectrogram(tone(hz)) for hz in (400.0, 3000.0)]
    exact = [linear_outputs(clip) for clip in clips]
    async with cluster, Client(cluster.frontend.address) as client:
        cluster.s_cnn[0].freeze()
        decoded = []
        for _ in range(20):
            answers = await asyncio.gather(*(client.predict(clip, timeout_s=5, with_output=True) for clip in clips))
            decoded += [(place, each) for place, each in enumerate(answers) if each.source == "PARITY"]
            if decoded:
                break
        cluster.s_cnn[0].resume()
    assert decoded
    for place, answer in decoded:
        assert answer.degraded
        assert answer.label == COLOURS[int(exact[place].argmax())]
        assert answer.output == pytest.approx(exact[place], abs=0.5), "pixels of the mean are rounded"
