"""Real servers on free ports of this machine, with small models of noise."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from patience import LONG

from viceversa.config import Serve
from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator
from viceversa.serve import command
from viceversa.serve.queue import Work
from viceversa.serve.served import find
from viceversa.serve.server import Server


def write_model(path, seed=0, both=True, image=None, **spec):
    torch.manual_seed(seed)
    generator = Generator(**({"width": 8, "blocks": 1} | spec))
    generators = {"ab": generator.build()} | ({"ba": generator.build()} if both else {})
    info = {"training": {"epochs": 3, "steps": 300}} | ({"image": image} if image else {})
    save_model(path, Model(generators, ("day", "night"), info))
    return path


def request(url, data=None, method=None, timeout=LONG, **headers):
    """status, headers, body; a refusal is no exception."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answer:
            return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())
    except urllib.error.HTTPError as error:
        return SimpleNamespace(status=error.code, headers=error.headers, body=error.read())


def until(true):
    """Wait for what must come."""
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


class Served:
    def __init__(self, url, process=None, inner=None):
        self.url, self.process, self.inner = url, process, inner

    def ask(self, path, data=None, method=None, **headers):
        return request(self.url + path, data, method, **headers)

    def json(self, path, data=None, method=None, **headers):
        return json.loads(self.ask(path, data, method, **headers).body)

    def finished(self, job):
        """The state of a job once it is over."""
        deadline = time.monotonic() + LONG
        while job["state"] in ("waiting", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
            job = self.json(f"/v1/jobs/{job['id']}")
        return job


@contextmanager
def serving(*models, tmp, **settings):
    """A server in a thread of this process; its temporary files are below `tmp`."""
    serve = Serve(models=tuple(map(str, models)), port=0, **{"megabytes": 4.0, "seconds": 600.0} | settings)
    listener = command.listen(serve.host, 0)
    server = Server(serve, find(serve), tmp)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", inner=server)
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def held(server):
    """Nothing else goes through this server's network until the function that is given is called, or the block ends."""
    entered, free = threading.Event(), threading.Event()

    def wait(frame):
        entered.set()
        assert free.wait(LONG)
        return frame

    large = np.zeros((600, 600, 3), np.uint8)  # which the crew does alone
    work = server.inner.jobs.queue.put(Work(None, large, None, film=wait))
    assert entered.wait(LONG)
    try:
        yield free.set
    finally:
        free.set()
        work.result(LONG)


MODEST = ("--megabytes", "4", "--seconds", "600")
HELD = """
import sys, time
from pathlib import Path
from viceversa.cli import main
from viceversa.serve.queue import Queue

own = Queue.through_network

def held(queue, batch):
    while Path(sys.argv[1]).exists():
        time.sleep(0.01)
    return own(queue, batch)

Queue.through_network = held
sys.exit(main(sys.argv[2:]))
"""


@contextmanager
def process(*arguments, tmp, hold=None):
    """`viceversa serve` with these arguments, in a process of its own, once it listens; killed at the end. Nothing goes
    through its network while the file `hold` is there."""
    program = ["-m", "viceversa"] if hold is None else ["-c", HELD, str(hold)]
    started = subprocess.Popen(
        [sys.executable, *program, "serve", *map(str, arguments), "--port", "0", *MODEST],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp)},
    )  # fmt: skip
    line = started.stdout.readline()
    if not line.startswith("http://"):
        raise AssertionError(f"it does not serve: {line}{started.stderr.read()}")
    try:
        yield Served(line.split()[0].replace("0.0.0.0", "127.0.0.1"), started)
    finally:
        started.kill()
        started.communicate()
