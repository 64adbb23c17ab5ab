"""The files of a source folder: all of them, once, in the order of their names."""

import os
from pathlib import Path

import numpy as np
import pytest

from mmcoop.datasets.rejects import Unusable
from mmcoop.datasets.source_files import SourceFiles, differing_in_case, inside, names_in
from mmcoop.errors import DataError

NPY = ["array"]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(files: SourceFiles) -> list[str]:
    return [path.relative_to(files.folder).as_posix() for path in files.paths]


def test_the_files_of_a_folder_and_of_those_in_it_come_by_name(tmp_path):
    """Those of a folder before those of the folders in it."""
    touch(tmp_path, "b/2.npy", "b/10.npy", "z.npy", "a/c/x.npy", "a/d.npy", "a/b.npy", "Z.npy")
    found = names(SourceFiles(tmp_path, NPY))
    assert found == [
        "Z.npy", "z.npy", "a/b.npy", "a/d.npy", "a/c/x.npy", "b/10.npy", "b/2.npy",
    ]  # fmt: skip


def test_the_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    """Which may list a folder in any order: here it lists it backwards."""
    made = [f"{letter}/{k}.npy" for letter in "dbca" for k in (3, 1, 2)]
    touch(tmp_path, *made, "9.npy", "1.npy")
    (tmp_path / "link").symlink_to(tmp_path / "c")
    expected = names(SourceFiles(tmp_path, NPY))
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder):
            with scandir(folder) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def close(self):
            return None

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.entries)

    monkeypatch.setattr(os, "scandir", Backwards)
    assert names(SourceFiles(tmp_path, NPY)) == expected
    assert expected[:2] == ["1.npy", "9.npy"]


@pytest.mark.parametrize("ending", [".mp4", ".MP4", ".Mp4"])
def test_only_files_with_the_endings_count_whatever_their_case(tmp_path, ending):
    touch(tmp_path, f"a{ending}", "a.npy", "mp4", ".mp4", "b.mp4.part", "c.mp4x")
    assert names(SourceFiles(tmp_path, ["video"])) == [f"a{ending}"]


def test_files_with_other_endings_are_the_others(tmp_path):
    touch(tmp_path, "b.mp3", "a.npy", "c/d.wav", "c/e.npy", ".hidden.wav", "c/.f/g.wav", "none")
    files = SourceFiles(tmp_path, NPY)
    assert names(files) == ["a.npy", "c/e.npy"]
    assert files.others == [tmp_path / "b.mp3", tmp_path / "none", tmp_path / "c/d.wav"]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    touch(tmp_path, ".a.npy", "._b.npy", ".hidden/c.npy", "d/.e/f.npy", "d/g.npy")
    assert names(SourceFiles(tmp_path, NPY)) == ["d/g.npy"]


def test_a_folder_that_is_hidden_itself_can_be_the_source(tmp_path):
    touch(tmp_path, ".cache/a.npy")
    assert names(SourceFiles(tmp_path / ".cache", NPY)) == ["a.npy"]


def test_folders_and_pipes_that_are_named_like_files_are_passed_over(tmp_path):
    touch(tmp_path, "folder.npy/a.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    files = SourceFiles(tmp_path, NPY)
    assert names(files) == ["folder.npy/a.npy"]
    assert files.broken == []


def test_links_to_files_and_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/a.npy", "elsewhere/deep/b.npy", "source/c.npy")
    (tmp_path / "source" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "file.npy").symlink_to(tmp_path / "elsewhere" / "a.npy")
    assert names(SourceFiles(tmp_path / "source", NPY)) == [
        "c.npy",
        "file.npy",
        "folder/a.npy",
        "folder/deep/b.npy",
    ]
    (tmp_path / "all").symlink_to(tmp_path / "source")
    assert len(SourceFiles(tmp_path / "all", NPY).paths) == 4


def test_a_folder_that_several_links_lead_to_is_read_once_by_the_first_name(tmp_path):
    touch(tmp_path, "m/a.npy", "source/z.npy")
    for name in ("q", "k", "t"):
        (tmp_path / "source" / name).symlink_to(tmp_path / "m")
    assert names(SourceFiles(tmp_path / "source", NPY)) == ["z.npy", "k/a.npy"]


@pytest.mark.timeout(20)
def test_loops_of_links_end(tmp_path):
    touch(tmp_path, "a/b/c.npy", "d.npy")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "here").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "x.npy").symlink_to(tmp_path / "y.npy")
    (tmp_path / "y.npy").symlink_to(tmp_path / "x.npy")
    assert names(SourceFiles(tmp_path, NPY)) == ["d.npy", "a/b/c.npy"]


