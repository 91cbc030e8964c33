"""What a GPU is asked to do, on a stand-in that follows torch.cuda's rules; what the machine says of itself."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from viceversa import device as devices
from viceversa.device import (
    Graphed,
    Threaded,
    as_it_was,
    choose_device,
    choose_dtype,
    free,
    threads_for_cores,
    why_not_capture,
    worth_compiling,
)
from viceversa.errors import BadInput

CPU = torch.device("cpu")
SECOND = torch.device("cuda", 1)


class Stream:
    def __init__(self, device):
        self.device, self.waited_for = device, []

    def wait_stream(self, other):
        self.waited_for.append(other)


class Graph:
    """Replays what was recorded, if anything was."""

    work = None

    def replay(self):
        if self.work:
            self.work()


class Cuda:
    """torch.cuda as far as captures go: a current device and stream; work is recorded only on the current device,
    and where ending a capture fails the capture's stream stays the current one, as in torch 2.13."""

    CUDAGraph = Graph

    def __init__(self, fails_with=None, at_the_end=None):
        self.on = torch.device("cuda", 0)
        self.first = self.stream_now = Stream(self.on)
        self.streams, self.capturing = [], None
        self.fails_with, self.at_the_end = fails_with, at_the_end
        self.modes = []

    def Stream(self, device):
        self.streams.append(Stream(device))
        return self.streams[-1]

    def current_stream(self):
        return self.stream_now

    def set_stream(self, stream):
        self.stream_now = stream

    @contextmanager
    def device(self, device):
        before, self.on = self.on, device
        yield
        self.on = before

    @contextmanager
    def stream(self, stream):
        before, self.stream_now = self.stream_now, stream
        try:
            yield
        finally:
            self.stream_now = before

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        self.modes.append(capture_error_mode)
        before, self.stream_now, self.capturing = self.stream_now, stream, graph
        try:
            yield
        finally:
            self.capturing = None
            if self.at_the_end:
                raise self.at_the_end  # and the stream stays
            self.stream_now = before


class Steps:
    """A step that adds its input to a weight; under capture it only records that, on the GPU that is current."""

    def __init__(self, cuda):
        self.cuda, self.weight, self.streams = cuda, torch.zeros(2), []

    def __call__(self, x):
        self.streams.append(self.cuda.current_stream())
        losses = {"first": torch.zeros(()), "second": torch.zeros(())}
        if self.cuda.capturing is None:
            self.run(x, losses)
        elif self.cuda.fails_with:
            raise self.cuda.fails_with
        elif self.cuda.on == self.cuda.stream_now.device:
            self.cuda.capturing.work = lambda: self.graphed.losses.copy_(torch.stack(self.run(x, losses)))
        return losses

    def run(self, x, losses):
        self.weight += x
        losses["first"].copy_(self.weight[0])
        losses["second"].copy_(-self.weight[1])
        return list(losses.values())


def graphed(cuda, device=SECOND):
    steps, said = Steps(cuda), []
    steps.graphed = Graphed(steps, [steps.weight], device, said.append, cuda)
    return steps, steps.graphed, said


def assert_counts_on(step, steps, calls, done=0):
    for n in range(done + 1, done + calls + 1):
        losses = step(torch.ones(2))
        assert losses == {"first": torch.tensor(float(n)), "second": torch.tensor(float(-n))}
    assert torch.equal(steps.weight, torch.full((2,), float(done + calls)))


def test_a_step_is_captured_after_three_calls_and_replayed_on_its_own_gpu():
    cuda = Cuda()
    steps, step, said = graphed(cuda)
    assert_counts_on(step, steps, 7)
    assert len(steps.streams) == 4, "three calls and one capture; then only replays"
    assert said == [] and cuda.modes == ["thread_local"]
    assert [stream.device for stream in cuda.streams] == [SECOND]
    assert cuda.current_stream() is cuda.first and cuda.on == torch.device("cuda", 0)


def test_losses_of_a_step_are_not_overwritten_by_the_next():
    _, step, _ = graphed(Cuda())
    losses = [step(torch.ones(2)) for _ in range(6)]
    assert [float(each["first"]) for each in losses] == [1, 2, 3, 4, 5, 6]


def test_a_graph_that_changes_nothing_is_noticed_and_left():
    """As when it was captured on another GPU than the one that works: each replay would do nothing."""
    cuda = Cuda()
    steps, step, said = graphed(cuda)
    step.stream.device = torch.device("cuda", 0)
    assert_counts_on(step, steps, 6)
    (line,) = said
    assert "its graph is empty" in line


def test_what_cannot_be_captured_goes_on_as_plain_calls_on_the_same_stream():
    cuda = Cuda(fails_with=RuntimeError("operation not permitted when stream is capturing\ndetails"))
    cuda.at_the_end = RuntimeError("operation failed due to a previous error during capture")
    steps, step, said = graphed(cuda)
    assert_counts_on(step, steps, 9)
    assert len(said) == 1 and said[0].endswith("operation not permitted when stream is capturing")
    assert len(cuda.streams) == 1, "one stream for warming up, however many steps follow"
    assert cuda.current_stream() is cuda.first
    assert steps.streams[4:] == [cuda.first] * 6


@pytest.mark.parametrize("at_the_end", [None, RuntimeError("operation failed due to a previous error")])
def test_out_of_memory_while_capturing_is_told_as_that(at_the_end):
    cuda = Cuda(fails_with=torch.OutOfMemoryError("CUDA out of memory"), at_the_end=at_the_end)
    steps, step, said = graphed(cuda)
    assert_counts_on(step, steps, 3)
    with pytest.raises(RuntimeError) as raised:
        step(torch.ones(2))
    causes = (raised.value, raised.value.__context__)
    assert any(isinstance(each, torch.OutOfMemoryError) for each in causes) and said == []
    assert cuda.current_stream() is cuda.first


