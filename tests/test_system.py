"""What is asked of the system, seen from outside: page faults of a process of its own."""

import platform
import subprocess
import sys

import pytest

ROUNDS = 20
MEASURE = f"""
import resource
from collage.system import keep_memory
keep_memory()
faults = []
for _ in range({ROUNDS} + 1):
    blocks = [b"x" * 4_000_000 for _ in range(3)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is about glibc")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    """Of 12 MB each time; by itself glibc gives it back: 3,000 page faults a round."""
    found = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=60, check=True)
    assert int(found.stdout) < ROUNDS * 100
