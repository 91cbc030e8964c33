"""Files are complete or absent, whatever happens in between, and whatever they are called."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from viceversa.files import remove_leftovers, replacing, write_bytes, write_text
from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_text(path, "old")
    with pytest.raises(LookupError), replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old" and temporary.suffix == ".json"
        raise LookupError
    assert path.read_text() == "old" and os.listdir(path.parent) == ["x.json"]
    write_bytes(path, b"new")
    assert path.read_text() == "new" and os.listdir(path.parent) == ["x.json"]


@pytest.mark.parametrize(
    "name", ["x" * 240 + ".png", "x." + "y" * 240, "夜" * 80 + ".png", os.fsdecode(b"\xff\xd2.png")]
)
def test_names_of_any_length_and_bytes(tmp_path, name):
    write_bytes(tmp_path / name, b"whole")
    assert os.listdir(tmp_path) == [name]


def test_names_that_are_no_text_can_be_written_into_text(tmp_path):
    name = os.fsdecode("夜".encode("gbk") + b".png")
    write_text(tmp_path / "x.json", json.dumps({"name": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": name}


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "progress").mkdir()
    code = f"""
import os, signal
from pathlib import Path
from viceversa.files import replacing
with replacing(Path({str(tmp_path)!r}, "progress", "epoch_0001.webp")) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (tmp_path / "progress" / ".epoch_0001.4711.partial.webp").touch()  # as earlier versions called them
    for name in ("model.partial.safetensors", ".hidden", "progress/epoch_0001.webp"):
        (tmp_path / name).touch()
    assert len(os.listdir(tmp_path / "progress")) == 3
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "model.partial.safetensors", "progress"]
    assert os.listdir(tmp_path / "progress") == ["epoch_0001.webp"]


@pytest.mark.skipif(os.name != "posix", reason="folders are synced where there is such a thing")
def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    seen, fsync = [], os.fsync

    def watched(number):
        seen.append((os.readlink(f"/proc/self/fd/{number}"), os.path.exists(tmp_path / "x")))
        fsync(number)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell what is synced")
    monkeypatch.setattr(os, "fsync", watched)
    write_bytes(tmp_path / "x", b"")
    assert len(seen) == 2 and seen[0][1] is False and seen[1] == (str(tmp_path), True)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of the size of files")
def test_a_full_disk_names_the_file(tmp_path):
    """Also where safetensors writes, which has an error of its own."""
    code = f"""
import resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from viceversa.files import replacing, write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
path = Path({str(tmp_path)!r}, "model.safetensors")
def tensors(temporary): save_file({{"x": torch.zeros(1000)}}, temporary)
def plain(temporary): temporary.write_bytes(bytes(4000))
for write in (tensors, plain):
    try:
        with replacing(path) as temporary:
            write(temporary)
    except OSError as error:
        print(error.errno, error.filename, "partial" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{errno.EFBIG} {tmp_path / 'model.safetensors'} False\n" * 2, done.stderr
    assert os.listdir(tmp_path) == []


def test_other_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"), replacing(tmp_path / "x"):
        (tmp_path / "gone").read_bytes()
    with pytest.raises(ValueError, match="mine"), replacing(tmp_path / "x"):
        raise ValueError("mine")
    assert os.listdir(tmp_path) == []


def test_a_model_may_be_read_by_whom_the_folders_other_files_may_be(tmp_path):
    (tmp_path / "other").touch()
    save_model(tmp_path / "m.safetensors", Model({"ab": Generator(width=2, blocks=1).build()}, ("a", "b")))
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
