"""How `viceversa serve` holds up, on this machine and against its own addresses only.

python benchmarks/serve.py MODEL start              started to first answer
python benchmarks/serve.py MODEL load --seconds 120 --clients 64
python benchmarks/serve.py MODEL fuzz --count 2000  broken uploads
python benchmarks/serve.py MODEL rude               clients that are killed, slow, idle; SIGTERM under load
python benchmarks/serve.py MODEL api                schemathesis over the OpenAPI description
python benchmarks/serve.py MODEL decoder            atheris over the decoder, for --seconds
python benchmarks/serve.py MODEL crew               one batch, or a core each?
python benchmarks/serve.py MODEL sockets            what the server's process connects to (needs strace)
"""

import argparse
import hashlib
import http.client
import io
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

SIDE = 256


def photo(side=SIDE, format="JPEG", seed=0):
    """A part of the city photo that ships with the package, or of noise where it is too small."""
    city = Image.open(Path(__file__).parents[1] / "src/viceversa/assets/china.jpg").convert("RGB")
    left = random.Random(seed).randrange(max(1, city.width - side))
    out = io.BytesIO()
    city.crop((left, 40, left + side, 40 + side)).save(out, format)
    return out.getvalue()


class Server:
    def __init__(self, process, url):
        self.process, self.host = process, urlsplit(url).netloc

    def connection(self, timeout=120):
        return http.client.HTTPConnection(self.host, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, connection=None):
        asked = connection or self.connection()
        asked.request(method, path, body, headers or {})
        answer = asked.getresponse()
        return answer.status, answer.headers, answer.read()

    def translate(self, data, connection=None, kind="image/jpeg", query=""):
        return self.ask("POST", f"/v1/translate{query or self.query}", data, {"Content-Type": kind}, connection)

    @property
    def memory(self):
        """Megabytes that are the process's own."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) / 1024

    query = "?to=night"


@contextmanager
def serving(given, *flags, before=()):
    began = time.perf_counter()
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "viceversa", "serve", given.model, "--port", "0", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    if not line.startswith("http"):
        raise SystemExit(process.stderr.read())
    server = Server(process, line.split()[0])
    server.began = began
    server.query = f"?to={given.to}"
    try:
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def start(given):
    for _ in range(3):
        with serving(given) as server:
            listens = time.perf_counter() - server.began
            status, _, _ = server.translate(photo())
            answered = time.perf_counter() - server.began
            print(f"listens after {listens:.2f} s, first answer ({status}) after {answered:.2f} s")


def by_command(given, data):
    """The picture as `viceversa translate` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in.jpg"), Path(folder, "out.jpg")
        source.write_bytes(data)
        command = [sys.executable, "-m", "viceversa", "translate", given.model, str(source), "--to", given.to]
        subprocess.run([*command, "-o", str(out)], check=True, capture_output=True)
        return out.read_bytes()


