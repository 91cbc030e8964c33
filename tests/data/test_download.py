"""Downloads against a real file server on this machine."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from viceversa.data.download import Download, cache_folder, fetch
from viceversa.errors import BadInput

CONTENT = bytes(range(256)) * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Serves CONTENT as /weights.pth; breaks off the first `breaks` answers half way."""

    url: str = ""
    ranges: bool = True
    breaks: int = 0
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if self.path != "/weights.pth":
                return self.send_error(404)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start >= len(CONTENT):
                return self.send_error(416)
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.breaks > 0:
                state.breaks -= 1
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_port}/weights.pth"
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path / "cache"))
    yield state
    running.shutdown()
    running.server_close()


def kept() -> list[str]:
    return sorted(file.name for file in (cache_folder() / "weights").iterdir())


def test_fetches_once_and_keeps_it(server: Server) -> None:
    path = fetch(Download(server.url, SHA))
    assert path == cache_folder() / "weights" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(Download(server.url, SHA)) == path
    assert server.asked == [None]
    assert kept() == ["weights.pth"]


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_a_download_broke_off(server: Server, ranges: bool) -> None:
    server.breaks, server.ranges = 1, ranges
    assert fetch(Download(server.url, SHA)).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={len(CONTENT) // 2}-"]


def test_goes_on_where_an_earlier_process_stopped(server: Server) -> None:
    partial = cache_folder() / "weights" / "weights.pth.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1000])
    assert fetch(Download(server.url, SHA)).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]
    assert kept() == ["weights.pth"]


def test_a_download_that_was_whole_but_not_renamed(server: Server) -> None:
    partial = cache_folder() / "weights" / "weights.pth.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    assert fetch(Download(server.url, SHA)).read_bytes() == CONTENT


def test_gives_up_when_nothing_more_arrives(server: Server) -> None:
    server.breaks = 10**6
    server.ranges = False  # starts over each time and never gets further
    with pytest.raises(BadInput, match="broke off after"):
        fetch(Download(server.url, SHA))


def test_wrong_checksum_leaves_nothing(server: Server) -> None:
    with pytest.raises(BadInput, match=r"wrong checksum .*put http://127.*/weights\.pth at /.*weights\.pth"):
        fetch(Download(server.url, "0" * 64))
    assert kept() == []


def test_wrong_file_put_by_hand(server: Server) -> None:
    path = cache_folder() / "weights" / "weights.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(BadInput, match=r"weights\.pth has the wrong checksum"):
        fetch(Download(server.url, SHA))
    assert path.exists() and server.asked == []


def test_offline_says_which_file_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path))
    url = "http://127.0.0.1:9/weights.pth"  # nothing listens on the discard port
    with pytest.raises(BadInput) as told:
        fetch(Download(url, SHA), alternative="--features lite0")
    message = str(told.value)
    assert f"put {url} at {tmp_path}/weights/weights.pth, or use --features lite0" in message
    assert "refused" in message and "\n" not in message


def test_not_found(server: Server) -> None:
    with pytest.raises(BadInput, match="Not Found"):
        fetch(Download(server.url + ".old", SHA))


def test_mirror(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICEVERSA_MIRROR", server.url.rsplit("/", 1)[0] + "/")
    assert fetch(Download("https://host.invalid/some/weights.pth", SHA)).read_bytes() == CONTENT


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VICEVERSA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "viceversa"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "viceversa"
