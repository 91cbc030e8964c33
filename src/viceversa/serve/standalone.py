"""The page without a server (`viceversa export MODEL --page FOLDER`): files for any static host.

Both directions as ONNX, and onnxruntime-web as WebAssembly: pictures never leave the visitor's device. WebGPU is
left alone: it has open bugs that give wrong pictures.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch

from ..config import Export, Serve
from ..data.download import cache_folder, sha256
from ..errors import BadInput
from ..exchange.export import export
from ..translation.tiles import whole_bytes
from .served import Served, page_file, read, samples

RUNTIME = "onnxruntime-web-1.30.0.tgz"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = {
    "ort.wasm.min.mjs": "ort.js",  # every host knows what .js is
    "ort-wasm-simd-threaded.mjs": "wasm.js",
    "ort-wasm-simd-threaded.wasm": "ort.wasm",
}
MEMORY = 2.5e9
"""Bytes that a browser's network may take: 32-bit WebAssembly ends at 4 GB."""
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    "worker-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'\">"
)


def command_page(wanted: Export) -> int:
    """Write the folder, whole or not at all. Raises BadInput, and Failed where a network differs in ONNX."""
    folder = wanted.page
    assert folder is not None
    if wanted.half:
        raise BadInput("--half is for files: in the browser half precision is slower; leave it out with --page")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--page {folder}: a file of this name is in the way")
    if folder.is_dir() and any(folder.iterdir()) and not wanted.overwrite:
        raise BadInput(f"--page {folder}: there is something in this folder: name another, or --overwrite it")
    served = read(wanted.model, Serve(device="cpu", precision="fp32"), set())
    targets = served.targets if wanted.to is None else [wanted.to]
    for target in targets:
        served.translator.model.direction(target)  # BadInput for one that it has not
    archive = runtime()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial") as temporary:
        made = Path(temporary) / "page"
        made.mkdir()
        write(made, served, targets, archive)
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    print(f"wrote {folder} ({size:.1f} MB): upload it to any host, or look at it with")
    print(f"  {Path(sys.executable).name} -m http.server --bind 127.0.0.1 --directory {folder}")
    return 0


def write(folder: Path, served: Served, targets: list[str], archive: Path) -> None:
    for name in ("page.css", "serve.css", "page.js", "worker.js"):
        (folder / name).write_bytes(page_file(name))
    (folder / "engine.js").write_bytes(page_file("engine-browser.js"))
    index = page_file("index.html").decode().replace("<!-- policy -->", POLICY)
    (folder / "index.html").write_text(index, encoding="utf-8")
    (folder / "samples").mkdir()
    for name, data in samples().items():
        (folder / "samples" / f"{name}.jpg").write_bytes(data)
    unpack(archive, folder / "runtime")
    (folder / "picture.webp").write_bytes(served.picture)
    about = served.about() | {"card": served.card, "picture": "picture.webp", "report": None, "films": {}}
    about["directions"] = [way for way in about["directions"] if way["to"] in targets]
    about["networks"] = {to: write_network(folder / f"{number}.onnx", served, to) for number, to in enumerate(targets)}
    (folder / "models.json").write_text(json.dumps({"models": [about]}, indent=1), encoding="utf-8")


def write_network(path: Path, served: Served, to: str) -> dict[str, Any]:
    """One direction as ONNX; what the page must know of it."""
    direction = served.translator.model.direction(to)
    difference = export(served.translator.model, direction, path, half=False)
    print(f"to {to}: {path.stat().st_size / 1e6:.1f} MB, {difference:.1e} from the model at most")
    spec = served.translator.model.spec(direction)
    empty, million = (whole_bytes(spec, side, side, torch.float32, torch.device("cpu")) for side in (0, 1000))
    facts = {name: getattr(spec, name) for name in ("multiple", "smallest", "channels_in", "channels_out")}
    halved_from = served.translator.how(direction, None, 1.0).halved_from
    most = round(MEMORY / (million - empty) * 1e6)
    return {"file": path.name, "most": most, "halved_from": halved_from, **facts}


def runtime() -> Path:
    """onnxruntime-web as npm packs it: from the cache, else fetched once by npm, from the registry that it is set up
    for. Raises BadInput that says how to give it by hand."""
    kept = cache_folder() / RUNTIME
    by_hand = f"put {RUNTIME} (npm's package, sha256 {RUNTIME_SHA256}) at {kept}"
    if not kept.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise BadInput(
                f"the page needs onnxruntime-web, and npm is not there to fetch it: install npm, or {by_hand}"
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        name = RUNTIME.removesuffix(".tgz").rpartition("-")
        print(f"fetching {RUNTIME} (33 MB) by npm, once", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            command = [npm, "pack", f"{name[0]}@{name[2]}", "--silent", "--pack-destination", folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            fetched = Path(folder) / RUNTIME
            if done.returncode or not fetched.is_file():
                why = (done.stderr.strip().splitlines() or ["no word why"])[-1]
                raise BadInput(f"npm cannot fetch onnxruntime-web ({why}): {by_hand}")
            fetched.replace(kept)
    found = sha256(kept)
    if found != RUNTIME_SHA256:
        raise BadInput(f"{kept} has the wrong checksum (sha256 {found[:16]}...): delete it and run again, or {by_hand}")
    return kept


def unpack(archive: Path, folder: Path) -> None:
    """The files that the page needs, by names that every host knows."""
    folder.mkdir()
    with tarfile.open(archive) as packed:
        for name, here in RUNTIME_FILES.items():
            file = packed.extractfile(f"package/dist/{name}")
            assert file is not None, f"{name} is not in {archive}"
            (folder / here).write_bytes(file.read())
    notice = f"{RUNTIME.removesuffix('.tgz')}, Copyright (c) Microsoft Corporation, MIT License:\n"
    (folder / "NOTICE.txt").write_text(
        notice + "\n".join(f"{here}: {name}" for name, here in RUNTIME_FILES.items()) + "\n"
    )
