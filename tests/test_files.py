"""Files and folders appear whole or not at all."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmcoop.errors import DataError, UsageError
from mmcoop.files import (
    atomic_folder,
    atomic_write,
    check_new_file,
    check_new_folder,
    recover_swap,
    resumable_folder,
    sha256,
    write_json,
)
from mmcoop.reading.json_files import read_json

REPOSITORY = Path(__file__).resolve().parents[1]


def contents(folder: Path) -> dict[str, str]:
    """Text of every file under `folder`, by path from there."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "content").write_text(text)


def always(folder: Path) -> bool:
    return True


def never(folder: Path) -> bool:
    return False


def test_sha256_is_that_of_the_whole_file(tmp_path):
    content = os.urandom(3 * 2**20 + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_sha256_of_an_empty_file_is_the_published_one(tmp_path):
    (tmp_path / "file").touch()
    assert sha256(tmp_path / "file") == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_json_reads_back_as_written_and_ends_its_last_line(tmp_path):
    content = {"z": [1, 2.5, None, True], "a": {"näme": "键盘"}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json", object) == content
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "键盘" in text
    assert list(json.loads(text)) == ["z", "a"]
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]


def test_json_keeps_the_name_of_a_file_that_is_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80")
    write_json(tmp_path / "x.json", {name: [name, "\\udce9"]})
    assert read_json(tmp_path / "x.json", object) == {name: [name, "\\udce9"]}
    assert json.loads((tmp_path / "x.json").read_bytes()) == {name: [name, "\\udce9"]}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", "old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", object())
    assert contents(tmp_path) == {"x.json": '"old"\n'}


def test_json_is_utf_8_whatever_the_locale(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mmcoop.files import write_json\n"
        "from mmcoop.reading.json_files import read_json\n"
        "write_json(Path(sys.argv[1]), '\\u952e')\n"
        "assert read_json(Path(sys.argv[1]), str) == '\\u952e'"
    )
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.json"],
        env={**os.environ, **plain, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '"键"\n'


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.json is missing"):
        read_json(tmp_path / "x.json", object)


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"\xff\xfe{}"])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json cannot be read: "):
        read_json(tmp_path / "x.json", object)


def test_a_folder_in_the_place_of_a_json_file_is_named(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(DataError, match=r"x\.json cannot be read: .*directory"):
        read_json(tmp_path / "x.json", object)


def test_json_nested_without_end_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"x\.json cannot be read: "):
        read_json(tmp_path / "x.json", object)


