"""Which files a name means: folders, links, globs, lists; what is left out is counted."""

import os

import pytest

from viceversa.data.folders import find, find_sources, lies_inside, remarks
from viceversa.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    for name in ("b.JPG", "a.png", "deep/c.webp", ".hidden.png", ".cache/x.png", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_find_folders_globs_images_and_lists(folder, monkeypatch):
    assert names(find(folder).paths, folder) == ["a.png", "b.JPG", "deep/c.webp"]
    assert names(find(f"{folder}/*").paths, folder) == ["a.png", "b.JPG"]
    assert names(find(f"{folder}/**/*.webp").paths, folder) == ["deep/c.webp"]
    assert names(find(folder / "a.png").paths, folder) == ["a.png"]
    (folder / "list.txt").write_text("# two\ndeep/c.webp\n\na.png\n")
    assert names(find(folder / "list.txt").paths, folder) == ["deep/c.webp", "a.png"]
    (folder / "#00.png").touch()
    (folder / "list.txt").write_text("#00.png\n#01.png\n# a.png\na.png\n")
    assert names(find(folder / "list.txt").paths, folder) == ["#00.png", "a.png"]
    odd = folder / "odd [1]"
    odd.mkdir()
    (odd / "d.png").write_bytes(b"")
    assert names(find(str(odd)).paths, odd) == ["d.png"]


def test_find_follows_links_and_ends(folder):
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "elsewhere").symlink_to(folder.parent / "other")
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "e.png").write_bytes(b"")
    assert names(find(folder).paths, folder) == ["a.png", "b.JPG", "deep/c.webp", "elsewhere/e.png"]


def test_find_says_why_there_are_none(folder):
    (folder / "empty").mkdir()
    (folder / "text").mkdir()
    (folder / "text" / "x.txt").write_text("")
    (folder / "list.txt").write_text("missing.png\n")
    (folder / "binary.dat").write_bytes(b"\xff\xfe\x80\0")
    for source, why in {
        "gone": "no such file or folder",
        "empty": "an empty folder",
        "text": "no images in this folder .*jpg",
        "*.gif": "no images match",
        "notes.txt": "no paths in this text file",
        "list.txt": r"lists .*missing\.png, which is no file",
        "binary.dat": "neither an image",
    }.items():
        with pytest.raises(BadInput, match=why) as told:
            find(folder / source)
        assert "\n" not in str(told.value)


def test_endings_are_listed_where_they_matter(tmp_path):
    with pytest.raises(BadInput, match=r"no such file or folder$"):
        find(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"no images match \(endings that are read: "):
        find(f"{tmp_path}/*.gif")


def test_what_is_left_out_is_counted(tmp_path):
    for n in range(49):
        (tmp_path / f"IMG_{n}.HEIX").touch()
    for name in ("a.png", "b.txt", "noending", ".hidden", ".DS_Store"):
        (tmp_path / name).touch()
    found = find(tmp_path)
    assert len(found.paths) == 1 and found.left_out == {".heix": 49, ".txt": 1, "": 1}
    assert remarks(found) == [f"{tmp_path}: files of other kinds are left out: 49 .heix, 1 without an ending, 1 .txt"]
    assert remarks(find(tmp_path / "a.png")) == []
    assert find(f"{tmp_path}/*").left_out == found.left_out
    for n in range(9):
        (tmp_path / f"x.{n}").touch()
    assert remarks(find(tmp_path))[0].endswith("49 .heix, 1 without an ending, 1 .0, 1 .1, 1 .2, 7 others")
    for name in (".b.jpg", ".c.png", "._a.png"):
        (tmp_path / name).touch()
    assert find(tmp_path).left_out["hidden pictures"] == 2
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=r"no images in this folder but 49 \.heix"):
        find(tmp_path)


