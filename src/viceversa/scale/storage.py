"""Files wherever they lie - this machine, S3, Google Cloud, ... - and what is known of those that are done.

By pyarrow, and by fsspec for schemes that pyarrow does not know. Nothing here knows Ray.
"""

import hashlib
import io
import os
import random
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as arrow
import pyarrow.parquet as parquet

from ..data.folders import PICTURES, Found, find
from ..errors import BadInput
from ..files import write_bytes

T = TypeVar("T")
SCHEME = re.compile(r"^(\w[\w+.-]+):/+")
CONTAINERS = frozenset((".parquet", ".tar"))
"""Files that hold many images: Parquet, and WebDataset's."""
ATTEMPTS = 8
"""How often a request is made that fails: at most half a minute in all. The library beneath tries thrice each time."""
DENIED = re.compile(r"ACCESS_DENIED|InvalidAccessKeyId|SignatureDoesNotMatch|HTTP status 40[13]|NO_SUCH_BUCKET")
"""In the words of pyarrow: what another attempt will not help."""
BYTES, NAMES = ("image", "bytes", "data", "jpg", "png"), ("name", "path", "filename", "file_name", "key", "__key__")
"""Columns of a Parquet file that are taken for the images, and for their names."""
ROW_GROUP = 64
"""Rows of a Parquet file that are held at a time."""
MANIFEST = "_manifest"
COLUMNS = pa.schema(
    [(name, pa.string()) for name in ("input", "output", "checksum")]
    + [("time", pa.timestamp("us", "UTC")), ("error", pa.string()), ("notes", pa.list_(pa.string()))]
)
"""Of the manifest: a row for each image. `output` is relative to --out; `checksum` is the SHA-256 of the result;
`error` says why there is none."""


