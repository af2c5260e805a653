"""Codes over groups of images: geometry, encoding and decoding. Pure NumPy and Pillow, no I/O."""
