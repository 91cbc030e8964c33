"""The authors' public sets by name: `viceversa data fetch horse2zebra`.

Sizes, checksums and counts are those of TensorFlow Datasets (cycle_gan 2.0.0), which fetched the same files;
terms in the authors' own words (docs/datasets.md of pytorch-CycleGAN-and-pix2pix). No host could be asked
when this list was written (2026-11): `viceversa data fetch` says what it meets.
"""

import shutil
import stat
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..config import Fetch
from ..errors import BadInput, Failed, suggestion
from .download import Download, need_room, retrieve

HOST = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets"
PICTURES = (".jpg", ".jpeg", ".png")
FOLDERS = ("trainA", "trainB", "testA", "testB")
RESEARCH = "no licence is given; the authors ask to cite the paper (Zhu et al., ICCV 2017)"
FLICKR = f"photos found through Flickr, each its photographer's; {RESEARCH}"
IMAGENET = f"photos of ImageNet, for research and teaching only, each its photographer's; {RESEARCH}"
WIKIART = f"paintings from WikiArt, photos found through Flickr, each its photographer's; {RESEARCH}"


@dataclass(frozen=True)
class Public:
    """A set that others published: what it shows, on which terms, and where its zip lies."""

    names: tuple[str, str]
    images: tuple[int, int, int, int]
    """In trainA, trainB, testA, testB; zeros where nobody wrote them down."""
    terms: str
    size: int
    """Bytes of the zip; 0: not known."""
    sha256: str
    recipe: str
    mirrors: tuple[str, ...] = ()
    withdrawn: str = ""
    """Why its host no longer has it, and what to do."""


SETS = {
    "apple2orange": Public(
        ("apple", "orange"), (995, 1019, 266, 248), IMAGENET,
        78456409, "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8", "apple2orange",
    ),
    "summer2winter_yosemite": Public(
        ("summer", "winter"), (1231, 962, 309, 238), FLICKR,
        132640856, "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9", "season",
    ),
    "horse2zebra": Public(
        ("horse", "zebra"), (1067, 1334, 120, 140), IMAGENET,
        116867962, "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1", "horse2zebra",
        ("https://huggingface.co/datasets/kerls/cyclegan-horse2zebra/resolve/main/horse2zebra.zip",),
    ),
    "monet2photo": Public(
        ("monet", "photo"), (1072, 6287, 121, 751), WIKIART,
        305231073, "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04", "painting",
    ),
    "cezanne2photo": Public(
        ("cezanne", "photo"), (525, 6287, 58, 751), WIKIART,
        279885071, "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff", "painting",
    ),
    "ukiyoe2photo": Public(
        ("ukiyoe", "photo"), (562, 6287, 263, 751), WIKIART,
        292946532, "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08", "painting",
    ),
    "vangogh2photo": Public(
        ("vangogh", "photo"), (400, 6287, 400, 751), WIKIART,
        306590349, "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff", "painting",
    ),
    "maps": Public(
        ("satellite", "map"), (1096, 1096, 1098, 1098),
        f"aerial photos and maps taken from Google Maps, whose terms hold; {RESEARCH}",
        1476754427, "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e", "map",
    ),
    "cityscapes": Public(
        ("photo", "labels"), (2975, 2975, 500, 500),
        "Cityscapes: research and teaching only, after registration at https://www.cityscapes-dataset.com",
        279601602, "d2f6910fd056c1ee9873777ae838e7ac4a2c833598ae62a04188e5ab2f4ea036", "map",
        withdrawn="the authors no longer pass it on: register at https://www.cityscapes-dataset.com, fetch "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and give two folders to viceversa train",
    ),
    "facades": Public(
        ("photo", "labels"), (400, 400, 106, 106),
        f"CMP Facade Database (Tylecek and Sara, 2013), to be cited; {RESEARCH}",
        35135868, "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0", "map",
    ),
    "iphone2dslr_flower": Public(
        ("phone", "dslr"), (1812, 3325, 569, 480), FLICKR,
        339964458, "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113", "dslr",
    ),
    "ae_photos": Public(
        ("a", "b"), (0, 0, 0, 0), f"origin not written down; {RESEARCH}",
        0, "", "painting",
    ),
}  # fmt: skip


def command_fetch(command: Fetch) -> int:
    if command.name is None:
        show()
    else:
        fetch_set(command.name, command.out, command.mirror)
    return 0


def show() -> None:
    """The list: what there is, how large, and what it is for."""
    for name, public in SETS.items():
        counts = " + ".join(f"{n:,}" for n in public.images[:2]) if any(public.images) else "not counted"
        size = f"{public.size / 1e6:,.0f} MB" if public.size else "size not known"
        a, b = public.names
        gone = "  (not passed on any more)" if public.withdrawn else ""
        print(f"{name:24}{f'{a} <-> {b}':22}{counts:>15}  {size:>14}  --recipe {public.recipe}{gone}")
    print("Sizes, counts and checksums as others wrote them down; no host was reached when this list was written.")


