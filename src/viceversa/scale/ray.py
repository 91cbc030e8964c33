"""`--engine ray`: translate and train on a cluster. The only file that knows Ray.

Translating is a stream of three stages (Ray Data), with a bounded number of images between them: actors that fetch and
decode, that hold the network, and that encode, store and write the manifest. (As tasks, decoding and encoding would
begin with a process of their own each time, since Ray ends idle ones: more work than the images of a task.) The stages
are the plain command's own. What a lost machine was doing is done again elsewhere; the same images make the same files.
"""

import atexit
import hashlib
import json
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .. import __version__
from ..config import Serve, Train, Translate
from ..data import dicom, folders, pictures
from ..errors import BadInput, Failed, Interrupted, first_line
from ..files import write_text
from ..model.file import Model, bundled, load_model, resolve
from ..terminal import count, ending_on_sigterm, progress_bar, words
from ..threads import ordered
from ..translation.command import TOLD, check_wishes, say, to_folder
from ..translation.pipeline import BATCH, Job, Work, applying, area, batches, failed, guarded, reading
from ..translation.translator import Translator
from . import storage
from .storage import CONTAINERS, MANIFEST, Place

try:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as missing:
    raise BadInput(f"--engine ray needs Ray: pip install 'viceversa[ray]' ({missing})") from None

SHARDS = {"parquet": "parquet", "webdataset": "tar"}
"""What --shards may be, and the files' endings."""
ROWS = pa.schema([("base", pa.int32()), ("name", pa.string()), ("done", pa.list_(pa.string()))])
"""What a task is given: which input, which file of it, and of a container the results that are there."""
CHUNK = 256
"""Images of a task, and of a part of the manifest: fewer where there are few."""
FETCHES = 8
"""Requests to the storage that a task has under way."""
CORE = {False: (0.75, 0.125), True: (0.0, 0.5)}
"""Cores that are set aside for an actor with the network, and for one that decodes or encodes, without and with GPUs.
Without, one of each fill a core: decoding and encoding wait for the network most of the time."""
PATIENCE = 5.0
"""Seconds within which a cluster must answer."""
LOST = 3
"""How often a training that has lost a worker begins again from its checkpoint."""


# A cluster.


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Be connected to Ray: to the cluster at `address` ($RAY_ADDRESS), or to one of this machine alone, which is
    stopped in the end. Raises BadInput."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except OSError as error:
            raise BadInput(
                f"--address {address}: nothing answers there ({error}); is the cluster up (ray status)?"
            ) from None
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray raises plain ones for a start that takes too long
        first = first_line(error)
        if address == "local":
            raise Failed(f"Ray did not start on this machine: {first}") from None
        raise BadInput(f"--address {address}: no cluster there ({first}); start one, or leave --address out") from None
    try:
        yield
    finally:
        ray.shutdown()


def gpus_for(device: str) -> int:
    """How many the cluster has, where they are wanted."""
    wanted = device == "auto" or device.startswith("cuda")
    return int(ray.cluster_resources().get("GPU", 0)) if wanted else 0


def everywhere(shared: str | None) -> None:
    """Raise BadInput where a machine of the cluster has not this package, or does not see the file `shared`."""

    def look(shared: str | None) -> tuple[str, bool] | str:  # sent as it stands: the package may not be there
        try:
            import viceversa
        except ImportError as error:
            return str(error)
        import os

        return viceversa.__version__, shared is None or os.path.exists(shared)

    probe = ray.remote(num_cpus=0, max_retries=0)(look)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(shared)
        for node in nodes
    ]
    for node, question in zip(nodes, asked, strict=True):
        try:
            answer = ray.get(question)
        except ray.exceptions.RayError:  # a machine that was lost in this moment: others do its work
            continue
        where = f"the worker {node['NodeManagerAddress']}"
        if isinstance(answer, str):
            raise BadInput(f"{where} cannot import viceversa ({answer}): install it there, or submit with a runtime "
                           "environment: ray job submit --runtime-env-json '{\"pip\": [\"viceversa[ray]\"]}' -- "
                           "viceversa ...")  # fmt: skip
        version, seen = answer
        if version != __version__:
            raise BadInput(f"{where} has viceversa {version}, and this machine {__version__}: install the same")
        if not seen:
            raise BadInput(f"{where} does not see {shared}: give folders on storage that all machines share, or an "
                           "address such as s3://bucket/...")  # fmt: skip


