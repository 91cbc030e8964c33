"""Public sets by name, from a real file server on this machine: nothing half is left, whatever goes wrong."""

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viceversa.cli import main
from viceversa.data import sets
from viceversa.data.sets import SETS, fetch_set


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def image(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


NAMES = [f"horse2zebra/{folder}/{n}.png" for folder in sets.FOLDERS for n in range(3)]
IMAGES = {name: image(seed) for seed, name in enumerate(NAMES)}
GOOD = packed({**IMAGES, "horse2zebra/": b"", "horse2zebra/readme.txt": b"words", "__MACOSX/horse2zebra/._0.png": b""})


class Host:
    """Serves `files` by path; breaks off the first `breaks` answers half way."""

    def __init__(self) -> None:
        host = self
        self.files: dict[str, bytes] = {}
        self.breaks = 0
        self.asked: list[tuple[str, str | None]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                host.asked.append((self.path, wanted))
                if self.path not in host.files:
                    return self.send_error(503)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                body = host.files[self.path][start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if host.breaks:
                    host.breaks -= 1
                    body = body[: len(body) // 2]
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def host(monkeypatch, tmp_path):
    """The authors' host and a mirror, both this machine; the set is a small one."""
    host = Host()
    host.files = {"/horse2zebra.zip": GOOD}
    use(monkeypatch, host)
    monkeypatch.chdir(tmp_path)
    yield host
    host.server.shutdown()
    host.server.server_close()


def use(monkeypatch, host, content=GOOD, **changes):
    small = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "images": (3, 3, 3, 3)}
    small["mirrors"] = (f"{host.url}/mirror/horse2zebra.zip",)
    monkeypatch.setattr(sets, "HOST", host.url)
    monkeypatch.setitem(SETS, "horse2zebra", replace(SETS["horse2zebra"], **small | changes))


def left(folder="data"):
    return sorted(str(path) for path in Path(folder).glob("*")) if Path(folder).exists() else []


def test_a_set_by_name_then_train(host, capsys):
    assert main(["data", "fetch", "horse2zebra"]) == 0
    said = capsys.readouterr().out
    first, *_, last = said.splitlines()
    assert first.startswith("horse2zebra: horse <-> zebra. Terms: photos of ImageNet, for research and teaching only")
    assert last == "viceversa train data/horse2zebra --names horse zebra --recipe horse2zebra"
    assert left() == ["data/horse2zebra"]
    found = {str(p.relative_to("data")): p.read_bytes() for p in Path("data").rglob("*") if p.is_file()}
    assert found == IMAGES
    small = "--epochs 1 --decay-epochs 0 --size 36 --crop 32 --width 4 --blocks 1 --device cpu --log none"
    assert main(["train", "data/horse2zebra", "--names", "horse", "zebra", "--out", "run", *small.split()]) == 0
    assert (Path("run") / "model.safetensors").exists()


def test_terms_come_before_the_first_request(host, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sets, "retrieve", stop)
    assert main(["data", "fetch", "horse2zebra"]) == 130
    assert "Terms: photos of ImageNet" in capsys.readouterr().out and host.asked == []


def test_a_set_that_is_there_is_left(host, capsys):
    fetch_set("horse2zebra")
    host.asked.clear()
    Path("data/horse2zebra/trainA/0.png").write_bytes(b"mine")
    assert main(["data", "fetch", "horse2zebra"]) == 0
    assert "is there already" in capsys.readouterr().out and host.asked == []
    assert Path("data/horse2zebra/trainA/0.png").read_bytes() == b"mine"


def test_a_folder_of_that_name_is_not_touched(host, capsys):
    Path("data/horse2zebra/holiday").mkdir(parents=True)
    assert main(["data", "fetch", "horse2zebra"]) == 2
    assert "give another --out" in capsys.readouterr().err and host.asked == []


def test_a_broken_download_goes_on(host):
    host.breaks = 1
    fetch_set("horse2zebra")
    assert host.asked == [("/horse2zebra.zip", None), ("/horse2zebra.zip", f"bytes={len(GOOD) // 2}-")]


def test_what_a_killed_process_left_goes_on(host):
    Path("data").mkdir()
    Path("data/horse2zebra.zip.partial").write_bytes(GOOD[:500])
    Path("data/.horse2zebra.partial/trainA").mkdir(parents=True)
    fetch_set("horse2zebra")
    assert host.asked == [("/horse2zebra.zip", "bytes=500-")] and left() == ["data/horse2zebra"]


def test_a_host_that_is_down_then_its_mirror(host, capsys):
    host.files = {"/mirror/horse2zebra.zip": GOOD}
    fetch_set("horse2zebra")
    assert "Service Unavailable): asking the next address" in capsys.readouterr().err
    assert [path for path, _ in host.asked] == ["/horse2zebra.zip", "/mirror/horse2zebra.zip"]


def test_half_from_one_host_and_half_from_another(host, monkeypatch):
    Path("data").mkdir()
    Path("data/horse2zebra.zip.partial").write_bytes(GOOD[:700])
    host.files = {"/mirror/horse2zebra.zip": GOOD}
    fetch_set("horse2zebra")
    assert host.asked[-1] == ("/mirror/horse2zebra.zip", "bytes=700-")


def test_all_hosts_down(host, capsys):
    host.files = {}
    assert main(["data", "fetch", "horse2zebra"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot fetch {host.url}/horse2zebra.zip" in error and f"{host.url}/mirror/horse2zebra.zip" in error
    assert "put horse2zebra.zip at data/horse2zebra.zip" in error and left() == []


def test_the_advice_can_be_followed(host):
    host.files = {}
    Path("data").mkdir()
    Path("data/horse2zebra.zip").write_bytes(GOOD)
    fetch_set("horse2zebra")
    assert host.asked == [] and left() == ["data/horse2zebra", "data/horse2zebra.zip"]  # it is not ours to remove


def test_a_broken_zip_of_the_persons_own_is_left(host, monkeypatch):
    use(monkeypatch, host, b"a page", sha256="", size=0)
    Path("data").mkdir()
    Path("data/horse2zebra.zip").write_bytes(b"a page")
    with pytest.raises(sets.Failed, match="take it away"):
        fetch_set("horse2zebra")
    assert left() == ["data/horse2zebra.zip"]


def test_a_folder_without_a_name_or_below_a_file_is_one_line(host, capsys):
    assert main(["data", "fetch", "horse2zebra", "--out", "."]) == 2
    Path("file").touch()
    assert main(["data", "fetch", "horse2zebra", "--out", "file/x"]) == 1
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["viceversa"] * 2


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_mirror_of_ones_own_is_asked_first(host, tmp_path, scheme):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "horse2zebra.zip").write_bytes(GOOD)
    host.files["/own/horse2zebra.zip"] = GOOD
    fetch_set("horse2zebra", mirror=f"{host.url}/own/" if scheme == "http" else (tmp_path / "own").as_uri())
    assert host.asked == ([("/own/horse2zebra.zip", None)] if scheme == "http" else [])


def test_a_wrong_checksum_is_removed_and_said(host, capsys):
    host.files = dict.fromkeys(["/horse2zebra.zip", "/mirror/horse2zebra.zip"], GOOD[:-1] + b"!")
    assert main(["data", "fetch", "horse2zebra"]) == 1
    assert "wrong checksum" in (error := capsys.readouterr().err) and "removed" in error
    assert left() == []


def test_a_wrong_checksum_then_a_good_mirror(host):
    host.files = {"/horse2zebra.zip": b"an error page", "/mirror/horse2zebra.zip": GOOD}
    fetch_set("horse2zebra")
    assert host.asked[-1] == ("/mirror/horse2zebra.zip", None)


def test_no_room_is_said_before(host, monkeypatch, capsys):
    use(monkeypatch, host, size=10**18)
    assert main(["data", "fetch", "horse2zebra"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "viceversa: cannot write data/horse2zebra: No space left on device (2,000,000,000,000.0 MB are needed"
    )
    assert host.asked == []


def test_a_disk_that_fills_up(host, tmp_path):
    """Here the limit on the size of a file; the part is kept, and the next try goes on with it."""
    code = (
        "import resource, sys; from dataclasses import replace\n"
        "from viceversa.cli import main; from viceversa.data import sets\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "sets.SETS['horse2zebra'] = replace(sets.SETS['horse2zebra'], size=1)\n"
        f"sets.HOST = {host.url!r}; sys.exit(main(['data', 'fetch', 'horse2zebra']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "viceversa: cannot write data/horse2zebra.zip.partial: File too large"
    assert left() == ["data/horse2zebra.zip.partial"]
    fetch_set("horse2zebra")
    assert host.asked[-1] == ("/horse2zebra.zip", "bytes=4000-")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>moved</html>", "not a zip"),
        (packed({"horse2zebra/readme.txt": b"words"}), "no pictures"),
        (GOOD[:300] + b"??" + GOOD[302:], "CRC|invalid|Error"),
    ],
    ids=["no zip", "no pictures", "damaged"],
)
def test_what_is_no_set_without_a_checksum(host, monkeypatch, content, words):
    use(monkeypatch, host, content, sha256="", size=0)
    host.files = {"/horse2zebra.zip": content}
    with pytest.raises(sets.Failed, match=words):
        fetch_set("horse2zebra")
    assert left() == []


def test_paths_that_lead_out_links_and_bombs(host, monkeypatch, tmp_path):
    link = zipfile.ZipInfo("horse2zebra/trainA/link.png")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO(
        packed({"../out.png": b"x", "/tmp/abs.png": b"x", "C:/x.png": b"x", "..\\win.png": b"x", **IMAGES})
    )
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    content = file.getvalue()
    use(monkeypatch, host, content)
    host.files = {"/horse2zebra.zip": content}
    fetch_set("horse2zebra")
    assert left(".") == ["data"] and left() == ["data/horse2zebra"]
    assert sum(1 for path in Path("data").rglob("*") if path.is_file()) == len(IMAGES)
    assert not any(path.is_symlink() for path in Path("data").rglob("*"))


def test_a_zip_without_a_folder_around_it_and_another_edition(host, monkeypatch, capsys):
    content = packed({name.removeprefix("horse2zebra/"): data for name, data in list(IMAGES.items())[:7]})
    use(monkeypatch, host, content)
    host.files = {"/horse2zebra.zip": content}
    fetch_set("horse2zebra")
    assert (Path("data/horse2zebra/trainA/0.png")).exists()
    assert "another edition" in capsys.readouterr().out


def test_unknown_names_and_folders_called_fetch(host, capsys, tmp_path):
    assert main(["data", "fetch", "horse2zebr"]) == 2
    assert "did you mean horse2zebra?" in capsys.readouterr().err
    for domain in ("fetch", "night"):
        (tmp_path / domain).mkdir()
        for n in range(3):
            (tmp_path / domain / f"{n}.png").write_bytes(image(n + 10 * (domain == "night")))
    assert main(["data", "./fetch", "night"]) == 0
    assert "fetch" in capsys.readouterr().out
    assert main(["data", "fetch", "night"]) == 2
    assert "./fetch" in capsys.readouterr().err


def test_the_list(capsys):
    assert main(["data", "fetch"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SETS) and len(SETS) == 12 and "no host was reached" in said


def test_what_is_not_passed_on_says_where_to_get_it(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "fetch", "cityscapes"]) == 2
    assert "register at https://www.cityscapes-dataset.com" in capsys.readouterr().err and left() == []
