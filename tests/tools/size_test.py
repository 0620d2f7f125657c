"""What is tracked travels with every measurement on a GPU, so it stays small."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MOST = 5 * 2**20  # bytes


def test_tracked_files_together_stay_below_5_mib():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git here, or no repository")
    sizes = {name: (ROOT / name).stat().st_size for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    largest = sorted(sizes.items(), key=lambda pair: -pair[1])[:10]
    told = "\n".join(f"{size:>9,}  {name}" for name, size in largest)
    assert sum(sizes.values()) < MOST, f"{sum(sizes.values()):,} bytes are tracked; the largest:\n{told}"
