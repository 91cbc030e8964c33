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

import torch

from viceversa.config import Serve
from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator
from viceversa.serve import command
from viceversa.serve.served import find
from viceversa.serve.server import Server


def write_model(path, seed=0, both=True, **spec):
    torch.manual_seed(seed)
    generator = Generator(**({"width": 8, "blocks": 1} | spec))
    generators = {"ab": generator.build()} | ({"ba": generator.build()} if both else {})
    save_model(path, Model(generators, ("day", "night"), {"training": {"epochs": 3, "steps": 300}}))
    return path


def request(url, data=None, method=None, timeout=60, **headers):
    """status, headers, body; a refusal is no exception."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answer:
            return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())
    except urllib.error.HTTPError as error:
        return SimpleNamespace(status=error.code, headers=error.headers, body=error.read())


class Served:
    def __init__(self, url, process=None):
        self.url, self.process = url, process

    def ask(self, path, data=None, method=None, **headers):
        return request(self.url + path, data, method, **headers)

    def json(self, path, data=None, method=None, **headers):
        return json.loads(self.ask(path, data, method, **headers).body)

    def finished(self, job):
        """The state of a job once it is over."""
        while job["state"] in ("waiting", "running"):
            time.sleep(0.05)
            job = self.json(f"/v1/jobs/{job['id']}")
        return job


@contextmanager
def serving(*models, tmp, **settings):
    """A server in a thread of this process; its temporary files are below `tmp`."""
    serve = Serve(models=tuple(map(str, models)), port=0, **settings)
    listener = command.listen(serve.host, 0)
    server = Server(serve, find(serve), tmp)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def process(*arguments, tmp):
    """`viceversa serve` with these arguments, in a process of its own, once it listens; killed at the end."""
    started = subprocess.Popen(
        [sys.executable, "-m", "viceversa", "serve", *map(str, arguments), "--port", "0"],
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