def load(given):
    data = photo(given.side)
    wanted = by_command(given, data)
    with serving(given) as server:
        for _ in range(20):
            server.translate(data)
        alone = one_by_one(server, data, min(10, given.seconds))
        crowd(server, data, wanted, given.clients, 5)  # to size: threads, pools, buffers
        time.sleep(1)
        before = server.memory
        seconds, latencies, counts = crowd(server, data, wanted, given.clients, given.seconds)
        time.sleep(2)
        after = server.memory
        latencies.sort()
        p50, p99 = (latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
        print(f"one client: {alone:.1f} pictures/s; {given.clients} clients: {len(latencies) / seconds:.1f} pictures/s")
        print(f"{given.side} px, {seconds:.0f} s: p50 {p50:.2f} s, p99 {p99:.2f} s; {dict(counts)}")
        print(f"memory {before:.0f} MB before, {after:.0f} MB after ({(after / before - 1) * 100:+.1f}%)")
        server.process.send_signal(signal.SIGTERM)
        print(f"SIGTERM: exit {server.process.wait(90)}")


def one_by_one(server, data, seconds):
    connection, until, count = server.connection(), time.perf_counter() + seconds, 0
    began = time.perf_counter()
    while time.perf_counter() < until:
        server.translate(data, connection)
        count += 1
    return count / (time.perf_counter() - began)


def crowd(server, data, wanted, clients, seconds):
    """So many clients, each with one request at a time. seconds, latencies of the right answers, what came."""
    latencies, counts = [], Counter()
    until = time.perf_counter() + seconds

    def client():
        connection = server.connection()
        while time.perf_counter() < until:
            began = time.perf_counter()
            try:
                status, headers, body = server.translate(data, connection)
            except Exception as error:
                counts[type(error).__name__] += 1
                connection = server.connection()
                continue
            if status == 200:
                latencies.append(time.perf_counter() - began)
                counts["right" if body == wanted else "WRONG"] += 1
            elif status == 503 and "Retry-After" in headers:
                counts["503 with Retry-After"] += 1
                time.sleep(min(float(headers["Retry-After"]), max(0, until - time.perf_counter())))
            else:
                counts[f"{status} {body[:80]!r}"] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, latencies, counts


def broken(rng, whole):
    """A body, and its content type: cut, with bits flipped, with other bytes inside, or of another kind."""
    format = rng.choice(list(whole))
    data = bytearray(whole[format])
    match rng.randrange(5):
        case 0:
            data = data[: rng.randrange(len(data))]
        case 1:
            for _ in range(rng.randrange(1, 40)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:  # in the head, where sizes and kinds are
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
        case 3:
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(200)] = rng.randbytes(rng.randrange(200))
        case 4:
            data = bytearray(rng.randbytes(rng.randrange(3000)))
    kinds = [
        "image/jpeg",
        "image/png",
        "image/gif",
        "application/octet-stream",
        "text/plain",
        "multipart/form-data",
        "",
    ]
    return bytes(data), rng.choice(kinds[:4] * 6 + kinds)


def fuzz(given):
    rng = random.Random(given.seed)
    whole = {format: photo(64, format) for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")}
    deep = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (48, 48), np.uint16)).save(deep, "PNG")
    whole["16 bit"] = deep.getvalue()
    with serving(given, "--seconds", "20") as server:
        for data in whole.values():
            server.translate(data)
        memory, counts = [server.memory], Counter()
        for number in range(given.count):
            if number and number % (given.count // 4) == 0:
                memory.append(server.memory)
            data, kind = broken(rng, whole)
            path = "/v1/jobs" if number % 10 == 9 else "/v1/translate"
            headers = {"Content-Type": kind} if kind else {}
            status, _, body = server.ask("POST", path + server.query, data, headers)
            counts[status] += 1
            if status >= 500 and status not in (503, 504, 507):
                Path(f"/tmp/fuzz-{number}").write_bytes(data)
                print(f"upload {number} ({kind}): {status} {body[:100]!r}")
        shown = ", ".join(f"{megabytes:.0f}" for megabytes in (*memory, server.memory))
        print(f"{given.count} uploads: {dict(sorted(counts.items()))}; memory, quarter by quarter: {shown} MB")
        print(f"and then: {server.translate(photo())[0]}")


def rude(given):
    data = photo(given.side)
    wanted = hashlib.sha256(by_command(given, data)).digest()
    with serving(given) as server:
        server.translate(data)
        address = server.host.split(":")[0], int(server.host.split(":")[1])
        idle = [socket.create_connection(address) for _ in range(200)]
        slow = [socket.create_connection(address) for _ in range(20)]
        head = f"POST /v1/translate{server.query} HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: image/jpeg\r\n"
        for one in slow:
            one.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode())
        began, answered, killed, sent = time.perf_counter(), 0, 0, 0
        while time.perf_counter() - began < given.seconds:
            for one in slow:  # one byte a second each
                with suppress(OSError):
                    one.sendall(data[sent : sent + 1])
            sent += 1
            until = time.perf_counter() + 1
            while time.perf_counter() < until:
                gone = server.connection()  # leaves before the answer
                gone.request("POST", f"/v1/translate{server.query}", data, {"Content-Type": "image/jpeg"})
                gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # as if killed: RST
                gone.close()
                killed += 1
                status, _, body = server.translate(data)
                assert status == 200 and hashlib.sha256(body).digest() == wanted, status
                answered += 1
        print(f"200 idle, 20 slow, {killed} killed: {answered} answers beside them, all right")
        for one in (*idle, *slow):
            one.close()
    with serving(given) as server:
        server.translate(data)
        connections = [server.connection() for _ in range(32)]
        for one in connections:
            one.request("POST", f"/v1/translate{server.query}", data, {"Content-Type": "image/jpeg"})
        while "viceversa_pictures_inside 32" not in (told := server.ask("GET", "/metrics")[2].decode()):
            if 'viceversa_requests_total{route="/v1/translate",status="200"} 33' in told:
                break  # it was quicker than we
            time.sleep(0.002)
        began = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        answers = [one.getresponse() for one in connections]
        right = sum(a.status == 200 and hashlib.sha256(a.read()).digest() == wanted for a in answers)
        code = server.process.wait(90)
        took = time.perf_counter() - began
        print(f"SIGTERM with 32 pictures inside: {right} answered right, exit {code} after {took:.1f} s")