def test_links_that_lead_to_no_file_are_the_broken_ones(tmp_path):
    touch(tmp_path, "a.npy")
    (tmp_path / "gone.npy").symlink_to(tmp_path / "none.npy")
    (tmp_path / "ring.NPY").symlink_to(tmp_path / "ring.NPY")
    (tmp_path / "gone.mp3").symlink_to(tmp_path / "none.npy")
    (tmp_path / "folder").symlink_to(tmp_path / "none")
    files = SourceFiles(tmp_path, NPY)
    assert names(files) == ["a.npy"]
    assert files.others == []
    assert files.broken == [tmp_path / "gone.npy", tmp_path / "ring.NPY"]


def test_files_are_found_by_the_stem_of_their_name(tmp_path):
    touch(tmp_path, "a/x.npy", "b/x.npy", "y.tar.npy", "z.npy")
    files = SourceFiles(tmp_path, NPY)
    assert files.by_stem["x"] == [tmp_path / "a/x.npy", tmp_path / "b/x.npy"]
    assert files.by_stem["y.tar"] == [tmp_path / "y.tar.npy"]
    assert list(files.by_stem) == ["y.tar", "z", "x"]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([], "nothing"),
        (["b.npy"], "b.npy"),
        (["c.npy", "a.npy", "b.npy"], "a.npy, b.npy, c.npy"),
        (["c.npy", "a.npy", "d/e.npy", "b.npy"], "a.npy, b.npy, c.npy, …"),
        (["d/e.npy"], f"d{os.sep}e.npy"),
        # none with the ending: what there is
        (["c.mp4", "a.pdf"], "a.pdf, c.mp4; endings of its files: .pdf (1), .mp4 (1)"),
        (["b/c.PDF", "b/d.pdf", "e"], "b, e; endings of its files: .pdf (2), none (1)"),
    ],
)
def test_some_names_say_what_the_folder_has(tmp_path, made, text):
    assert SourceFiles(touch(tmp_path, *made), NPY).some_names() == text


def test_as_many_names_are_said_as_are_asked_for(tmp_path):
    files = SourceFiles(touch(tmp_path, "a.npy", "b.npy", "c.npy"), NPY)
    assert files.some_names(1) == "a.npy, …"
    assert files.some_names(2) == "a.npy, b.npy, …"