def fetch_set(name: str, out: Path | None = None, mirror: str | None = None) -> Path:
    """The folder of a public set: downloaded, checked, unpacked; whole or absent.

    A zip that lies beside the folder already (OUT.zip) is used, and left where it is. Raises BadInput for an unknown
    name, a folder that holds something else, a set that is not passed on, and Failed where no host gives it.
    """
    public = SETS.get(name)
    if public is None:
        hint = suggestion(name, SETS, f"there are {', '.join(SETS)}", count=3, cutoff=0.4)
        folder = "; a folder of that name is ./fetch" if Path("fetch").is_dir() else ""
        raise BadInput(f"no public set {name!r}: {hint}{folder}")
    out = Path("data") / name if out is None else out
    if not out.name:
        raise BadInput(f"--out {out}: name a folder to make")
    archive = out.with_name(f"{out.name}.zip")
    given = archive.exists()
    if out.exists():
        if not any((out / folder).is_dir() for folder in FOLDERS):
            raise BadInput(f"{out} exists and is not {name} (no trainA in it): give another --out")
        print(f"{out} is there already")
        return out
    a, b = public.names
    print(f"{name}: {a} <-> {b}. Terms: {public.terms}.")
    if public.withdrawn and not mirror and not given:
        raise BadInput(f"{name}: {public.withdrawn}; or put a copy at {archive}")
    if not public.sha256:
        print("No checksum of it is known: what arrives is taken as it is, if it is a whole zip.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f"{archive.name}.partial")
    there = archive.stat().st_size if given else partial.stat().st_size if partial.exists() else 0
    need_room(out, 2 * public.size - there)  # the zip, and as much again unpacked: photos hardly compress
    first, *others = [f"{host.rstrip('/')}/{name}.zip" for host in (mirror, HOST) if host]
    try:
        retrieve(Download(first, public.sha256, (*others, *public.mirrors)), archive)
    except Failed as failed:
        raise Failed(f"{failed}. Run it again to go on; or --mirror URL; or put {name}.zip at {archive}") from None
    counts = unpack(archive, out, given)
    if given:
        print(f"{archive} is left where it was; nothing here needs it any more")
    else:
        archive.unlink()
    print(f"{out}: {', '.join(f'{count:,} in {folder}' for folder, count in counts.items())}")
    if any(public.images) and tuple(counts.get(folder, 0) for folder in FOLDERS) != public.images:
        print(f"{name} was known with {', '.join(map(str, public.images))}: this is another edition of it")
    if {"trainA", "trainB"} <= set(counts):
        print(f"viceversa train {out} --names {a} {b} --recipe {public.recipe}")
    else:
        print("It has no trainA and trainB: choose two of its folders for viceversa train")
    return out


def unpack(archive: Path, out: Path, given: bool = False) -> Counter[str]:
    """The pictures in a zip, into `out`, whole or not at all; how many in each folder.

    Nothing else is taken out, and nothing is written beside `out`, whatever paths the zip names. Raises Failed where
    it is broken or holds no pictures, and removes it, if it was not `given`.
    """
    fresh = out.with_name(f".{out.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
    try:
        with zipfile.ZipFile(archive) as packed:
            wanted = {member: place for member in packed.infolist() if (place := picture(member)) is not None}
            tops = {place.parts[0] for place in wanted.values()}
            inside = 1 if len(tops) == 1 and not tops & set(FOLDERS) else 0  # the folder that all is packed in
            need_room(out, sum(member.file_size for member in wanted))
            counts: Counter[str] = Counter()
            for member, place in wanted.items():
                target = fresh.joinpath(*place.parts[inside:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)  # compares the length and the checksum of each member
                counts[str(target.parent.relative_to(fresh))] += 1
        if not counts:
            raise zipfile.BadZipFile("no pictures in it")
        fresh.replace(out)
        return counts
    except (zipfile.BadZipFile, zlib.error, FileExistsError, EOFError, NotImplementedError, RuntimeError) as error:
        if given:
            raise Failed(f"{archive} is no whole zip of pictures ({error}): take it away, or mend it") from None
        archive.unlink()
        raise Failed(f"{archive} is no whole zip of pictures ({error}), removed: fetch it again") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def picture(member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a picture lies in its zip; None for all that is not one: links, hidden files, paths that lead out."""
    place = PurePosixPath(member.filename.replace("\\", "/"))
    if place.suffix.lower() not in PICTURES or stat.S_ISLNK(member.external_attr >> 16):
        return None
    if any(part.startswith((".", "/", "__MACOSX")) or ":" in part for part in place.parts):
        return None
    return place
