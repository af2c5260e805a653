"""Commands that start real processes and measure them."""
