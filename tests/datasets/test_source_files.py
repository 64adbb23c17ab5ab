"""The files of a source folder: all of them, once, in the order of their names."""

import os
from pathlib import Path

import pytest

from mmcoop.datasets.rejects import Unusable
from mmcoop.datasets.source_files import (
    PICTURE_FILES,
    SOUND_FILES,
    VIDEO_FILES,
    SourceFiles,
    inside,
)
from mmcoop.errors import DataError

TXT = frozenset([".txt"])


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(files: SourceFiles) -> list[str]:
    return [path.relative_to(files.folder).as_posix() for path in files.paths]


def test_the_files_of_a_folder_and_of_those_in_it_come_by_name(tmp_path):
    """Those of a folder before those of the folders in it."""
    touch(tmp_path, "b/2.txt", "b/10.txt", "z.txt", "a/c/x.txt", "a/d.txt", "a/b.txt", "Z.txt")
    found = names(SourceFiles(tmp_path, TXT))
    assert found == [
        "Z.txt", "z.txt", "a/b.txt", "a/d.txt", "a/c/x.txt", "b/10.txt", "b/2.txt",
    ]  # fmt: skip


def test_the_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    """Which may list a folder in any order: here it lists it backwards."""
    made = [f"{letter}/{k}.txt" for letter in "dbca" for k in (3, 1, 2)]
    touch(tmp_path, *made, "9.txt", "1.txt")
    (tmp_path / "link").symlink_to(tmp_path / "c")
    expected = names(SourceFiles(tmp_path, TXT))
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
    assert names(SourceFiles(tmp_path, TXT)) == expected
    assert expected[:2] == ["1.txt", "9.txt"]


@pytest.mark.parametrize("ending", [".mp4", ".MP4", ".Mp4"])
def test_only_files_with_the_endings_count_whatever_their_case(tmp_path, ending):
    touch(tmp_path, f"a{ending}", "a.txt", "mp4", ".mp4", "b.mp4.part", "c.mp4x")
    assert names(SourceFiles(tmp_path, VIDEO_FILES)) == [f"a{ending}"]


def test_files_with_other_endings_are_the_others(tmp_path):
    touch(tmp_path, "b.mp3", "a.txt", "c/d.wav", "c/e.txt", ".hidden.wav", "c/.f/g.wav", "none")
    files = SourceFiles(tmp_path, TXT)
    assert names(files) == ["a.txt", "c/e.txt"]
    assert files.others == [tmp_path / "b.mp3", tmp_path / "none", tmp_path / "c/d.wav"]


def test_every_ending_is_of_one_kind():
    kinds = (VIDEO_FILES, SOUND_FILES, PICTURE_FILES)
    assert len(frozenset.union(*kinds)) == sum(map(len, kinds))
    for ending in frozenset.union(*kinds):
        assert ending == ending.lower()
        assert Path(f"a{ending}").suffix == ending


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    touch(tmp_path, ".a.txt", "._b.txt", ".hidden/c.txt", "d/.e/f.txt", "d/g.txt")
    assert names(SourceFiles(tmp_path, TXT)) == ["d/g.txt"]


def test_a_folder_that_is_hidden_itself_can_be_the_source(tmp_path):
    touch(tmp_path, ".cache/a.txt")
    assert names(SourceFiles(tmp_path / ".cache", TXT)) == ["a.txt"]


def test_folders_and_pipes_that_are_named_like_files_are_passed_over(tmp_path):
    touch(tmp_path, "folder.txt/a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    files = SourceFiles(tmp_path, TXT)
    assert names(files) == ["folder.txt/a.txt"]
    assert files.broken == []


def test_links_to_files_and_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/a.txt", "elsewhere/deep/b.txt", "source/c.txt")
    (tmp_path / "source" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "file.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    assert names(SourceFiles(tmp_path / "source", TXT)) == [
        "c.txt",
        "file.txt",
        "folder/a.txt",
        "folder/deep/b.txt",
    ]
    (tmp_path / "all").symlink_to(tmp_path / "source")
    assert len(SourceFiles(tmp_path / "all", TXT).paths) == 4


def test_a_folder_that_several_links_lead_to_is_read_once_by_the_first_name(tmp_path):
    touch(tmp_path, "m/a.txt", "source/z.txt")
    for name in ("q", "k", "t"):
        (tmp_path / "source" / name).symlink_to(tmp_path / "m")
    assert names(SourceFiles(tmp_path / "source", TXT)) == ["z.txt", "k/a.txt"]


@pytest.mark.timeout(20)
def test_loops_of_links_end(tmp_path):
    touch(tmp_path, "a/b/c.txt", "d.txt")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "here").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "x.txt").symlink_to(tmp_path / "y.txt")
    (tmp_path / "y.txt").symlink_to(tmp_path / "x.txt")
    assert names(SourceFiles(tmp_path, TXT)) == ["d.txt", "a/b/c.txt"]


def test_links_that_lead_to_no_file_are_the_broken_ones(tmp_path):
    touch(tmp_path, "a.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "none.txt")
    (tmp_path / "ring.TXT").symlink_to(tmp_path / "ring.TXT")
    (tmp_path / "gone.mp3").symlink_to(tmp_path / "none.txt")
    (tmp_path / "folder").symlink_to(tmp_path / "none")
    files = SourceFiles(tmp_path, TXT)
    assert names(files) == ["a.txt"]
    assert files.others == []
    assert files.broken == [tmp_path / "gone.txt", tmp_path / "ring.TXT"]


def test_files_are_found_by_the_stem_of_their_name(tmp_path):
    touch(tmp_path, "a/x.txt", "b/x.txt", "y.tar.txt", "z.txt")
    files = SourceFiles(tmp_path, TXT)
    assert files.by_stem["x"] == [tmp_path / "a/x.txt", tmp_path / "b/x.txt"]
    assert files.by_stem["y.tar"] == [tmp_path / "y.tar.txt"]
    assert list(files.by_stem) == ["y.tar", "z", "x"]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([], "nothing"),
        (["b.txt"], "b.txt"),
        (["c.txt", "a.txt", "b.txt"], "a.txt, b.txt, c.txt"),
        (["c.txt", "a.txt", "d/e.txt", "b.txt"], "a.txt, b.txt, c.txt, …"),
        (["d/e.txt"], f"d{os.sep}e.txt"),
        (["c.mp4", "a.pdf"], "a.pdf, c.mp4"),  # none with the ending: what there is
        (["a.pdf", "b/c.pdf", "d.pdf", "e.pdf"], "a.pdf, b, d.pdf, …"),
    ],
)
def test_some_names_say_what_the_folder_has(tmp_path, made, text):
    assert SourceFiles(touch(tmp_path, *made), TXT).some_names() == text


def test_as_many_names_are_said_as_are_asked_for(tmp_path):
    files = SourceFiles(touch(tmp_path, "a.txt", "b.txt", "c.txt"), TXT)
    assert files.some_names(1) == "a.txt, …"
    assert files.some_names(2) == "a.txt, b.txt, …"


@pytest.mark.parametrize("name", ["none", "file.txt", "pipe"])
def test_what_is_not_a_folder_is_refused(tmp_path, name):
    touch(tmp_path, "file.txt")
    os.mkfifo(tmp_path / "pipe")
    message = f"--source {tmp_path / name} is not a folder: give the folder of the clips"
    with pytest.raises(DataError, match=message):
        SourceFiles(tmp_path / name, TXT)


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
            with pytest.raises(Unusable, match="paths are relative to --source$"):
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
