#!/usr/bin/env python3
"""Translate pictures and films through a `viceversa serve`, with nothing but Python's standard library.

    python client.py photo.jpg --to night                     writes photo.night.jpg
    python client.py walk.mp4 --to night -o night.mp4         a film, with its progress
    python client.py one.jpg two.jpg --to night -o night.zip  several pictures at once
    python client.py --models                                 what is served

The server's address is --server or $VICEVERSA_SERVER, and a password comes from $VICEVERSA_AUTH (USER:PASSWORD).
"""

import argparse
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


class Client:
    """Calls one server. Raises SystemExit with the server's sentence when it refuses."""

    def __init__(self, server: str, auth: str | None = None):
        self.server = server.rstrip("/")
        self.headers = {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()} if auth else {}

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "", tries: int = 10) -> bytes:
        headers = self.headers | ({"Content-Type": kind} if kind else {})
        request = urllib.request.Request(self.server + path, body, headers, method=method)
        for left in reversed(range(tries)):
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                wait = error.headers.get("Retry-After")
                if error.code != 503 or wait is None or not left:
                    raise SystemExit(f"{error.code}: {sentence(error.read())}") from None
                time.sleep(float(wait))  # the server is busy and says when to come back
            except urllib.error.URLError as error:
                raise SystemExit(f"{self.server} cannot be reached: {error.reason}") from None
        raise AssertionError("unreachable")

    def models(self) -> list[dict]:
        return json.loads(self.call("GET", "/v1/models"))["models"]

    def translate(self, picture: Path, **fields: str) -> bytes:
        """One picture: the bytes of the result."""
        return self.call("POST", f"/v1/translate{query(fields)}", *form({"image": [picture]}))

    def job(self, files: list[Path], **fields: str) -> tuple[str, bytes]:
        """A film, an archive, or several pictures: the name and the bytes of the result."""
        state = json.loads(self.call("POST", f"/v1/jobs{query(fields)}", *form({"files": files})))
        address = f"/v1/jobs/{state['id']}"
        try:
            while state["state"] in ("waiting", "running"):
                of = f" of {state['total']}" if state["total"] else ""
                print(f"\r{state['state']}: {state['done']}{of}", end="", file=sys.stderr, flush=True)
                time.sleep(0.3)
                state = json.loads(self.call("GET", address))
        except KeyboardInterrupt:
            self.call("DELETE", address)
            raise
        print(f"\r{state['state']}: {state['done']}          ", file=sys.stderr)
        for line in state["failed"] + state["notes"]:
            print(line, file=sys.stderr)
        if state["state"] != "done":
            raise SystemExit(state["error"] or "the job was cancelled")
        return state["name"], self.call("GET", state["result"])


def sentence(body: bytes) -> str:
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError):
        return body.decode(errors="replace")[:200]


def query(fields: dict[str, str]) -> str:
    given = {name: value for name, value in fields.items() if value}
    return "?" + urllib.parse.urlencode(given) if given else ""


def quoted(name: str) -> str:
    """As browsers do: a server takes the rest as it stands."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def form(files: dict[str, list[Path]]) -> tuple[bytes, str]:
    """multipart/form-data (RFC 7578): the body and its content type."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="{quoted(path.name)}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + path.read_bytes()
        + b"\r\n"
        for name, paths in files.items()
        for path in paths
    ]
    return b"".join(parts) + f"--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--to", default="", help="the domain to translate to")
    parser.add_argument("--model", default="", help="which of the models served")
    parser.add_argument("--format", default="", help="jpg, png, webp, tiff or bmp")
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--models", action="store_true", help="list what is served")
    parser.add_argument("--server", default=os.environ.get("VICEVERSA_SERVER", "http://127.0.0.1:7860"))
    given = parser.parse_args()
    client = Client(given.server, os.environ.get("VICEVERSA_AUTH"))
    if given.models:
        for model in client.models():
            print(f"{model['name']}: {', '.join(way['from'] + ' -> ' + way['to'] for way in model['directions'])}")
        return
    fields = {"to": given.to, "model": given.model, "format": given.format}
    if len(given.files) == 1 and given.files[0].suffix.lower() in PICTURES:
        source = given.files[0]
        ending = f".{given.format}" if given.format else source.suffix
        out, data = source.with_suffix(f".{given.to or 'translated'}{ending}"), client.translate(source, **fields)
    elif given.files:
        name, data = client.job(given.files, **fields)
        out = Path(Path(name).name)
    else:
        parser.error("name a file, or --models")
    out = given.out or out
    out.write_bytes(data)
    print(out)


if __name__ == "__main__":
    main()
