"""Where images lie and what is known of those that are done: all that needs no cluster."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from viceversa.cli import main
from viceversa.config import Translate, make
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


def test_an_output_inside_the_input_is_refused():
    for given, out in (("in", "in/night"), ("s3://b/day?region=x", "s3://b/day/night?region=x"), ("in", "in")):
        with pytest.raises(BadInput, match="inside the input"):
            engine.check_places([Place.of(given)], Place.of(out))
    engine.check_places([Place.of("s3://b/day?region=x")], Place.of("s3://b/day2?region=x"))


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
    (tmp_path / "z.tar").write_bytes(b"no tar" * 200)
    for broken, why in (("y.parquet", "no column of images"), ("z.tar", "broken")):
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
    rows = {"base": [0, 0, 0], "name": ["a.png", "empty.png", "x.tar"], "done": [[], [], ["done.png"]]}
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