def in_words(error: BaseException, then: str = "the same command goes on from there") -> Exception:
    """What came back from a worker, as what was raised there."""
    at: BaseException | None = error
    seen: set[int] = set()
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, BadInput | Failed):
            return type(at)(str(at.args[0] if at.args else at))
        at = getattr(at, "cause", None) or at.__cause__ or at.__context__
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return Failed(f"the cluster gave up ({type(error).__name__}: {last}); {then}")


# Translating.


def command_translate(t: Translate) -> int:
    """As the plain command, for images alone: on a cluster, and with inputs and output wherever they lie."""
    check_wishes(t)
    for name in ("with_labels", "watch", "seconds"):
        if getattr(t, name) not in (None, False):
            raise BadInput(f"--{name.replace('_', '-')} is not for --engine ray: leave it out")
    if t.shards and (t.compare or t.round_trip):
        raise BadInput("--shards holds one result of each image: leave --compare and --round-trip out")
    if "-" in (*t.inputs, str(t.out)):
        raise BadInput("- (standard input and output) is not for --engine ray: name folders or addresses")
    path = resolve(t.model, t.epoch)
    model = load_model(path)
    t = replace(t, to=model.ends(model.direction(t.to))[1])
    found = [storage.find_images(given) for given in t.inputs]
    out = Place.of(t.out)
    check_places(t.inputs, out)
    for _, each in found:
        for line in folders.remarks(each):
            say(line)
    weights = path.read_bytes()
    done = begin(t, out, hashlib.sha256(weights).hexdigest())
    rows, there = plan(t, found, done)
    with cluster(t.address):
        everywhere(f"{out}/{MANIFEST}/run.json" if out.is_local else None)
        return stream(t, model, weights, [place for place, _ in found], out, rows, there)


def check_places(inputs: Sequence[str], out: Place) -> None:
    """Raise BadInput where the output lies in an input: it would be read the next time."""
    for given in inputs:
        if storage.SCHEME.match(given):
            inside = out.file("").startswith(Place.of(given).file(""))
        else:
            inside = out.is_local and folders.lies_inside(out.address, given)
        if inside:
            raise BadInput(f"--out {out} is inside the input {given}, where it would be read the next time: "
                           "name another")  # fmt: skip


def begin(t: Translate, out: Place, model: str) -> dict[str, set[str]]:
    """What is done already: outputs by input. Raises BadInput where nothing can be written, and where what lies there
    was made otherwise."""
    how = {"model": model, "to": t.to, "viceversa": __version__}
    how |= {
        name: getattr(t, name) for name in ("size", "strength", "format", "quality", "compare", "round_trip", "shards")
    }
    name = f"{MANIFEST}/run.json"
    try:
        names = set(out.names(MANIFEST))
        if "run.json" in names and not t.overwrite:
            before = json.loads(out.read(name))
            other = [key for key in how if key != "viceversa" and before.get(key) != how[key]]
            if other:
                was = ", ".join(f"{key} {str(before.get(key))[:12]} (now {str(how[key])[:12]})" for key in other)
                raise BadInput(f"--out {out} was made with another {was}: name another --out, or --overwrite")
        if t.overwrite:
            for old in names - {"run.json"}:
                out.remove(f"{MANIFEST}/{old}")
        out.write(name, json.dumps(how, indent=1).encode())
        parts: set[str] = set()
        done: dict[str, set[str]] = {}
        for part, table in () if t.overwrite else storage.read_manifest(out):
            parts.add(PurePosixPath(part).stem)
            for row in table.select(["input", "output", "error"]).to_pylist():
                if row["error"] is None:
                    done.setdefault(row["input"], set()).add(row["output"])
        if t.shards:  # one without its part of the manifest is of a run that was killed: its images are done again
            for shard in out.names("shards"):
                if PurePosixPath(shard).stem not in parts:
                    out.remove(f"shards/{shard}")
    except BadInput:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = storage.denied(error)
        raise BadInput(f"--out {out}: cannot be written to ({reason}); name another, or see who may write") from None
    return done