def api(given):
    with serving(given, "--megabytes", "4") as server:
        command = [shutil.which("schemathesis") or str(Path(sys.executable).with_name("schemathesis")), "run",
                   f"http://{server.host}/openapi.json", "--max-examples", str(given.count), "--request-timeout", "60",
                   "--exclude-checks", "unsupported_method,positive_data_acceptance",  # `to` may stand in query or form
                   "--seed", str(given.seed)]  # fmt: skip
        code = subprocess.run(command).returncode
        print(f"schemathesis: exit {code}; then {server.translate(photo())[0]}")


def decoder(given):
    """Coverage-guided: what comes in at `pictures.read`, by way of what looks at it first."""
    corpus = Path(tempfile.mkdtemp())
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        (corpus / format).write_bytes(photo(24, format))
    script = """
import atheris, sys
with atheris.instrument_imports(include=["PIL", "viceversa.data", "viceversa.serve.jobs"]):
    from viceversa.data import pictures
    from viceversa.errors import BadInput
    from viceversa.serve.jobs import kind_of, look_at
    from viceversa.serve.queue import Refusal
def one(data):
    try:
        kind_of(data)
        look_at(data, 1)
        pictures.read(data)
    except (BadInput, Refusal):
        pass
atheris.Setup(sys.argv, one)
atheris.Fuzz()
"""
    limits = [f"-max_total_time={given.seconds:.0f}", "-rss_limit_mb=4096", "-timeout=20", "-print_final_stats=1"]
    done = subprocess.run([sys.executable, "-c", script, str(corpus), *limits], capture_output=True, text=True)
    print("\n".join(done.stderr.splitlines()[-12:]))
    print(f"atheris: exit {done.returncode}")


def crew(given):
    """Pictures a second: as batches of 8, one by one with all cores, a core each."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    import viceversa

    translator = viceversa.load(given.model)
    image = np.asarray(Image.open(io.BytesIO(photo(given.side))))
    cores = torch.get_num_threads()
    direction = translator.model.direction(given.to)
    network = translator.network(direction, translator.dtype)
    batch = torch.from_numpy(np.stack([image] * 8)).permute(0, 3, 1, 2).float() / 127.5 - 1
    batch = batch.to(network.dtype, memory_format=torch.channels_last)

    def pace(work, count):
        work()
        times = []
        for _ in range(given.repeats):
            began = time.perf_counter()
            work()
            times.append((time.perf_counter() - began) / count)
        return 1 / statistics.median(times)

    with torch.no_grad():

        def whole():  # as Network does, but without its split into single pictures on a CPU
            return network.network(batch, *([network.see(batch)] if network.spec.sees else []))

        as_batch = pace(whole, 8)
    alone = pace(lambda: [translator(image, to=given.to) for _ in range(8)], 8)
    with ThreadPoolExecutor(cores, initializer=lambda: torch.set_num_threads(1)) as pool:
        apart = pace(lambda: list(pool.map(lambda _: translator(image, to=given.to), range(8))), 8)
    print(f"{given.side} px, {cores} cores, pictures/s: a batch of 8 {as_batch:.2f}, one by one {alone:.2f}, "
          f"a core each {apart:.2f}")  # fmt: skip


def sockets(given):
    """Every address that the server's process connects or sends to."""
    if shutil.which("strace") is None:
        raise SystemExit("apt-get install strace")
    log = Path(tempfile.mkdtemp()) / "log"
    with serving(given, before=("strace", "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(log))) as server:
        server.translate(photo())
        server.ask("GET", "/")
        server.ask("GET", "/v1/models")
        for child in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        server.process.wait(60)
    calls = [line for line in log.read_text().splitlines() if "connect(" in line or "sa_family" in line]
    outside = [line for line in calls if "AF_INET" in line and "127.0.0.1" not in line]
    print(f"{len(calls)} calls that name an address, {len(outside)} of them not of this machine")
    print("\n".join(outside[:10]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("what", choices=["start", "load", "fuzz", "rude", "api", "decoder", "crew", "sockets"])
    parser.add_argument("--to", default="night")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    globals()[given.what](given)


if __name__ == "__main__":
    main()