def test_a_whole_file_takes_the_old_one_s_place_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent, "a rename is whole only inside one file system"
    assert contents(tmp_path) == {"file": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert contents(tmp_path) == {"file": "old"}


def test_a_block_that_fails_makes_no_file(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_whole_folder_takes_the_old_one_s_place_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "folder"
    written(path, "old")
    (path / "only in the old one").touch()
    with atomic_folder(path) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "content").write_text("new")
        assert contents(path)["content"] == "old"
    assert contents(tmp_path) == {"folder/content": "new"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_folder_makes_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "content").write_text("new")
    assert contents(tmp_path) == {"a/b/folder/content": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    path = tmp_path / "folder"
    written(path, "old")
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "content").write_text("half")
        raise error
    assert contents(tmp_path) == {"folder/content": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_block_left_is_not_taken_over(tmp_path):
    path = tmp_path / "folder"
    killed_in(path, "block")
    assert len(list(tmp_path.iterdir())) == 1, "the killed process leaves its temporary folder"
    with atomic_folder(path) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "content").write_text("second")
    assert contents(tmp_path) == {"folder/content": "second"}
    assert list(tmp_path.iterdir()) == [path]


def killed_in(path: Path, moment: str, how: str = "atomic_folder") -> None:
    """Run a process that replaces the folder `path` and is killed (SIGKILL) at `moment`.

    "block" is inside the block; "1" and "2" are right after the first and the second rename.
    """
    code = """
import os, signal, sys
from pathlib import Path
import mmcoop.files

path, moment, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
done, rename = [], Path.rename

def rename_and_die(self, target):
    rename(self, target)
    done.append(target)
    if str(len(done)) == moment:
        os.kill(os.getpid(), signal.SIGKILL)

Path.rename = rename_and_die
with getattr(mmcoop.files, how)(path) as temporary:
    (temporary / "content").write_text("new")
    if moment == "block":
        os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, path, moment, how],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert result.returncode == -signal.SIGKILL


def test_a_replacement_killed_between_its_renames_is_settled_to_the_old_folder(tmp_path):
    path = tmp_path / "folder"
    written(path, "old")
    killed_in(path, "1")
    assert not path.exists()
    recover_swap(path)
    assert contents(path) == {"content": "old"}
    recover_swap(path)
    assert contents(path) == {"content": "old"}


def test_a_replacement_killed_after_its_renames_is_settled_to_the_new_folder(tmp_path):
    path = tmp_path / "folder"
    written(path, "old")
    killed_in(path, "2")
    recover_swap(path)
    assert contents(tmp_path) == {"folder/content": "new"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["block", "1", "2"])
def test_a_replacement_killed_at_any_moment_can_be_done_again(tmp_path, moment):
    path = tmp_path / "folder"
    written(path, "old")
    killed_in(path, moment)
    with atomic_folder(path) as temporary:
        (temporary / "content").write_text("newest")
    assert contents(tmp_path) == {"folder/content": "newest"}
    assert list(tmp_path.iterdir()) == [path]


# --- folders that are made in several goes


def building(path: Path) -> Path:
    return path.with_name(f".{path.name}.building")


def test_a_resumable_folder_takes_the_old_one_s_place_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "folder"
    written(path, "old")
    (path / "only in the old one").touch()
    with resumable_folder(path) as working:
        assert list(working.iterdir()) == []
        assert working.parent == path.parent, "a rename is whole only inside one file system"
        (working / "content").write_text("new")
        assert contents(path)["content"] == "old"
    assert contents(tmp_path) == {"folder/content": "new"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_resumable_folder_makes_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "folder"
    with resumable_folder(path) as working:
        (working / "content").write_text("new")
    assert contents(tmp_path) == {"a/b/folder/content": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [True, False])
def test_a_block_that_fails_keeps_its_work_for_the_next_one(tmp_path, error, old):
    path = tmp_path / "folder"
    if old:
        written(path, "old")
    for k in range(3):
        with pytest.raises(error), resumable_folder(path) as working:
            assert len(list(working.iterdir())) == k
            (working / str(k)).touch()
            raise error
        assert contents(tmp_path).get("folder/content") == ("old" if old else None)
    with resumable_folder(path) as working:
        (working / "content").write_text("new")
    assert contents(tmp_path) == {
        "folder/content": "new",
        **{f"folder/{k}": "" for k in range(3)},
    }


def test_a_file_in_the_place_of_the_working_folder_is_an_error(tmp_path):
    building(tmp_path / "folder").touch()
    with pytest.raises(FileExistsError), resumable_folder(tmp_path / "folder"):
        pytest.fail("it began")


@pytest.mark.parametrize("moment", ["1", "2"])
def test_a_resumable_folder_killed_at_its_renames_leaves_one_whole_folder(tmp_path, moment):
    path = tmp_path / "folder"
    written(path, "old")
    killed_in(path, moment, "resumable_folder")
    recover_swap(path)
    assert contents(path) == {"content": "old" if moment == "1" else "new"}
    with resumable_folder(path) as working:
        assert contents(working) == ({"content": "new"} if moment == "1" else {})
        (working / "content").write_text("newest")
    assert contents(tmp_path) == {"folder/content": "newest"}
    assert list(tmp_path.iterdir()) == [path]


def test_settling_a_folder_that_nobody_replaced_changes_nothing(tmp_path):
    recover_swap(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / "folder", "old")
    recover_swap(tmp_path / "folder")
    assert contents(tmp_path) == {"folder/content": "old"}


def test_a_link_to_a_folder_can_be_replaced_again_and_again(tmp_path):
    written(tmp_path / "elsewhere", "old")
    path = tmp_path / "folder"
    path.symlink_to("elsewhere")
    for text in ("first", "second"):
        check_new_folder(path, True, always)
        with atomic_folder(path) as temporary:
            (temporary / "content").write_text(text)
    assert contents(path) == {"content": "second"}
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "elsewhere"}


def test_a_new_file_may_be_written_and_an_old_one_with_overwrite(tmp_path):
    check_new_file(tmp_path / "file", overwrite=False)
    (tmp_path / "file").touch()
    check_new_file(tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_not_written_as_a_file(tmp_path, overwrite):
    with pytest.raises(UsageError, match="is a folder: give out the name of a file"):
        check_new_file(tmp_path, overwrite)


def test_a_file_that_cannot_be_written_is_put_down_to_the_option_that_named_it(tmp_path):
    with pytest.raises(UsageError, match="is a folder: give preview the name of a file"):
        check_new_file(tmp_path, False, "preview")
    with pytest.raises(UsageError, match="does not exist: make it, or change preview$"):
        check_new_file(tmp_path / "none" / "file", False, option="preview")
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match="file exists: choose another preview, or replace it with overwrite"
    ):
        check_new_file(tmp_path / "file", False, option="preview")
    check_new_file(tmp_path / "file", True, option="preview")


def test_an_existing_file_is_kept_without_overwrite(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match="file exists: choose another out, or replace it with overwrite"
    ):
        check_new_file(tmp_path / "file", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_a_missing_folder_is_refused(tmp_path, overwrite):
    with pytest.raises(UsageError, match=r"the folder .*none does not exist: make it, or change"):
        check_new_file(tmp_path / "none" / "file", overwrite)


def test_a_new_folder_may_be_made_also_below_folders_that_are_not_there(tmp_path):
    check_new_folder(tmp_path / "a" / "folder", False, never)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_free(tmp_path):
    check_new_folder(tmp_path, False, never)


@pytest.mark.parametrize("name", [".", "..", "/", "./.", "a/.."])
def test_a_folder_that_cannot_be_renamed_is_not_made_anew(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot be replaced: give out the name of a folder to"):
        check_new_folder(Path(name), True, always)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_a_disk_is_mounted_is_not_made_anew(tmp_path):
    """It is free, but it cannot be renamed, which would be found out only after all the work."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    try:
        with pytest.raises(UsageError, match="cannot be replaced: give out the name of a folder"):
            check_new_folder(tmp_path, True, always)
        check_new_folder(tmp_path / "folder", False, never)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_our_folder_is_kept_without_overwrite(tmp_path):
    written(tmp_path / "folder", "old")
    with pytest.raises(
        UsageError, match="folder exists: choose another out, or replace it with overwrite"
    ):
        check_new_folder(tmp_path / "folder", False, always)
    check_new_folder(tmp_path / "folder", True, always)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["folder", "file", "link to nothing"])
def test_what_is_not_ours_is_never_replaced(tmp_path, what, overwrite):
    path = tmp_path / "folder"
    if what == "folder":
        written(path, "precious")
    elif what == "file":
        path.write_text("precious")
    else:
        path.symlink_to("nowhere")
    with pytest.raises(
        UsageError, match="folder exists and was not made by mmcoop: choose another out"
    ):
        check_new_folder(path, overwrite, lambda path: (path / "ours").is_file())


def test_a_folder_whose_replacement_was_killed_still_counts_as_existing(tmp_path):
    path = tmp_path / "folder"
    written(path, "old")
    killed_in(path, "1")
    with pytest.raises(UsageError, match="folder exists: choose another"):
        check_new_folder(path, False, always)
    recover_swap(path)
    assert contents(path) == {"content": "old"}
