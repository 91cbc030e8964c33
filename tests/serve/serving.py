"""A real server in a process of its own, on a free port of this machine, with small models of noise."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from viceversa.model.file import Model, save_model
from viceversa.model.networks import Generator


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
    def __init__(self, process, url):
        self.process, self.url = process, url

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

    def stop(self, number=signal.SIGTERM):
        """The exit code, and what was said on standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def serving(*arguments, tmp, env=None):
    """`viceversa serve` with these arguments, once it listens; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "viceversa.cli", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp), "OMP_NUM_THREADS": "1"} | (env or {}),
    )  # fmt: skip
    line = process.stdout.readline()
    if not line.startswith("http://"):
        raise AssertionError(f"it does not serve: {line}{process.stderr.read()}")
    try:
        yield Served(process, line.split()[0])
    finally:
        process.kill()
        process.communicate()
