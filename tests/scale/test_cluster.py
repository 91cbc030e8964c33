"""On a cluster of several raylets of this machine: lost workers and machines, object storage, training."""

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from test_command import save_generators
from test_distributed import ended, torchrun
from test_train import SMALL, folders, made  # noqa: F401 (a fixture)

pytest.importorskip("ray")
import pyarrow.fs as arrow
import ray
from ray import serve
from ray.cluster_utils import Cluster

from viceversa.scale import storage
from viceversa.scale.storage import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STORE = 100 * 2**20
PATIENT = {  # where others keep the machine busy
    "OMP_NUM_THREADS": "1",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
}


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, and machines with one core each that tests add and take away."""
    os.environ.update(PATIENT)
    cluster = Cluster(True, head_node_args={"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_generators(tmp_path_factory.mktemp("model") / "model.safetensors", "ab", "ba")


def make_images(folder, number):
    for n in range(number):
        path = folder / str(n % 3) / f"{n:05}.{('png', 'jpg')[n % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (16, 20, 3), np.uint8)).save(path)
    return folder


def translating(model, source, out, *more):
    command = [sys.executable, "-m", "viceversa", "translate", model, source, "--to", "night", "-o", out, *more]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=os.environ | PATIENT)


def translated(*arguments):
    process = translating(*arguments)
    error = process.communicate(timeout=600)[1]
    return process.returncode, error


def files(folder):
    found = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and "_manifest" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def manifest(out):
    return [row for _, table in storage.read_manifest(Place.of(out)) for row in table.to_pylist()]


def test_lost_workers_and_machines_lose_nothing_and_do_nothing_twice(cluster, model, tmp_path):
    """And what is broken is told, what is there is not done again, and all equals the plain command."""
    photos = make_images(tmp_path / "in", 2000)
    (photos / "broken.png").write_bytes(b"no picture")
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert translated(model, photos, plain)[0] == 1
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    process = translating(model, photos, out, "--engine", "ray", "--address", cluster.address, "--workers", 3)

    def parts():
        return len(list((out / "_manifest").glob("*.parquet")))

    while parts() < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    victim = next(p for p in psutil.process_iter(["cmdline"]) if "MapWorker" in " ".join(p.info["cmdline"] or ()))
    victim.kill()
    before = parts()
    while parts() < before + 2 and process.poll() is None:
        time.sleep(0.05)
    cluster.remove_node(nodes[0], allow_graceful=False)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 1 and "translated 2,000" in error and "1 of 2,001 failed" in error, error
    assert files(out) == files(plain)
    rows = manifest(out)
    assert len(rows) == 2001 == len({row["input"] for row in rows})
    for row in rows:
        assert (row["error"] is not None) == row["input"].endswith("broken.png")
        if row["error"] is None:
            assert hashlib.sha256((out / row["output"]).read_bytes()).hexdigest() == row["checksum"]

    (photos / "broken.png").write_bytes((photos / "0" / "00000.png").read_bytes())
    code, error = translated(model, photos, out, "--engine", "ray", "--address", cluster.address, "--workers", 1)
    assert code == 0 and "translated 1 " in error and "2,000 were there already" in error, error
    cluster.remove_node(nodes[1])


class Failing:
    """A web application of which every tenth request fails."""

    def __init__(self, app):
        self.app, self.count, self.lock = app, 0, threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            self.count += 1
            fails = self.count % 10 == 0
        if fails:
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        return self.app(environ, start_response)


@pytest.fixture
def bucket(monkeypatch):
    """moto's S3 on loopback, with a bucket: an address, and pyarrow's view of it."""
    server_app = pytest.importorskip("moto.server")
    serving = pytest.importorskip("werkzeug.serving")
    app = Failing(server_app.DomainDispatcherApplication(server_app.create_backend_app))
    server = serving.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1",
                        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    files = arrow.S3FileSystem(
        endpoint_override=f"127.0.0.1:{server.server_port}", scheme="http", region="us-east-1",
        allow_bucket_creation=True,
    )  # fmt: skip
    storage.retried(lambda: files.create_dir("bucket"))
    yield app
    server.shutdown()


def test_object_storage_in_and_out_though_every_tenth_request_fails(bucket, model, tmp_path):
    """Images in S3 -> WebDataset in S3, in a cluster of its own, which is started and stopped."""
    photos = make_images(tmp_path / "in", 24)
    place = Place.of("s3://bucket/day")
    for name, data in files(photos).items():
        place.write(name, data)
    asked_before = bucket.count
    code, error = translated(model, "s3://bucket/day/", "s3://bucket/night/", "--engine", "ray", "--workers", 1)
    assert code == 0 and "translated 24 " in error, error
    assert bucket.count > asked_before + 48
    plain = tmp_path / "plain"
    assert translated(model, photos, plain)[0] == 0
    out = Place.of("s3://bucket/night")
    assert {name: out.read(name) for name in out.names() if not name.startswith("_manifest")} == files(plain)

    code, error = translated(model, "s3://nobodys/day/", "s3://bucket/x", "--engine", "ray")
    assert code == 2 and "see the spelling of bucket" in error and error.count("\n") == 1, error
    code, error = translated(model, "s3://bucket/day", "s3://nobodys/x", "--engine", "ray")
    assert code == 2 and "cannot be written to" in error and error.count("\n") == 1, error


def test_containers_in_and_out(cluster, model, tmp_path):
    photos = make_images(tmp_path / "in", 12)
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert translated(model, photos, plain)[0] == 0
    packed = Place.of(tmp_path / "packed")
    images = list(files(photos).items())
    packed.write("a.tar", storage.packed(images[:7], "webdataset"))
    packed.write("b.parquet", storage.packed(images[7:], "parquet"))
    ray_ = ("--engine", "ray", "--address", cluster.address, "--workers", 1)
    code, error = translated(model, tmp_path / "packed", out, *ray_, "--shards", "webdataset")
    assert code == 0 and "translated 12 " in error, error
    results = {}
    for shard in (out / "shards").glob("*.tar"):
        with tarfile.open(fileobj=io.BytesIO(shard.read_bytes())) as tar:
            results |= {member.name.split("/", 1)[1]: tar.extractfile(member).read() for member in tar}
    assert results == files(plain)
    code, error = translated(model, tmp_path / "packed", out, *ray_, "--shards", "webdataset")
    assert code == 0 and "translated 0 " in error and "12 were there already" in error, error


def test_workers_without_the_package_are_told_how_to_get_it(cluster, model, tmp_path, monkeypatch):
    from viceversa.errors import BadInput
    from viceversa.scale.ray import everywhere

    empty = tmp_path / "elsewhere" / "viceversa"
    empty.mkdir(parents=True)
    (empty / "__init__.py").write_text("raise ImportError('not here')")
    environment = {"env_vars": {"PYTHONPATH": str(empty.parent)}}
    ray.init(cluster.address, runtime_env=environment, log_to_driver=False)
    try:
        with pytest.raises(BadInput, match=r"cannot import viceversa.*runtime-env-json"):
            everywhere(None)
    finally:
        ray.shutdown()


def training(photos, out, cluster):
    command = [sys.executable, "-m", "viceversa", "train", *photos, "--out", out, *SMALL]
    command += ["--engine", "ray", "--workers", 2, "--address", cluster.address]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | PATIENT
    )


def test_training_equals_torchrun_to_the_last_bit_also_after_a_killed_worker(cluster, folders, tmp_path):  # noqa: F811
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    process = torchrun(2, "-m", "--", "viceversa", "train", *folders, "--out", tmp_path / "torchrun", *SMALL)
    output = ended(process, 600)
    assert process.returncode == 0, output
    process = training(folders, tmp_path / "calm", cluster)
    output = ended(process, 600)
    assert process.returncode == 0, output
    assert made(tmp_path / "calm") == made(tmp_path / "torchrun")

    rough = tmp_path / "rough"
    process = training(folders, rough, cluster)
    while not list((rough / "checkpoint").glob("*.json")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    victim = next(p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or ()))
    victim.send_signal(signal.SIGKILL)
    output = ended(process, 600)
    assert process.returncode == 0, output
    assert made(rough) == made(tmp_path / "torchrun")
    cluster.remove_node(node)


def test_what_is_wrong_with_a_training_is_one_line(cluster, folders, tmp_path):  # noqa: F811
    command = [sys.executable, "-m", "viceversa", "train", *folders, "--out", tmp_path / "run", *SMALL]
    command += ["--engine", "ray", "--workers", 1, "--address", cluster.address, "--crop", "500"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | PATIENT)
    assert done.returncode == 2 and "--crop 500 is larger" in done.stderr, done.stderr


def test_the_api_is_deployed(cluster, model, tmp_path):
    """Through Ray Serve comes what the plain command writes."""
    from viceversa.config import Serve, make
    from viceversa.scale.ray import deployment

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    photos, plain = make_images(tmp_path / "in", 1), tmp_path / "plain"
    assert translated(model, photos, plain)[0] == 0
    ray.init(cluster.address, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(deployment(make(Serve, models=(str(model),), device="cpu", port=port), 1), name="viceversa")
        ((name, data),) = files(photos).items()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/translate?to=night", data, method="POST",
                                         headers={"Content-Type": "image/png"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert answer.read() == files(plain)[name]
    finally:
        serve.shutdown()
        ray.shutdown()
