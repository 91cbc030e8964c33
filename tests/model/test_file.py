"""What a person calls a model leads to its file; hf:// against a local server with the hub's protocol."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from patience import LONG
from safetensors.torch import save_file

from viceversa.errors import BadInput
from viceversa.model import file
from viceversa.model.file import Model, bundled, load_model, resolve, save_model
from viceversa.model.networks import Generator


def write(path, text="weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_itself(tmp_path):
    file = write(tmp_path / "any.name")
    assert resolve(file) == file and resolve(str(file)) == file


def test_a_run_gives_its_best_model_where_there_is_one(tmp_path):
    model = write(tmp_path / "run/model.safetensors")
    assert resolve(tmp_path / "run") == model
    best = write(tmp_path / "run/best.safetensors")
    assert resolve(str(tmp_path / "run") + "/") == best


def test_a_run_without_a_model_yet_says_so(tmp_path):
    write(tmp_path / "run/config.json")
    with pytest.raises(BadInput, match=r"no model\.safetensors yet"):
        resolve(tmp_path / "run")


def test_a_folder_that_is_no_run_says_what_it_holds(tmp_path):
    write(tmp_path / "zebra.safetensors")
    with pytest.raises(BadInput, match=r"no run folder.*zebra\.safetensors"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("day2nigt.safetensors", "day2night.safetensors"),
        ("sketch", "sketch.safetensors"),
        ("runs/apple2orang", "runs/apple2orange"),
        ("apple2orange", "runs/apple2orange"),
    ],
)
def test_an_unknown_name_suggests_what_comes_near(tmp_path, monkeypatch, asked, meant):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / (meant if meant.endswith(".safetensors") else f"{meant}/model.safetensors"))
    with pytest.raises(BadInput, match=rf"no model '{asked}': did you mean {meant}\?"):
        resolve(asked)


@pytest.mark.parametrize("given", [None, 3])
def test_what_is_no_path_is_refused(given):
    with pytest.raises(BadInput, match=f"model={given}: give a file"):
        resolve(given)


def test_a_folder_of_images_does_not_hide_the_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "day2night" / "trainA").mkdir(parents=True)
    assert resolve("day2night").name == "day2night.safetensors"
    (tmp_path / "day2night" / "config.json").touch()  # a run that has no model yet is asked for
    with pytest.raises(BadInput, match="has no model"):
        resolve("day2night")


def test_an_unknown_name_with_nothing_near_says_what_a_model_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BadInput, match="a model file, a run folder, a name that `viceversa models` lists, or hf://owner/name"
    ):
        resolve("nowhere")


@pytest.mark.parametrize("name", ["hf://", "hf://alone", "hf://a/b/c.pth", "hf://a/b@", "hf://a b/c"])
def test_a_malformed_hub_name_is_told_the_form(name):
    with pytest.raises(BadInput, match="hf://owner/name@revision"):
        resolve(name)


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BadInput, match=r"viceversa\[hub\]"):
        resolve("hf://ours/model")


COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"model.safetensors": b"the model", "small/zebra.safetensors": b"another model"}


class Hub(BaseHTTPRequestHandler):
    """What huggingface.co answers about files of one model, ours/model, at main and v1."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.server.asked.append((self.command, self.path))
        repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repo != "ours/model":
            return self.refuse(401, "RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if file not in FILES:
            return self.refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(FILES[file]).hexdigest()}"')
        self.send_header("Content-Length", str(len(FILES[file])))
        self.end_headers()
        if body:
            self.wfile.write(FILES[file])

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


ASK = """
import sys
from viceversa.errors import BadInput
from viceversa.model.file import resolve
for name in sys.argv[1:]:
    try:
        print(resolve(name).read_text())
    except BadInput as wrong:
        print("refused:", wrong)
"""


