"""The images of a run: which they are, that they are the same as before and everywhere, and decoded."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .. import distributed
from ..config import Train
from ..data.folders import LOOKED_AT, Sources, pieces_of, spread
from ..data.statistics import COLOURFUL
from ..data.store import Store
from ..errors import BadInput
from ..terminal import Say, progress_bar, words

Known = tuple[str, int, str]
"""A picture as it is known again: its file's name and size, and a digest of pieces of it where others are as large."""


def listing(sources: Sources) -> dict[str, list[Known]]:
    """The images of each kind, in order, as they are known again wherever they are moved."""
    return {kind: known(getattr(sources, kind)) for kind in ("a", "b", "test_a", "test_b")}


def known(paths: list[Path]) -> list[Known]:
    """Sizes tell nothing where all are alike (BMP): of such files, LOOKED_AT at most, some pieces are read."""
    sizes = {path: size_of(path) for path in paths}
    often = Counter(sizes.values())
    alike = spread([path for path, size in sizes.items() if often[size] > 1 and size > 0], LOOKED_AT)
    digests = {path: hashlib.sha256(pieces_of(path, sizes[path])).hexdigest()[:16] for path in alike}
    return [(path.name, sizes[path], digests.get(path, "")) for path in paths]


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link whose file is gone: one of the broken
        return -1


def compare_images(s: Train, now: dict[str, list[Known]], names: tuple[str, str]) -> bool:
    """Are the test images those that the run had? Raises BadInput where the others are not, but for --images
    changed.
    """
    try:
        told = json.loads((s.out / "images.json").read_text(encoding="utf-8"))
        then = {kind: [(str(name), int(size), "".join(digest)) for name, size, *digest in told[kind]] for kind in now}
    except (OSError, ValueError, KeyError, TypeError):
        return True  # a new run, or one begun by a viceversa that kept no such list
    differ = []
    for side, name in zip("ab", names, strict=True):
        if what := difference(then[side], now[side]):
            differ.append(f"{name}: {what}")
    if differ and s.images != "changed":
        raise BadInput(
            f"the images are not those that {s.out} began with ({'; '.join(differ)}): put them back, go on with these "
            "by --images changed, or name another --out"
        )
    return not any(difference(then[kind], now[kind]) for kind in ("test_a", "test_b"))


def difference(then: list[Known], now: list[Known]) -> str:
    """In words; none where they are the same. Older versions kept no digests."""
    before, after = ([picture[:2] for picture in pictures] for pictures in (then, now))
    if before == after:
        changed = sum(one[2] != other[2] for one, other in zip(then, now, strict=True) if one[2])
        return f"{changed} changed" if changed else ""
    new, missing = Counter(after) - Counter(before), Counter(before) - Counter(after)
    return f"{new.total()} new or changed, {missing.total()} missing" if new or missing else "in another order"


def same_everywhere(now: dict[str, list[Known]]) -> None:
    """Raise BadInput in all processes where they see other images: the first is named, not all are sent."""
    mine = [(side, picture) for side in "ab" for picture in now[side]]
    low, high = 0, max(distributed.everyone(len(mine)))
    if agree(mine):
        return
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if agree(mine[low:middle]) else (low, middle)
    first = distributed.everyone(mine[low] if low < len(mine) else None)
    other = next(rank for rank, image in enumerate(first) if image != first[0])
    raise BadInput(
        f"the processes see different images: first number {low + 1}, which for rank 0 is {image_words(first[0])}, for "
        f"rank {other} {image_words(first[other])}; start all with the same data at the same paths"
    )


def agree(images: list[tuple[str, Known]]) -> bool:
    digests = distributed.everyone(hashlib.sha256(repr(images).encode("utf-8", "surrogateescape")).hexdigest())
    return len(set(digests)) == 1


def image_words(image: tuple[str, Known] | None) -> str:
    if image is None:
        return "none"
    name, size, digest = image[1]
    return f"{name} ({size:,} bytes{digest and f', digest {digest}'})"


def load_images(s: Train, sources: Sources, device: torch.device, say: Say, silent: bool) -> tuple[Store, Store]:
    """Decode both domains; broken images are named, and left out."""
    stores = []
    for name, paths, channels in zip(sources.names, (sources.a, sources.b), s.channels, strict=True):
        with progress_bar(f"reading {name}", len(paths), silent=silent) as update:
            store = Store.load(
                paths, channels=channels, size=s.size, resize=s.resize, crop=s.crop, device=device, zoom=s.zoom,
                folder=s.out, on_progress=update,
            )  # fmt: skip
        for line in store.skipped[:10]:
            say(f"skipped: {line}")
        if store.skipped:
            say(f"{name}: {words(len(store.skipped), 'broken image')} left out")
        for line in store.notes:
            say(f"{name}: {line}")
        stores.append(store)
    distributed.must_agree("numbers of images", [len(store.paths) for store in stores])
    return stores[0], stores[1]


def image_counts(sources: Sources, counts: tuple[int, int]) -> str:
    """How many images of each domain are trained on, and how many are kept out."""
    kept = [f", {len(out)} kept out" if out else "" for out in sources.kept_out.values()]
    sides = zip(sources.names, counts, kept, strict=True)
    return " <-> ".join(f"{name} ({words(count, 'image')}{aside})" for name, count, aside in sides)


def colour_words(s: Train, sources: Sources, known: dict[str, Any]) -> list[str]:
    """Channels that hold no colours: said, since a recipe may have chosen them."""
    said = []
    for name, channels in zip(sources.names, s.channels, strict=True):
        if channels == 3 and name in known and known[name]["ranges"]["colour"][1] < COLOURFUL:
            said.append(f"all images of {name} are gray: --channels with 1 for it would learn them as such")
    return said
