"""Send pixels that are decoded already: python examples/pixels.py 127.0.0.1:50051 SIZE

Pixels are uint8 RGB, [SIZE, SIZE, 3], at exactly the input size of the s-cnn (32 for the shipped Fashion-MNIST models).
They save the frontend the decoding of a file. Here they are a red square.
"""

import sys

import numpy as np

from collage.client import SyncClient

address, size = sys.argv[1], int(sys.argv[2])
pixels = np.zeros((size, size, 3), np.uint8)
pixels[..., 0] = 255
with SyncClient(address) as client:
    print(client.predict(pixels, timeout_s=1.0).label)
