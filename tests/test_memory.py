"""Freed memory is kept: large blocks cost no page faults after a while."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from semcast.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.set_num_threads(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):  # small blocks in between split what was freed, so the heap grows a few times first
    before = faults()
    torch.ones(17_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own setting")
def test_freed_memory_is_kept():
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout) for how in ("kept", "no")
    )
    assert kept < 16 < returned  # 68 MB are 33 large pages or 16,602 small ones