def test_where_no_ending_tells_the_content_does(tmp_path):
    for name in ("one", "no. 2", "a.b/three.raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            np.save(file, np.zeros(3))
    touch(tmp_path, "text", "d.mp3")
    files = SourceFiles(tmp_path, NPY)
    assert names(files) == ["no. 2", "one", "a.b/three.raw"]
    assert sorted(files.by_stem) == ["no. 2", "one", "three"]
    assert files.others == [tmp_path / "d.mp3", tmp_path / "text"]
    # one that has the ending is enough to trust endings
    np.save(tmp_path / "named.npy", np.zeros(3))
    assert names(SourceFiles(tmp_path, NPY)) == ["named.npy"]


def test_a_file_may_have_to_be_of_several_kinds(tmp_path):
    touch(tmp_path, "a.gif", "b.png", "c.mp4", "d.wav")
    assert names(SourceFiles(tmp_path, ["video", "sound"])) == ["a.gif", "c.mp4", "d.wav"]
    assert names(SourceFiles(tmp_path, ["video", "sound"], ["picture"])) == ["a.gif"]
    assert SourceFiles(tmp_path, ["array"], ["picture"]).paths == []


@pytest.mark.parametrize("name", ["none", "file.npy", "pipe"])
def test_what_is_not_a_folder_is_refused(tmp_path, name):
    touch(tmp_path, "file.npy")
    os.mkfifo(tmp_path / "pipe")
    message = f"source {tmp_path / name} is not a folder: give the folder of the clips"
    for look in (lambda folder: SourceFiles(folder, NPY), names_in):
        with pytest.raises(DataError, match=message):
            look(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.mp4", "a.mp4"),
        ("a/b.mp4", "a/b.mp4"),
        ("./a/./b.mp4", "a/b.mp4"),
        ("a//b.mp4", "a/b.mp4"),
        ("a\\b.mp4", "a/b.mp4"),  # written on Windows
        ("a/b:c.mp4", "a/b:c.mp4"),
        ("a/..b.mp4", "a/..b.mp4"),
        ("...mp4", "...mp4"),
        ("~/a.mp4", "~/a.mp4"),
        ("$HOME/a.mp4", "$HOME/a.mp4"),
        (" a .mp4", " a .mp4"),
    ],
)
def test_a_name_inside_the_folder_is_a_path_in_it(name, path):
    assert inside(Path("/clips"), name) == Path("/clips") / path


def test_a_whole_path_that_leads_into_the_folder_is_a_path_in_it(tmp_path, monkeypatch):
    touch(tmp_path, "clips/a/b.mp4", "disk/c.mp4")
    (tmp_path / "alias").symlink_to(tmp_path / "clips")
    (tmp_path / "clips" / "c.mp4").symlink_to(tmp_path / "disk" / "c.mp4")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "clips", tmp_path / "alias", Path("clips"), Path("disk/../clips")):
        for name in (
            "clips/a/b.mp4",
            "alias/a/b.mp4",
            "clips/a/../a/b.mp4",
            "disk/../clips/a/b.mp4",
        ):
            assert inside(folder, str(tmp_path / name)) == folder / "a/b.mp4"
        assert inside(folder, str(tmp_path / "clips" / "none.mp4")) == folder / "none.mp4"
        for name in ("disk/c.mp4", "clips/../disk/c.mp4", "clips", "clipsa/b.mp4", "", "a\0b.mp4"):
            with pytest.raises(Unusable, match="paths are relative to it$"):
                inside(folder, str(tmp_path / name))
    assert inside(tmp_path / "clips", str(tmp_path / "clips/c.mp4")) == tmp_path / "clips/c.mp4"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "./",
        "..",
        "../a.mp4",
        "a/../../b.mp4",
        "a/../b.mp4",
        "a/..",
        "/etc/passwd",
        "//server/share/a.mp4",
        "\\\\server\\share\\a.mp4",
        "\\a.mp4",
        "..\\a.mp4",
        "a\\..\\..\\b.mp4",
        "C:\\a.mp4",
        "C:/a.mp4",
        "c:a.mp4",
        "C:",
        "http://example.org/a.mp4",
        "file:///etc/passwd",
        "concat:a.mp4|b.mp4",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(Unusable, match="is not a path inside the source folder") as caught:
        inside(Path("/clips"), name)
    assert repr(name) in str(caught.value)
    assert caught.value.reason == "outside-folder"


def test_names_that_differ_in_case_alone_are_found(tmp_path):
    """Folders and files, with accents written either way; not what is there as it is asked for."""
    touch(tmp_path, "Clips/A.MP4", "Clips/b.mp4", "caf\u00e9/Caf\u00e9.wav")
    asked = [
        "clips/a.mp4",
        "Clips/b.mp4",
        "Clips/c.mp4",
        "CAFE\u0301/cafe\u0301.WAV",
        "clips\\A.mp4",
    ]
    assert differing_in_case(tmp_path, asked) == {
        "clips/a.mp4": "Clips/A.MP4",
        "CAFE\u0301/cafe\u0301.WAV": "caf\u00e9/Caf\u00e9.wav",
        "clips\\A.mp4": "Clips/A.MP4",
    }