def ask(server, cache, *names):
    """What `resolve` gives in a fresh process (huggingface_hub reads its settings once, on import)."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, timeout=LONG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_of_the_hub_is_fetched_once_and_kept(hub, tmp_path):
    pytest.importorskip("huggingface_hub")
    name = "hf://ours/model"
    assert ask(hub, tmp_path, name, f"{name}/small/zebra.safetensors", f"{name}@v1") == [
        "the model",
        "another model",
        "the model",
    ]
    gets = [path for command, path in hub.asked if command == "GET"]
    assert sorted(gets) == [
        "/ours/model/resolve/main/model.safetensors",
        "/ours/model/resolve/main/small/zebra.safetensors",
    ]  # v1 is the same file: kept already

    before = len(hub.asked)
    assert ask(hub, tmp_path, name) == ["the model"]
    assert len(hub.asked) == before

    hub.shutdown()
    hub.server_close()
    assert ask(hub, tmp_path, name, f"{name}@v1") == ["the model", "the model"]
    (offline,) = ask(hub, tmp_path, "hf://ours/other")
    assert offline.startswith("refused: hf://ours/other: the hub cannot be reached, and no copy is kept here")


def test_what_the_hub_does_not_have_is_said_in_one_line(hub, tmp_path):
    pytest.importorskip("huggingface_hub")
    names = ["hf://their/model", "hf://ours/model@v9", "hf://ours/model/big.safetensors"]
    repo, revision, file = ask(hub, tmp_path, *names)
    assert repo.startswith("refused: hf://their/model: the hub has no such model")
    assert revision == "refused: hf://ours/model@v9: ours/model has no revision 'v9'"
    assert file == "refused: hf://ours/model/big.safetensors: ours/model has no file big.safetensors"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two models that come with the package."""
    monkeypatch.setattr(file, "BUNDLED", tmp_path / "assets")
    return {name: write(tmp_path / f"assets/{name}.safetensors") for name in ("day2night", "maps")}


def test_a_bundled_name_is_a_model(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundled() == shipped
    assert resolve("day2night") == shipped["day2night"]
    with pytest.raises(BadInput, match="did you mean day2night"):
        resolve("day2nigth")
    mine = write(tmp_path / "day2night/model.safetensors")
    assert resolve("day2night").samefile(mine), "a run of that name comes first"


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_an_exported_file_is_no_model(tmp_path, ending):
    with pytest.raises(BadInput, match="for other programs, and cannot be trained through: give the model"):
        resolve(write(tmp_path / f"night.{ending}"))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("{", "its description cannot be read"),
        ("[]", "its description cannot be read"),
        ("{}", "its description cannot be read"),
        ('{"format": 99}', "written by a newer viceversa (format 99): upgrade"),
        (
            '{"format": 1, "domains": ["a", "b"], "generators": {"ab": {"kind": "resnet", "wings": 2}}}',
            "does not know (generator has no setting 'wings'",
        ),
        (
            '{"format": 1, "domains": ["a", "b"], "generators": {"ab": {"kind": "resnet", "norm": "layer"}}}',
            "does not know (norm='layer': must be instance, instance-affine or batch): upgrade",
        ),
        (
            '{"format": 1, "domains": ["a", "b"], "generators": {"ab": {"kind": "unet", "halvings": 1}}}',
            "do not fit its description",
        ),
        ('{"format": 1, "domains": ["a"], "generators": {}}', "its description cannot be read"),
        ('{"format": 1, "domains": ["a", "/tmp/b"], "generators": {}}', "'a' and '/tmp/b' are no two names"),
        ('{"format": 1, "domains": ["a", ".."], "generators": {}}', "'a' and '..' are no two names"),
        ('{"format": 1, "domains": ["a", "b"], "generators": ["ab"]}', "its description cannot be read"),
        ('{"format": 1, "domains": ["a", "b"], "generators": {"ab": {"width": 2}}}', "do not fit its description"),
    ],
)
def test_a_description_that_makes_no_sense_is_one_line(tmp_path, head, words):
    save_file({"ab.x": torch.zeros(1)}, tmp_path / "odd.safetensors", {"viceversa": head})
    with pytest.raises(BadInput, match=re.escape(words)):
        load_model(tmp_path / "odd.safetensors")


def test_whatever_is_known_of_a_model_is_kept_and_what_others_look_into_is_a_table(tmp_path):
    known = {"author": "me", "tags": ["old"], "image": {"size": 64}}
    save_model(
        tmp_path / "x.safetensors", Model({"ab": Generator(width=2, blocks=1).build()}, ("a?", "夜" * 60), known)
    )
    model = load_model(tmp_path / "x.safetensors")
    assert model.info == known and model.domains == ("a?", "夜" * 60)
    spoilt = model.info | {"image": None, "statistics": []}
    save_model(tmp_path / "y.safetensors", Model(model.generators, model.domains, spoilt))
    assert load_model(tmp_path / "y.safetensors").info == {"author": "me", "tags": ["old"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    network = Generator(width=2, blocks=1).build()
    next(network.parameters()).data.view(-1)[3] = value
    save_model(tmp_path / "x.safetensors", Model({"ab": network}, ("a", "b")))
    with pytest.raises(BadInput, match=r"x\.safetensors: some of its weights are no numbers"):
        load_model(tmp_path / "x.safetensors")


def test_a_domain_is_named_by_a_text():
    model = Model({"ab": Generator(width=2, blocks=1).build()}, ("day", "night"))
    with pytest.raises(BadInput, match="to=5: give the name of a domain, night"):
        model.direction(5)