def retried(action: Callable[[], T]) -> T:
    """Storage over a network fails now and then: try again, a little later each time."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except OSError as error:
            lasting = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError)
            if attempt == ATTEMPTS or lasting or DENIED.search(str(error)):
                raise
            time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1))
    raise AssertionError("the last attempt returns or raises")


@cache
def opened(address: str) -> tuple[arrow.FileSystem, str]:
    """The file system of an address, and the path in it. Raises OSError, or BadInput for an unknown scheme."""
    parts = urlsplit(address)
    if "://" not in address:
        return arrow.LocalFileSystem(), os.path.abspath(address)
    if parts.scheme == "s3":
        options: dict[str, Any] = dict(parse_qsl(parts.query))
        retries = arrow.AwsStandardS3RetryStrategy(max_attempts=3)
        return arrow.S3FileSystem(retry_strategy=retries, allow_delayed_open=True, **options), (
            parts.netloc + parts.path
        ).rstrip("/")
    try:
        files, path = arrow.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, NotImplementedError):
        try:
            from fsspec.core import url_to_fs

            inner, path = url_to_fs(address)
        except (ImportError, ValueError) as wrong:
            raise BadInput(f"{address}: {wrong}") from None
        files = arrow.PyFileSystem(arrow.FSSpecHandler(inner))
    return files, str(path).rstrip("/")


@dataclass(frozen=True)
class Place:
    """A folder, a bucket's prefix, or a file."""

    address: str
    by_name: bool = False
    """Are these the files of a list, which may lie anywhere? Results then have their names alone."""

    @staticmethod
    def of(given: str | Path) -> "Place":
        """What a person gave; `Path` has made one slash of two. Where S3 is, if not at Amazon's, is kept in the
        address, so that workers need not be told."""
        if not SCHEME.match(str(given)):
            return Place(os.path.abspath(given))
        try:
            parts = urlsplit(SCHEME.sub(r"\1://", str(given)))
        except ValueError as wrong:
            raise BadInput(f"{given}: no address ({wrong})") from None
        options = dict(parse_qsl(parts.query))
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if parts.scheme == "s3" and endpoint and "endpoint_override" not in options:
            scheme, _, host = endpoint.rpartition("://")
            options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
        if parts.scheme == "s3" and "region" not in options:
            options["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            if "endpoint_override" not in options:
                options["region"] = retried(lambda: arrow.resolve_s3_region(parts.netloc))
        query = f"?{urlencode(options)}" if options else ""
        return Place(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{query}")

    def __str__(self) -> str:
        return self.address.partition("?")[0] if "://" in self.address else self.address

    @property
    def is_local(self) -> bool:
        return "://" not in self.address

    def file(self, name: str) -> str:
        """The address of a file there, as it is told and noted."""
        return f"{str(self).rstrip('/')}/{name}"

    def result(self, name: str) -> str:
        """Where the result of a file belongs in an output: its tree is kept."""
        return PurePosixPath(name).name if self.by_name else name

    def path(self, name: str) -> str:
        root = opened(self.address)[1]
        return f"{root}/{name}" if name else root

    def read(self, name: str) -> bytes:
        def once() -> bytes:
            with opened(self.address)[0].open_input_file(self.path(name)) as file:
                return bytes(file.read())

        return retried(once)

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all: object storage knows no other way, folders get it by a temporary name."""
        if self.is_local:
            return write_bytes(Path(self.path(name)), data)
        files, path = opened(self.address)
        if not isinstance(files, arrow.S3FileSystem):
            retried(lambda: files.create_dir(os.path.dirname(path + "/" + name)))

        def once() -> None:
            with files.open_output_stream(self.path(name)) as file:
                file.write(data)

        retried(once)

    def remove(self, name: str) -> None:
        retried(lambda: opened(self.address)[0].delete_file(self.path(name)))

    def names(self, below: str = "") -> list[str]:
        """The files below a folder, relative to it, sorted; none where there is no such folder. Raises OSError."""
        files, _ = opened(self.address)
        root = self.path(below)
        selector = arrow.FileSelector(root, allow_not_found=True, recursive=True)
        infos = retried(lambda: files.get_file_info(selector))
        return sorted(os.path.relpath(info.path, root) for info in infos if info.type == arrow.FileType.File)


def denied(error: Exception) -> str:
    """What is wrong, of an OSError without the library's own sources."""
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    return " ".join(re.sub(r"\(?(\S+\.(cc|h):\d+|Detail:).*", "", reason, flags=re.DOTALL).split())[:300]


def find_images(given: str) -> tuple[Place, Found]:
    """Images and containers that an input means, by names relative to its place. Raises BadInput."""
    kinds = PICTURES | CONTAINERS
    if not SCHEME.match(given):
        found = find(given, kinds)
        root = Path(os.path.abspath(found.root or "/"))
        paths = [Path(os.path.abspath(path)).relative_to(root) for path in found.paths]
        below = None if found.root is None else Path()
        return Place(str(root), by_name=found.root is None), Found(given, paths, below, found.left_out)
    try:
        place = Place.of(given)
        names = [PurePosixPath(name) for name in place.names()]
        if not names and PurePosixPath(str(place)).suffix.lower() in kinds:  # a file by itself
            name = PurePosixPath(place.path("")).name
            parts = urlsplit(place.address)
            place = Place(parts._replace(path=os.path.dirname(parts.path)).geturl())
            names = [PurePosixPath(name)] if name in place.names() else []
    except (OSError, pa.ArrowException) as error:
        reason = denied(error)
        raise BadInput(f"{given}: cannot be listed ({reason}): see that it is there, and who may read it") from None
    seen = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    paths = [Path(name) for name in seen if name.suffix.lower() in kinds]
    others = Counter(name.suffix.lower() for name in seen if name.suffix.lower() not in kinds)
    if not paths:
        raise BadInput(f"{given}: no images there ({len(names)} files in all): see the spelling of bucket and prefix")
    return place, Found(given, paths, Path(), others)


def held(place: Place, name: str) -> Iterator[tuple[str, bytes | None]]:
    """The images of a container: name and bytes (None: another kind of file). Raises BadInput."""
    data = io.BytesIO(place.read(name))
    try:
        if name.lower().endswith(".tar"):
            with tarfile.open(fileobj=data, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        is_image = PurePosixPath(member.name).suffix.lower() in PICTURES
                        yield member.name, tar.extractfile(member).read() if is_image else None  # type: ignore[union-attr]
            return
        file = parquet.ParquetFile(data)
        columns = file.schema_arrow.names
        images = next((column for column in BYTES if column in columns), None)
        if images is None:
            raise BadInput(f"{name}: no column of images ({', '.join(BYTES)}) among {', '.join(columns)}")
        names = next((column for column in NAMES if column in columns), None)
        parts = file.iter_batches(ROW_GROUP, columns=[images] + [names] * (names is not None))
        for number, row in enumerate(row for part in parts for row in part.to_pylist()):
            value: Any = row[images]
            own: Any = row[names] if names else None
            if isinstance(value, dict):  # as Hugging Face's datasets keep them
                value, own = value.get("bytes"), own or value.get("path")
                if value is None and own:
                    raise BadInput(f"{name}: column {images} holds paths ({own}), not the images themselves: "
                                   "translate the folder where they are")  # fmt: skip
            if not isinstance(value, bytes | None):
                raise BadInput(f"{name}: column {images} holds {type(value).__name__}, not bytes")
            yield str(own or f"{number:08d}"), value or b""
    except (tarfile.TarError, pa.ArrowException, EOFError) as error:
        raise BadInput(f"{name}: broken ({error})") from None


def packed(results: list[tuple[str, bytes]], kind: str) -> bytes:
    """Images in one file: Parquet with the columns name and image, or WebDataset's tar."""
    out = io.BytesIO()
    if kind == "parquet":
        names, images = zip(*results, strict=True)
        table = pa.table({"name": pa.array(names, pa.string()), "image": pa.array(images, pa.binary())})
        parquet.write_table(table, out, compression="none")
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, image in results:
            member = tarfile.TarInfo(name)
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    return out.getvalue()


def row(input: str, output: str, data: bytes | None, error: str | None, notes: Iterable[str]) -> dict[str, Any]:
    """Of the manifest."""
    checksum = None if data is None else hashlib.sha256(data).hexdigest()
    return {"input": input, "output": output, "checksum": checksum, "time": datetime.now(UTC), "error": error,
            "notes": list(notes)}  # fmt: skip


def part_name(inputs: Iterable[str]) -> str:
    """The same images make the same part: what is done twice, because a machine was lost, replaces itself."""
    return hashlib.sha256("\n".join(inputs).encode("utf-8", "surrogateescape")).hexdigest()[:24]


def as_parquet(rows: list[dict[str, Any]]) -> tuple[pa.Table, bytes]:
    table = pa.Table.from_pylist(rows, COLUMNS)
    out = io.BytesIO()
    parquet.write_table(table, out)
    return table, out.getvalue()


def read_manifest(out: Place) -> Iterator[tuple[str, pa.Table]]:
    """The parts of the manifest: name and rows. Raises BadInput for one that cannot be read."""
    for name in out.names(MANIFEST):
        if name.endswith(".parquet"):
            try:
                yield name, parquet.read_table(io.BytesIO(out.read(f"{MANIFEST}/{name}")), schema=COLUMNS)
            except (OSError, pa.ArrowException) as error:
                raise BadInput(f"{out}/{MANIFEST}/{name}: cannot be read ({error}); remove it, and its images "
                               "are done again") from None  # fmt: skip