def test_pictures_in_folders_of_labels_are_told_and_not_those_of_a_domain_of_labels(tmp_path):
    for name in ("set/images/a.png", "set/Masks/a.png", "set/deep/labels/x/b.png", "set/masks.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (line,) = remarks(find(tmp_path / "set"))
    assert "2 pictures that lie in folders of labels (Masks, labels) are taken for images like the others" in line
    assert remarks(find(tmp_path / "set/Masks")) == []  # labels to photos is a task of its own
    (tmp_path / "other").mkdir()
    (tmp_path / "other/c.png").write_bytes(b"c")
    assert line in find_sources(str(tmp_path / "set"), str(tmp_path / "other")).warnings


def test_links(folder):
    """Each real folder once, under its own name; a link whose file is gone is told of by who reads it."""
    (folder / "aa").symlink_to(folder / "deep")
    (folder / "gone.png").symlink_to("/nonexistent/x.png")
    expected = ["a.png", "b.JPG", "deep/c.webp", "gone.png"]
    assert names(find(folder).paths, folder) == names(find(f"{folder}/**").paths, folder) == expected
    links = folder.parent / "links"
    links.mkdir()
    (links / "cam1").symlink_to(folder)
    assert names(find(links).paths, links) == [f"cam1/{name}" for name in expected]
    (folder / "deep" / "up").symlink_to(folder)
    assert names(find(f"{folder}/**").paths, folder) == expected


def test_places_in_an_output_folder(folder):
    (folder.parent / "list.txt").write_text("photos/deep/c.webp\n")
    for source, place in {"photos": "deep/c.webp", "photos/*/*": "deep/c.webp", "list.txt": "c.webp",
                          "photos/deep/c.webp": "c.webp"}.items():  # fmt: skip
        found = find(folder.parent / source)
        assert found.place(found.paths[-1]).as_posix() == place


def test_other_kinds_may_be_asked_for(folder):
    (folder / "film.mp4").touch()
    assert names(find(folder, {".mp4"}).paths, folder) == ["film.mp4"]


def test_a_folder_that_cannot_be_read_is_said(folder, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # as root, chmod stops nothing
    assert "folder that cannot be read" in remarks(find(folder))[0]


def test_what_translate_wrote_beside_pictures_is_no_picture_of_its_own(folder):
    for name in ("a.compare.png", "a.round-trip.jpg", "alone.compare.png"):
        (folder / name).touch()
    found = find(folder)
    assert "a.png" in names(found.paths, folder) and "alone.compare.png" in names(found.paths, folder)
    assert not {"a.compare.png", "a.round-trip.jpg"} & set(names(found.paths, folder))
    assert "2 pictures that --compare or --round-trip wrote" in remarks(found)[0]
    assert find(folder / "a.compare.png").paths == [folder / "a.compare.png"]  # who names it means it


def test_inside(folder):
    run = folder / "runs" / "x"
    (folder.parent / "link").symlink_to(folder)
    assert lies_inside(run, folder) and lies_inside(run, f"{folder}/**/*.png") and lies_inside(run, folder / ".")
    assert lies_inside(folder.parent / "link" / "run", folder) and lies_inside(folder, folder)
    assert not lies_inside(folder.parent / "run", folder) and not lies_inside(run, folder / "a.png")
    assert not lies_inside(run, folder / "deep") and not lies_inside(folder.parent / "photos2", folder)
    # A glob without ** goes no deeper than it is written.
    assert not lies_inside(folder / "translated", f"{folder}/*.png") and lies_inside(folder, f"{folder}/*.png")
    assert lies_inside(folder / "runs", f"{folder}/*/*.png") and not lies_inside(run, f"{folder}/*/*.png")
    assert not lies_inside(folder / "runs", f"{folder}/d*/*.png") and lies_inside(run, f"{folder}/**")
    (folder / "b[1].png").touch()
    assert not lies_inside(folder / "x", folder / "b[1].png")


def test_names_in_any_bytes_and_of_any_length(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    name = os.fsdecode("夜".encode("gbk") + b".png")
    (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(os.fsencode(name) + b"\n")
    assert find(tmp_path).paths == find(tmp_path / "list.txt").paths == [tmp_path / name]
    with pytest.raises(BadInput, match="no such file"):
        find("x" * 300)
    with pytest.raises(BadInput, match="no such folder"):
        find_sources("x" * 300)
    with pytest.raises(BadInput, match="no images match"):
        find("*" * 300)
    with pytest.raises(BadInput, match="no such file"):
        find("a\0b")


def test_a_large_file_of_another_kind_is_refused_before_it_is_read(tmp_path, monkeypatch):
    archive = tmp_path / "photos.zip"
    with open(archive, "wb") as file:
        file.write(b"PK\3\4\0\0")
        file.truncate(10**12)  # a hole, as large as no memory
    with pytest.raises(BadInput, match="neither an image by its ending"):
        find(archive)
    (tmp_path / "list.txt").write_text("a.png\tcat\n")
    with pytest.raises(BadInput, match=r"lists .*a\.png\tcat, which is no file"):
        find(tmp_path / "list.txt")
