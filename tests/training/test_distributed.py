"""Several processes make the run that one would make; a lost one is replaced; what differs is said, not waited for."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import LONG
from safetensors.torch import load_file
from test_cyclegan import before_a_norm
from test_train import SMALL, folders, made  # noqa: F401 (a fixture)
from worker import PYRAMID, SPEC

from viceversa import distributed
from viceversa.model.networks import PatchDiscriminator

HERE = Path(__file__).parent


def torchrun(count, *arguments, restarts=0):
    options = ["--standalone", "--nproc-per-node", count, "--max-restarts", restarts, "--monitor-interval", 0.5]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process, seconds=LONG):
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # torchrun and what it started
        raise
    return output


def training(photos, out):
    # After --, or torchrun takes --log for one of its own flags.
    return ["-m", "--", "viceversa", "train", *photos, "--out", out, *SMALL]


def struck(photos, out, victim):
    """The same, with one of the processes killed at the first checkpoint."""
    return ["--", HERE / "worker.py", "struck", victim, *photos, "--out", out, *SMALL]


@pytest.mark.parametrize("recipe", ["paper", "photo"])
def test_two_processes_equal_one_with_twice_the_batch(recipe, tmp_path):
    results = []
    for count in (1, 2):
        out = tmp_path / f"{count}.safetensors"
        process = torchrun(count, HERE / "worker.py", "steps", out, recipe)
        output = ended(process)
        assert process.returncode == 0, output
        results.append(load_file(out))
    one, two = results
    assert ((one["losses"] - two["losses"]).abs() <= 1e-10 * one["losses"].abs()).all()
    spec = {"paper": SPEC, "photo": PYRAMID}[recipe]
    noisy = {f"{n}.{k}" for n in ("ab", "ba") for k in before_a_norm(spec.build())}
    noisy |= {f"{n}.{k}" for n in ("disc_a", "disc_b") for k in before_a_norm(PatchDiscriminator(3, 4, 2))}
    noisy |= {f"{n}.small.seeing.bias" for n in ("ab", "ba")}  # a constant, which the blocks hand on to a norm
    for name in one:
        limit = 1e-6 if name in noisy else 1e-12
        assert name == "losses" or (one[name] - two[name]).abs().max() <= limit, name


def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_undisturbed(folders, tmp_path):  # noqa: F811
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    process = torchrun(2, *training(folders, calm))
    output = ended(process)
    assert process.returncode == 0, output

    process = torchrun(2, *struck(folders, rough, -1), restarts=2)
    output = ended(process)
    assert process.returncode == 0, output
    assert "going on after epoch" in output
    assert made(calm) == made(rough)


def test_without_restarts_the_others_end_too(folders, tmp_path):  # noqa: F811
    """Long before the 20 minutes after which one that waits for another gives up."""
    process = torchrun(2, *struck(folders, tmp_path / "run", 0))
    ended(process)
    assert process.returncode != 0 and list((tmp_path / "run" / "checkpoint").glob("*.json"))
    assert not (tmp_path / "run" / "progress" / "day2night.gif").exists()


def test_different_settings_are_an_error_on_all_ranks(folders, tmp_path):  # noqa: F811
    process = torchrun(2, HERE / "worker.py", "settings", tmp_path / "run", *folders)
    output = ended(process)
    assert output.count("said: the processes have different settings") == 2, output
    assert not (tmp_path / "run").exists()


def test_more_processes_than_images_is_an_error(folders, tmp_path):  # noqa: F811
    process = torchrun(2, *training(folders, tmp_path / "run"), "--batch", "5")
    output = ended(process)
    assert process.returncode != 0 and "need more than the 8 images" in output


def test_a_run_goes_on_with_another_number_of_processes(folders, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    process = torchrun(2, *training(folders, run), "--epochs", "1", "--decay-epochs", "1")
    output = ended(process)
    assert process.returncode == 0, output
    alone = [sys.executable, *(x for x in training(folders, run) if x != "--"), "--epochs", "2", "--decay-epochs", "1"]
    result = subprocess.run(list(map(str, alone)), capture_output=True, text=True, timeout=LONG)
    assert result.returncode == 0 and "going on with 1 process instead of 2" in result.stdout, result.stderr
    assert (run / "progress" / "epoch_0003.webp").exists()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line.get("end_of_epoch")] == [1, 2, 3]
    assert [line["step"] for line in lines if line.get("end_of_epoch")] == [4, 8, 16]


def test_processes_that_see_other_images_say_which(folders, tmp_path):  # noqa: F811
    for rank in (0, 1):
        shutil.copytree(folders[0], tmp_path / str(rank) / "day")
    (tmp_path / "1" / "day" / "05.png").rename(tmp_path / "1" / "day" / "05 again.png")
    process = torchrun(2, HERE / "worker.py", "images", tmp_path / "run", tmp_path, folders[1])
    output = ended(process)
    said = "said: the processes see different images: first number 4, which for rank 0 is 05.png"
    assert output.count(said) == output.count("for rank 1 05 again.png") == 2, output
    assert not (tmp_path / "run").exists()


def test_processes_of_a_machine_decode_once_and_share_the_pixels(folders, tmp_path):  # noqa: F811
    shutil.copytree(folders[0], tmp_path / "day")
    (tmp_path / "day" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "run").mkdir()
    process = torchrun(2, HERE / "worker.py", "store", tmp_path / "run", tmp_path / "day")
    output = ended(process)
    assert process.returncode == 0, output
    one, two = map(json.loads, re.findall(r"\[[^]]+]", output))  # both may stand in one line
    place, decoded, file, digest, skipped, count = zip(one, two, strict=True)
    assert set(place) == {"in a file that 2 processes share"} and sorted(decoded) == [0, 12]
    assert file[0] == file[1] and not file[0].endswith(" 0") and not list((tmp_path / "run").iterdir())
    assert skipped == (1, 1) and count == (12, 12)
    alone = subprocess.run([sys.executable, HERE / "worker.py", "store", tmp_path / "run", tmp_path / "day"],
                           capture_output=True, text=True)  # fmt: skip
    assert json.loads(alone.stdout.splitlines()[0])[3] == digest[0] == digest[1]
    assert output.count("smaller than --crop 320") == 2, "what is wrong is said by all"


def test_buckets_hold_at_most_their_size_and_every_tensor_once():
    tensors = [torch.zeros(n) for n in (3, 5, 100, 1, 1, 7)]
    runs = distributed.buckets(tensors, 32)
    assert [t.numel() for run in runs for t in run] == [3, 5, 100, 1, 1, 7]
    assert all(sum(t.nbytes for t in run) <= 32 or len(run) == 1 for run in runs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_is_a_view_in_the_order_of_memory(layout):
    x = torch.rand(2, 3, 4, 5).to(memory_format=layout)
    flat = distributed.memory(x)
    flat += 1
    assert flat.numel() == x.numel() and x.min() >= 1


LOST = """
import os
import torch
from torch import distributed as dist
from viceversa import distributed
distributed.init("cpu")
x = torch.arange(3.0) + 10 * distributed.rank()
gathered = distributed.to_first(x)
expected = torch.tensor([[0.0, 1, 2], [10, 11, 12]]) if distributed.rank() == 0 else torch.zeros(0, 3)
assert torch.equal(gathered, expected), gathered
distributed.everyone(0)
if distributed.rank() == 1:
    os._exit(0)
for work in (lambda: distributed.mean(x), lambda: distributed.everyone(1), lambda: distributed.to_first(x)):
    try:
        work()
    except RuntimeError as error:
        print("told as a lost process:", distributed.is_communication_error(error), flush=True)
"""


def test_a_lost_process_is_told_from_what_is_wrong_in_this_one(tmp_path):
    (tmp_path / "lost.py").write_text(LOST)
    process = torchrun(2, tmp_path / "lost.py")
    assert ended(process).count("told as a lost process: True") == 3
    assert distributed.is_communication_error(torch.distributed.DistNetworkError("connection closed"))
    preamble = "[enforce fail at gloo/transport/tcp/pair.cc:446] op.preamble.length <= op.nbytes. 40 vs 20"
    for error in (
        RuntimeError("size of tensor a must match"),
        RuntimeError(preamble),
        torch.OutOfMemoryError("no memory"),
        ValueError("x"),
    ):
        assert not distributed.is_communication_error(error)
