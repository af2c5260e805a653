"""Send a spoken word as a tensor: python examples/speech.py 127.0.0.1:50051 zero.wav

The cluster serves a model for spectrograms, see "Speech" in docs/models.md. The caller makes the spectrogram: uint8
[64, 64, 3] of one second at 16 kHz. To the cluster it is pixels like any others.
"""

import sys
from pathlib import Path

from collage.client import SyncClient
from collage.speech import read_wav, spectrogram

address, file = sys.argv[1], Path(sys.argv[2])
try:
    picture = spectrogram(read_wav(file))
except (OSError, ValueError) as error:
    sys.exit(str(error))
with SyncClient(address) as client:
    answer = client.predict(picture, timeout_s=1.0)
print(f"{file.name}: {answer.label}, from {answer.source}")
