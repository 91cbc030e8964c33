"""Where images lie and what is known of those that are done: all that needs no cluster."""

import io
import json
import tarfile
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from viceversa.cli import main
from viceversa.config import Translate, make
from viceversa.data import folders
from viceversa.errors import BadInput

pytest.importorskip("ray")
from viceversa.scale import ray as engine
from viceversa.scale import storage
from viceversa.scale.storage import Place


def picture(seed=0, format="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 20, 3), np.uint8)).save(out, format)
    return out.getvalue()


def asked(**given):
    return make(Translate, model="m", **{"inputs": ("in",), "to": "night", "out": "out"} | given)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)


def test_a_request_that_fails_now_and_then_is_made_again_and_one_that_is_refused_is_not():
    asked = []

    def now_and_then():
        asked.append(1)
        if len(asked) < 4:
            raise OSError("AWS Error SLOW_DOWN")
        return "there"

    assert storage.retried(now_and_then) == "there" and len(asked) == 4

    def refused():
        asked.append(1)
        raise OSError("When listing: AWS Error ACCESS_DENIED during ListObjectsV2")

    asked.clear()
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        storage.retried(refused)
    assert len(asked) == 1


def test_addresses_come_through_a_path_whole(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = Place.of(asked(out="s3://bucket/night/").out)
    assert str(place) == "s3://bucket/night" and "endpoint_override=127.0.0.1%3A9&scheme=http" in place.address
    assert Place.of("plain").is_local and not place.is_local


def test_an_output_inside_the_input_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    for given, out in (("in", "in/night"), ("s3://b/day?region=x", "s3://b/day/night?region=x"), ("in", "in")):
        with pytest.raises(BadInput, match="inside the input"):
            engine.check_places([given], Place.of(out))
    engine.check_places(["s3://b/day?region=x"], Place.of("s3://b/day2?region=x"))
    with pytest.raises(BadInput, match="no address"):
        Place.of("s3://[b/day")


def planned(given, done=None, **more):
    t = asked(**more)
    engine.check_places([given], Place.of(t.out))
    return engine.plan(t, [storage.find_images(given)], done or {})


def read(given, rows, **more):
    """The works of a plan, by what they are called in the manifest."""
    reading = engine.Read(asked(**more), lambda work: work, [storage.find_images(given)[0]])
    table = pa.Table.from_pylist([dict(zip(engine.ROWS.names, row, strict=True)) for row in rows], engine.ROWS)
    return [(input, work) for block in reading(table) for input, work in zip(*block.values(), strict=True)]


def test_one_photo_and_a_list_go_anywhere_but_over_an_input(tmp_path):
    for name in ("in/a/1.png", "in/b/2.png", "in/b/1.png"):
        Place.of(tmp_path).write(name, picture())
    (tmp_path / "list.txt").write_text("in/a/1.png\nin/b/2.png\nin/a/1.png\n")
    assert planned("in/a/1.png", out="in/a/night") == ([(0, "1.png", [])], 0)
    rows, _ = planned("list.txt")
    assert [str(work.job.target) for _, work in read("list.txt", rows)] == ["1.png", "2.png"]
    inputs = [input for input, _ in read("list.txt", rows)]
    assert inputs == [f"{tmp_path}/in/a/1.png", f"{tmp_path}/in/b/2.png"]
    assert planned("list.txt", dict(zip(inputs, ({"1.png"}, {"2.png"}), strict=True))) == ([], 2)
    (tmp_path / "link").symlink_to("in")
    for given, out in (("in/a/1.png", "in/a"), ("list.txt", "in/b"), ("in/a/1.png", "link/a")):
        with pytest.raises(BadInput, match="is an input, and would be overwritten"):
            planned(given, out=out)
    (tmp_path / "list.txt").write_text("in/a/1.png\nin/b/1.png\n")
    with pytest.raises(BadInput, match="would have the same names"):
        planned("list.txt")


@pytest.mark.parametrize("other", ["a.parquet", "a/x.png", "a/b/x.png"])
def test_a_container_has_its_folder_for_itself(tmp_path, other):
    """Nobody knows what it holds before it is read."""
    tar_of(tmp_path / "in/a.tar", "x.png")
    (tmp_path / "in" / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "in" / other).write_bytes(picture())
    with pytest.raises(BadInput, match=r"in/a\.\w+ and .*in/a[./].* would have the same names"):
        planned("in")


def test_labels_are_told_as_everywhere(tmp_path):
    Place.of(tmp_path).write("masks/set/masks/1.png", picture())
    Place.of(tmp_path).write("masks/set/1.png", picture())
    _, found = storage.find_images(str(tmp_path / "masks/set"))
    assert "1 picture that lies in folders of labels (masks) is taken for images" in folders.remarks(found)[0]
    (tmp_path / "list.txt").write_text("masks/set/masks/1.png\n")
    assert folders.remarks(storage.find_images(str(tmp_path / "list.txt"))[1]) == []


def tar_of(path, *names):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            tar.addfile(member, io.BytesIO(picture()))


def test_what_was_done_under_another_name_is_done_again(tmp_path):
    Place.of(tmp_path).write("in/sub/a.png", picture())
    tar_of(tmp_path / "in" / "sub" / "x.tar", "1.png")
    done = {f"{tmp_path}/in/sub/a.png": {"sub/a.png"}, f"{tmp_path}/in/sub/x.tar#1.png": {"sub/x/1.png"}}
    assert planned("in", done) == ([(0, "sub/x.tar", ["sub/x/1.png"])], 2)
    assert planned("in/sub", done) == ([(0, "a.png", []), (0, "x.tar", [])], 0)


def test_images_of_a_container_that_are_called_alike_are_all_done_and_done_once(tmp_path):
    tar_of(tmp_path / "in" / "X.TAR", "1.jpg", "1.png", "a#b.png", "1-2.png")
    table = pa.table({"name": ["cat", "dog", "cat", "cat"], "image": [picture()] * 4})
    storage.parquet.write_table(table, tmp_path / "in" / "y.parquet")
    rows, _ = planned("in", format="webp")
    works = read("in", rows, format="webp")
    targets = ["X/1.webp", "X/1-2.webp", "X/a#b.webp", "X/1-2-2.webp"]
    targets += ["y/cat.webp", "y/dog.webp", "y/cat-2.webp", "y/cat-3.webp"]
    assert [str(work.job.target) for _, work in works] == targets
    done = {}
    for input, work in works:
        if work.job.target.name != "cat-2.webp":
            done.setdefault(input, set()).add(str(work.job.target))
    rows, there = planned("in", done, format="webp")
    assert there == 7
    assert [str(work.job.target) for _, work in read("in", rows, format="webp")] == ["y/cat-2.webp"]


def test_only_the_rest_is_done_and_a_failure_is_tried_again(tmp_path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (inputs / name).write_bytes(picture())
    t, out = asked(), Place.of(tmp_path / "out")
    assert engine.begin(t, out, "digest") == {}
    rows = [
        storage.row(f"{inputs}/a.png", "a.png", b"1", None, ()),
        storage.row(f"{inputs}/b.png", "b.png", None, "broken", ("a note",)),
    ]
    out.write("_manifest/1.parquet", storage.as_parquet(rows)[1])
    done = engine.begin(t, out, "digest")
    assert engine.plan(t, [storage.find_images("in")], done) == ([(0, "b.png", []), (0, "c.png", [])], 1)
    again = asked(overwrite=True)
    assert len(engine.plan(again, [storage.find_images("in")], engine.begin(again, out, "digest"))[0]) == 3
    assert not list(storage.read_manifest(out))


def test_a_manifest_of_another_model_or_direction_is_refused(tmp_path):
    out = Place.of(tmp_path / "out")
    engine.begin(asked(), out, "digest")
    with pytest.raises(BadInput, match=r"another model digest .now other"):
        engine.begin(asked(), out, "other")
    with pytest.raises(BadInput, match=r"another to night .now day"):
        engine.begin(asked(to="day"), out, "digest")
    assert json.loads(out.read("_manifest/run.json"))["to"] == "night"


def test_an_output_that_cannot_be_written_to_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written to"):
        engine.begin(asked(), Place.of(tmp_path / "file" / "out"), "digest")


def test_a_shard_without_its_manifest_is_of_a_killed_run_and_goes(tmp_path):
    out = Place.of(tmp_path / "out")
    t = asked(shards="webdataset")
    engine.begin(t, out, "digest")
    out.write("shards/one.tar", b"")
    out.write("shards/two.tar", b"")
    out.write("_manifest/one.parquet", storage.as_parquet([storage.row("x", "x", b"1", None, ())])[1])
    engine.begin(t, out, "digest")
    assert out.names("shards") == ["one.tar"]


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_what_is_packed_is_held(tmp_path, kind):
    results = [("a/x.png", picture(1)), ("a/y.png", picture(2))]
    ending = engine.SHARDS[kind]
    place = Place.of(tmp_path)
    place.write(f"all.{ending}", storage.packed(results, kind))
    assert list(storage.held(place, f"all.{ending}")) == results


def test_other_files_of_a_tar_and_images_as_hugging_face_keeps_them(tmp_path):
    place = Place.of(tmp_path)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (("1.png", picture()), ("1.json", b"{}")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert [(name, data is None) for name, data in storage.held(place, "x.tar")] == [("1.png", False), ("1.json", True)]
    table = pa.table({"image": [{"bytes": picture(), "path": "1.png"}, {"bytes": picture(), "path": None}]})
    storage.parquet.write_table(table, tmp_path / "x.parquet")
    assert [name for name, _ in storage.held(place, "x.parquet")] == ["1.png", "00000001"]
    storage.parquet.write_table(pa.table({"label": [1]}), tmp_path / "y.parquet")
    storage.parquet.write_table(pa.table({"image": ["http://a/1.png"]}), tmp_path / "w.parquet")
    storage.parquet.write_table(pa.table({"image": [{"bytes": None, "path": "a/1.png"}]}), tmp_path / "v.parquet")
    (tmp_path / "z.tar").write_bytes(b"no tar" * 200)
    for broken, why in (("y.parquet", "no column of images"), ("w.parquet", "column image holds str, not bytes"),
                        ("v.parquet", r"column image holds paths \(a/1.png\), not the images"),
                        ("z.tar", "broken")):  # fmt: skip
        with pytest.raises(BadInput, match=why):
            list(storage.held(place, broken))


def test_stages_read_containers_and_files_and_names_cannot_leave_the_output(tmp_path):
    place = Place.of(tmp_path / "in")
    place.write("a.png", picture())
    place.write("empty.png", b"")
    with tarfile.open(tmp_path / "in" / "x.tar", "w") as tar:
        for name in ("../../evil.png", "done.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            tar.addfile(member, io.BytesIO(picture()))
    rows = {"base": [0, 0, 0], "name": ["a.png", "empty.png", "x.tar"], "done": [[], [], ["x/done.png"]]}
    read = engine.Read(asked(), lambda work: work, [place])
    (block,) = read(pa.table(rows, schema=engine.ROWS))
    assert [str(work.job.target) for work in block["work"]] == ["a.png", "empty.png", "x/evil.png"]
    assert list(block["input"]) == [f"{place}/a.png", f"{place}/empty.png", f"{place}/x.tar#../../evil.png"]
    assert [work.error for work in block["work"]] == [None, "empty.png: an empty file", None]


def test_bad_input_is_one_line(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture())
    from test_command import save_generators

    save_generators(tmp_path / "m.safetensors", "ab", "ba")
    ray = ("--engine", "ray")
    for arguments, said in (
        (("--workers", "2"), "--workers: for --engine ray alone"),
        ((*ray, "--address", "127.0.0.1:1"), "nothing answers there"),
        ((*ray, "--watch"), "--watch is not for --engine ray"),
        ((*ray, "--shards", "parquet", "--compare"), "leave --compare and --round-trip out"),
    ):
        command = ["translate", "m.safetensors", "in", "--to", "night", "-o", "out", *arguments]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_from_python_training_on_a_cluster_is_said_to_be_a_command(tmp_path):
    import viceversa

    with pytest.raises(BadInput, match="viceversa train"):
        viceversa.train("day", "night", out=tmp_path / "run", engine="ray")


@pytest.fixture
def deployed(tmp_path, monkeypatch):
    """What is asked of Ray Serve, which is not there: `deployed.end` is what waiting ends with."""
    from test_command import save_generators

    save_generators(tmp_path / "m.safetensors", "ab", "ba")
    told = SimpleNamespace(calls=[], end=KeyboardInterrupt(), models=())

    def deployment(given, most):
        told.models = given.models
        return "application"

    def ended():
        raise told.end

    monkeypatch.setattr(engine, "cluster", lambda address: nullcontext())
    monkeypatch.setattr(engine, "everywhere", lambda shared: told.calls.append(("seen", shared)))
    monkeypatch.setattr(engine, "deployment", deployment)
    monkeypatch.setattr(engine, "gpus_for", lambda device: 0)
    monkeypatch.setattr(engine.signal, "pause", ended)
    for name in ("start", "run", "delete", "shutdown"):
        monkeypatch.setattr(f"ray.serve.{name}", lambda *a, called=name, **b: told.calls.append((called, *a)))
    return told


def test_the_end_of_a_deployment_leaves_others_alone_and_models_are_found_from_other_folders(deployed, tmp_path):
    assert main(["serve", "m.safetensors", "--engine", "ray"]) == 0
    path = str(tmp_path / "m.safetensors")
    assert deployed.models == (path,)
    assert deployed.calls == [("seen", path), ("start",), ("run", "application"), ("delete", "viceversa")]


@pytest.mark.parametrize("failing", ["start", "run"])
def test_a_deployment_that_fails_is_one_line(deployed, monkeypatch, capsys, failing):
    def fail(*a, **b):
        raise RuntimeError("it failed:\nTraceback ...\nOSError: address already in use")

    monkeypatch.setattr(f"ray.serve.{failing}", fail)
    assert main(["serve", "m.safetensors", "--engine", "ray"]) == 1
    said = capsys.readouterr().err
    assert "address already in use" in said and "Traceback" not in said and said.count("\n") == 1
    assert (("delete", "viceversa") in deployed.calls) == (failing == "run")


def test_ctrl_c_while_deploying_leaves_nothing_running(deployed, monkeypatch):
    def interrupted(*a, **b):
        raise KeyboardInterrupt

    monkeypatch.setattr("ray.serve.run", interrupted)
    assert main(["serve", "m.safetensors", "--engine", "ray"]) == 0
    assert deployed.calls[-1] == ("delete", "viceversa")