def test_what_cannot_be_captured_is_known_beforehand(monkeypatch):
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING", raising=False)
    assert why_not_capture(None) is None and why_not_capture("nccl") is None
    assert "gloo averages gradients on the host" in why_not_capture("gloo")
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert "anomaly" in why_not_capture(None)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    assert "CUDA_LAUNCH_BLOCKING" in why_not_capture(None)


def test_a_long_run_is_compiled_on_every_kind_of_device_that_can():
    for kind, small in (("cpu", 1e12), ("cuda", 5e12)):
        device = torch.device(kind)
        assert worth_compiling(device, seconds=30 * 60) and not worth_compiling(device, seconds=60)
        assert worth_compiling(device, operations=500 * small) and not worth_compiling(device, operations=300 * small)
        assert not worth_compiling(device, seconds=60, operations=1e18), "the clock ends it"
    assert not worth_compiling(torch.device("mps"), seconds=1e6)


def test_memory_that_pytorch_holds_unused_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert free(torch.device("cuda", 0)) == 1500


def test_memory_is_known_where_there_is_no_sysconf(monkeypatch):
    monkeypatch.delattr(os, "sysconf")  # Windows
    assert 0 < free(CPU) < 2**50


def test_the_gpu_that_was_named_becomes_the_current_one(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with as_it_was():
        devices.tune(SECOND)
        devices.tune(CPU)
    assert chosen == [SECOND]


def test_what_training_sets_for_the_process_is_put_back():
    backends = torch.backends

    def settings():
        return (
            torch.get_num_threads(),
            backends.cuda.matmul.allow_tf32,
            backends.cudnn.allow_tf32,
            backends.cudnn.benchmark,
        )

    before = settings()
    with pytest.raises(ZeroDivisionError), as_it_was():
        torch.set_num_threads(before[0] + 1)
        backends.cuda.matmul.allow_tf32 = not before[1]
        backends.cudnn.allow_tf32 = not before[2]
        backends.cudnn.benchmark = not before[3]
        raise ZeroDivisionError
    assert settings() == before


def test_no_more_threads_than_cores():
    with as_it_was():
        torch.set_num_threads(10_000)
        assert threads_for_cores() <= (os.cpu_count() or 1)
        torch.set_num_threads(1)
        assert threads_for_cores() == 1


class Machine:
    """One of eight cores, on a clock of its own, where `busy` cores work for others: threads beyond the free ones make
    each call ten times as long, else more are quicker."""

    def __init__(self):
        self.now, self.busy, self.calls = 0.0, 0, []

    def work(self, x):
        threads = torch.get_num_threads()
        self.calls.append(threads)
        self.now += (0.1 + 0.9 / threads) * (1 if threads <= 8 - self.busy else 10)
        return 2 * x

    def clock(self):
        return self.now

    def until(self, function, seconds):
        end = self.now + seconds
        self.calls.clear()
        while self.now < end:
            assert function(21) == 42
        return max(self.calls, key=self.calls.count)


def test_as_many_threads_as_are_quickest_while_others_come_and_go():
    with as_it_was():
        machine = Machine()
        function = Threaded(machine.work, 8, machine.clock)
        assert machine.until(function, 120) == 8
        assert set(machine.calls) == {8, 4, 1}, "half as many were tried, and one"
        assert machine.calls.count(8) > 0.8 * len(machine.calls)
        machine.busy = 7
        machine.until(function, 60)
        assert machine.calls[-1] == 1, "found within a minute"
        assert machine.until(function, 300) == 1
        machine.busy = 0
        machine.until(function, 1800)
        assert machine.calls[-1] == 8, "and back, at the latest when it is tried anew"


def test_a_number_of_threads_that_is_sure_to_be_slower_is_given_up():
    """A call of two threads beside a busy core may take as long as a trial may in all."""
    with as_it_was():
        machine = Machine()
        machine.busy = 7
        function = Threaded(machine.work, 2, machine.clock)
        machine.until(function, 600)
        assert machine.calls.count(2) < 10, machine.calls.count(2)


def test_trials_take_a_tenth_of_the_time():
    """Two threads beside a busy core took 15 seconds a step, one a quarter of a second, of a run of four minutes."""
    with as_it_was():
        machine = Machine()

        def work(x):
            machine.calls.append(torch.get_num_threads())
            machine.now += 15 if torch.get_num_threads() == 2 else 0.25
            return 2 * x

        machine.until(Threaded(work, 2, machine.clock), 240)
        assert machine.calls.count(2) <= 2, machine.calls.count(2)


def test_devices_and_formats_that_are_not_there_are_named():
    assert choose_device("cpu") == CPU
    for name, words in [("potato", "no such kind"), ("xla", "not supported"), ("cuda:9", "cuda:9")]:
        with pytest.raises(BadInput, match=words):
            choose_device(name)
    with pytest.raises(BadInput, match="precision='fp16': must be auto, fp32 or bf16"):
        choose_dtype("fp16", CPU)


def test_importing_leaves_the_process_as_it_was():
    code = """
import warnings, torch, viceversa
from PIL import Image
def settings():
    return torch.get_num_threads(), torch.backends.cudnn.benchmark, len(warnings.filters), Image.MAX_IMAGE_PIXELS
before = settings()
from viceversa import Translator, evaluate, load, train
after = settings()
assert before == after, (before, after)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
