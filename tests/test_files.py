"""Files are whole or absent, whatever happens while they are written."""

import pytest

from ayllu.files import atomic_folder, atomic_path, write_json, write_text


class Interrupted(BaseException):
    pass


def _break_off(writing, begin):
    with writing as temporary:
        begin(temporary)
        raise Interrupted


def test_a_broken_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(Interrupted):
        _break_off(atomic_path(path), lambda temporary: temporary.write_text("half"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_broken_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    place = tmp_path / "model"
    with atomic_folder(place) as temporary:
        write_text(temporary / "w", "old")
    with pytest.raises(Interrupted):
        _break_off(atomic_folder(place), lambda temporary: write_text(temporary / "w", "half"))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (place / "w").read_text() == "old"


def test_a_new_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "model") as temporary:
            write_text(temporary / name, name)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError) as error:
        write_json(tmp_path, {})
    assert error.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "字")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