def plan(
    t: Translate, found: list[tuple[Place, folders.Found]], done: dict[str, set[str]]
) -> tuple[list[tuple[int, str, list[str]]], int]:
    """What is to be done - which input, which file of it, and which of its images are done, where it holds many -
    and how many images were there already. Raises BadInput where results would land on each other."""
    rows, there = [], 0
    writers: dict[str, str] = {}
    inside = within(found, done)
    for base, (place, each) in enumerate(found):
        for path in each.paths:
            name = path.as_posix()
            input, packed = place.file(name), path.suffix.lower() in CONTAINERS
            result = place.result(name)
            target = str(Path(result).with_suffix("") if packed else job_of(t, name, result).target)
            if writers.get(target) == input:  # a list may name it twice
                continue
            if writers.setdefault(target, input) != input:
                raise clash(writers[target], input)
            if packed:
                results = [result for result in inside[input] if result.startswith(f"{target}/")]
                rows.append((base, name, results))
                there += len(results)
            elif target in done.get(input, ()):
                there += 1
            else:
                rows.append((base, name, []))
    container_of = {target: input for target, input in writers.items() if input in inside}
    for target, input in writers.items() if container_of else ():
        for parent in map(str, Path(target).parents):
            if parent in container_of:
                raise clash(container_of[parent], input)
    if not t.shards:
        check_targets(Place.of(t.out), found, writers)
    return rows, there


def clash(one: str, other: str) -> BadInput:
    return BadInput(f"the results of {one} and {other} would have the same names: translate them one after the other, "
                    "with another --out each")  # fmt: skip


def within(found: list[tuple[Place, folders.Found]], done: dict[str, set[str]]) -> dict[str, list[str]]:
    """The results that are there by the container that their images are in."""
    inside: dict[str, list[str]] = {
        place.file(path.as_posix()): []
        for place, each in found
        for path in each.paths
        if path.suffix.lower() in CONTAINERS
    }
    for input, results in done.items() if inside else ():
        for mark in re.finditer("#", input):  # which may stand in names, too
            if input[: mark.start()] in inside:
                inside[input[: mark.start()]] += results
    return inside


def check_targets(out: Place, found: list[tuple[Place, folders.Found]], writers: dict[str, str]) -> None:
    """Raise BadInput where a result would be written over an input."""
    mine = real(out).file("")
    for place, each in found:
        there = real(place)
        for file in (there.file(path.as_posix()) for path in each.paths if path.suffix.lower() not in CONTAINERS):
            if file.startswith(mine) and file.removeprefix(mine) in writers:
                raise BadInput(f"{file} is an input, and would be overwritten: name another --out")


def real(place: Place) -> Place:
    """The same place, without links."""
    return Place(os.path.realpath(place.address)) if place.is_local else place


def job_of(t: Translate, source: str, result: str) -> Job:
    """Relative to the places where they lie."""
    return to_folder(replace(t, out=Path()), Path(source), Path(result))


def apart(target: Path, called: Counter[Path]) -> Path:
    """With a number where others are called the same."""
    called[target] += 1
    while (number := called[target]) > 1:
        target = target.with_stem(f"{target.stem}-{number}")
        called[target] += 1
    return target


def stream(
    t: Translate, model: Model, weights: bytes, inputs: list[Place], out: Place,
    rows: list[tuple[int, str, list[str]]], there: int,
) -> int:  # fmt: skip
    """Send the images through, and tell what came of them. Raises Failed and Interrupted."""
    gpus = gpus_for(t.device)
    workers = t.workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
    for_network, for_others = CORE[gpus > 0]
    many = any(PurePosixPath(name).suffix.lower() in CONTAINERS for _, name, _ in rows)
    size = 1 if many else max(1, min(CHUNK, len(rows) // (8 * workers)))
    parts = (rows[start : start + size] for start in range(0, len(rows), size))
    blocks = [pa.Table.from_pylist([dict(zip(ROWS.names, row, strict=True)) for row in part], ROWS) for part in parts]
    finished, errors, notes = 0, 0, Counter[str]()
    told: dict[str, str] = {}
    first: list[str] = []
    if blocks:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        most = max(1, int(ray.cluster_resources().get("CPU", 1)) if gpus else workers // 2)
        stages: Any = ray.data.from_arrow(blocks)
        for stage, given, layout, start, end in (
            (Read, (t, reading(t, model), inputs), "pyarrow", 1, most),
            (Network, (t, ray.put(weights)), "numpy", workers, workers),
            (Write, (t, out), "numpy", 1, most),
        ):
            stages = stages.map_batches(
                stage, fn_constructor_args=given, batch_size=None, batch_format=layout,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=end, initial_size=start),
                num_cpus=for_network if stage is Network else for_others,
                num_gpus=1 if gpus and stage is Network else 0,
            )  # fmt: skip
        try:
            with ending_on_sigterm(), progress_bar("translating", None if many else len(rows)) as update:
                for table in stages.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    finished += len(table)
                    update(finished)
                    for row in table.select(["input", "error", "notes"]).to_pylist():
                        for note in row["notes"]:
                            kind = dicom.kind(note)
                            notes[kind] += 1
                            told[kind] = dicom.together(filter(None, (told.get(kind), note)))
                        if row["error"] is not None:
                            errors += 1
                            first += [row["error"]] * (len(first) < TOLD)
        except (KeyboardInterrupt, SystemExit) as stop:
            number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
            of = "" if many else f" of {count(len(rows))}"
            raise Interrupted(
                number, f"interrupted: {count(finished)}{of} done; the same command goes on from there"
            ) from None
        except (ray.exceptions.RayError, RuntimeError, OSError, ValueError) as error:
            raise in_words(error) from None
    was, them = ("was", "it") if there == 1 else ("were", "them")
    kept = f"; {count(there)} {was} there already (--overwrite does {them} again)" if there else ""
    say(f"translated {count(finished - errors)} to {out}{kept}")
    for kind, times in notes.most_common(TOLD):
        say(f"  {words(times, 'picture')}: {told[kind]}")
    for line in first:
        say(f"  {line}")
    if errors:
        raise Failed(f"{count(errors)} of {count(finished)} failed: {out}/{MANIFEST} says which and why")
    return 0


def column(values: list[Any]) -> np.ndarray:
    """Objects, as Ray Data carries them."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


class Read:
    """Fetch and decode: rows of `plan` to works, each with the address of its image."""

    def __init__(self, t: Translate, decode: Any, inputs: list[Place]):
        self.t, self.decode, self.inputs = t, decode, inputs

    def __call__(self, table: pa.Table) -> Iterator[dict[str, np.ndarray]]:
        waiting: list[tuple[str, Work]] = []
        room = BATCH
        with closing(ordered(self.one, self.works(table), workers=FETCHES)) as fetched:
            for input, work in fetched:
                waiting.append((input, work))
                room -= area(work)
                if room < 0 or len(waiting) == CHUNK:
                    yield self.block(waiting)
                    waiting, room = [], BATCH
        if waiting:
            yield self.block(waiting)

    def block(self, waiting: list[tuple[str, Work]]) -> dict[str, np.ndarray]:
        inputs, works = zip(*waiting, strict=True)
        return {"input": column(list(inputs)), "work": column(list(works))}

    def works(self, table: pa.Table) -> Iterator[tuple[Place, str, Work]]:
        for row in table.to_pylist():
            place, name = self.inputs[row["base"]], row["name"]
            if PurePosixPath(name).suffix.lower() in CONTAINERS:
                for inner, work in self.contained(place, name, set(row["done"])):
                    yield place, f"{place.file(name)}#{inner}", work
            else:
                yield place, place.file(name), Work(job_of(self.t, name, place.result(name)))

    def contained(self, place: Place, name: str, there: set[str]) -> Iterator[tuple[str, Work]]:
        """The images of a container whose results are not there; those that would be called the same are numbered."""
        folder, others, called = PurePosixPath(place.result(name)).with_suffix(""), 0, Counter[Path]()
        try:
            for inner, data in storage.held(place, name):
                if data is None:
                    others += 1
                    continue
                safe = folder.joinpath(*(part for part in PurePosixPath(inner).parts if part not in ("/", "..")))
                job = job_of(self.t, str(safe), str(safe))
                job = replace(job, target=apart(job.target, called))
                if str(job.target) not in there:
                    yield inner, Work(job, data=data)
        except (OSError, BadInput) as error:
            yield "", failed(Work(Job(Path(name), Path(folder))), error)
        if others:
            print(f"{place.file(name)}: {words(others, 'file')} of other kinds left out", file=sys.stderr, flush=True)

    def one(self, given: tuple[Place, str, Work]) -> tuple[str, Work]:
        place, input, work = given
        if work.error is None and work.data is None:
            try:
                work = replace(work, data=place.read(str(work.job.source)))
            except OSError as error:
                return input, failed(work, error)
        if work.error is None and not work.data:
            return input, Work(work.job, error=f"{work.job.source}: an empty file")
        work = self.decode(work)
        return input, replace(work, error=work.error and work.error.replace(": the image: ", ": "))


class Network:
    """An actor: holds the network, and translates what was decoded."""

    def __init__(self, t: Translate, weights: Any):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            path.write_bytes(ray.get(weights))
            self.translator = Translator(load_model(path), device=t.device, precision=t.precision, memory=t.memory)
        self.apply = applying(t, self.translator)
        self.on_cpu = self.translator.device.type == "cpu"
        if self.on_cpu:
            torch.set_num_threads(1)  # other actors have the other cores

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        works = batches(list(batch["work"]), 0 if self.on_cpu else BATCH)
        return {"input": batch["input"], "work": column([work for some in works for work in self.apply(some)])}


class Write:
    """Encode, store, and note in the manifest: works to rows of it."""

    def __init__(self, t: Translate, out: Place):
        self.t, self.out = t, out

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        inputs = [str(input) for input in batch["input"]]
        part = storage.part_name(inputs)
        with closing(ordered(partial(guarded, self.one), list(batch["work"]), workers=FETCHES)) as stored:
            finished = list(stored)
        results = [(str(work.job.target), work.data) for work in finished if work.data is not None]
        if self.t.shards and results:
            self.out.write(f"shards/{part}.{SHARDS[self.t.shards]}", storage.packed(results, self.t.shards))
        rows = [
            storage.row(input, str(work.job.target), work.data, work.error, work.notes)
            for input, work in zip(inputs, finished, strict=True)
        ]
        table, data = storage.as_parquet(rows)
        self.out.write(f"{MANIFEST}/{part}.parquet", data)
        return table

    def one(self, work: Work) -> Work:
        encoded = [(path, *pictures.encoded(pages, self.t.quality)) for path, pages in work.results]
        if not self.t.shards:
            for path, data, _ in encoded:
                self.out.write(path.as_posix(), data)
        return Work(work.job, data=encoded[0][1], notes=work.notes + encoded[0][2])


# Training.


def command_train(settings: Train) -> int:
    """The same training, by as many processes as are asked for; where one is lost, all go on from the checkpoint."""
    import ray.train.torch

    here = {
        name: os.path.abspath(value)
        for name in ("a", "b", "test_a", "test_b", "start")
        if (value := getattr(settings, name)) is not None and os.path.exists(value)
    }
    out = Path(os.path.abspath(settings.out))
    plain = replace(settings, out=out, engine="local", address=None, workers=None, **here)
    with cluster(settings.address):
        gpus = gpus_for(settings.device)
        workers = settings.workers or gpus or 1
        cores = ray.cluster_resources().get("CPU", 0)
        if workers > (gpus or cores):
            raise BadInput(f"--workers {workers}: this cluster has {gpus or cores:g} {'GPUs' if gpus else 'CPU cores'}")
        everywhere(here.get("a"))
        above = next(folder for folder in out.parents if folder.is_dir())
        with tempfile.TemporaryDirectory(prefix=".ray-", dir=above) as state:  # Ray's own notes, none of ours
            everywhere(state)
            trainer = ray.train.torch.TorchTrainer(
                worker,
                train_loop_config={"settings": asdict(plain), "wrong": f"{state}/wrong.json"},
                scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus > 0),
                torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=1200),
                run_config=ray.train.RunConfig(
                    name="run", storage_path=state, failure_config=ray.train.FailureConfig(max_failures=LOST)
                ),
            )
            try:
                with ending_on_sigterm():
                    trainer.fit()
            except (KeyboardInterrupt, SystemExit) as stop:
                number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
                raise Interrupted(number, "interrupted: the same command goes on from the last checkpoint") from None
            except (ray.exceptions.RayError, ray.train.TrainingFailedError, RuntimeError) as error:
                raise in_words(error) from None
            if (wrong := Path(state, "wrong.json")).exists():
                kind, words_of_it = json.loads(wrong.read_text(encoding="utf-8"))
                raise {"BadInput": BadInput, "Failed": Failed}[kind](words_of_it)
    return 0


def worker(given: dict[str, Any]) -> None:
    """One process. What a person did wrong is told, not tried again; a lost process is."""
    import ray.train

    from ..training.train import LOST_PROCESS, run

    try:
        run(Train(**given["settings"]))
    except (BadInput, Failed) as wrong:
        if LOST_PROCESS in str(wrong):
            raise
        if ray.train.get_context().get_world_rank() == 0:
            write_text(Path(given["wrong"]), json.dumps([type(wrong).__name__, str(wrong)]))


# Serving.


def command_serve(asked: Serve) -> int:
    """The API of `viceversa serve` as a deployment, until Ctrl-C."""
    from ray import serve

    from ..serve.command import checked
    from ..serve.served import find

    asked = checked(asked)
    find(asked)  # what is wrong with a model is said here
    asked = replace(asked, models=tuple(map(everywhere_the_same, asked.models)))
    with cluster(asked.address):
        everywhere(next(filter(os.path.isabs, asked.models), None))
        try:
            with ending_on_sigterm():
                serve.start(http_options={"host": asked.host, "port": asked.port})
                try:
                    serve.run(deployment(asked, asked.workers or gpus_for(asked.device) or 1), name="viceversa")
                    say(f"http://{asked.host}:{asked.port} (Ctrl-C stops)")
                    signal.pause()
                finally:
                    serve.delete("viceversa")  # others of the cluster go on
        except (KeyboardInterrupt, SystemExit):
            pass
        except (ray.exceptions.RayError, serve.exceptions.RayServeException, RuntimeError) as error:
            raise in_words(error, "see the cluster's log, and that the port is free") from None
    return 0


def everywhere_the_same(model: str) -> str:
    """What a person named, as machines know it that have another working folder."""
    path = resolve(model)
    return os.path.abspath(path) if os.path.exists(model) and path not in bundled().values() else model


def deployment(asked: Serve, most: int) -> Any:
    """The application of serve/, copies of which come and go with the requests that are under way. Each batches by
    itself. A job is known to the copy that took it alone: films and archives want one copy."""
    from ray import serve

    gpu = gpus_for(asked.device) > 0

    def build() -> Any:
        from viceversa.serve.app import create
        from viceversa.serve.jobs import own_folder
        from viceversa.serve.served import find

        stack = ExitStack()
        atexit.register(stack.close)
        return create(asked, find(asked), stack.enter_context(own_folder()))[0]

    @serve.deployment(
        autoscaling_config={"min_replicas": 1, "max_replicas": most, "target_ongoing_requests": asked.queue / 8},
        max_ongoing_requests=2 * asked.queue,
        graceful_shutdown_timeout_s=asked.seconds,
        ray_actor_options={"num_gpus": 1} if gpu else {"num_cpus": 1},
    )
    @serve.ingress(build)
    class Viceversa:
        pass

    if most > 1:
        say(f"note: up to {most} copies: films and archives (/v1/jobs) want one, --workers 1")
    return Viceversa.bind()  # type: ignore[attr-defined]
