import json
import stat

import pytest

from marginlab.data.private import default_folder, digest_key, key_of, pseudonym, write_private
from marginlab.values import InputError


def test_a_pseudonym_depends_on_the_key_and_the_subject():
    key, other = bytes(32), bytes([1]) * 32
    assert pseudonym(key, "9000001") == pseudonym(key, "9000001")
    assert len({pseudonym(key, "9000001"), pseudonym(other, "9000001"), pseudonym(key, "9000002")}) == 3


def test_the_private_file_is_the_owners_alone_and_keeps_its_key(tmp_path):
    file = tmp_path / "deep" / "x.json"
    key = key_of(file)
    assert len(key) == 32 and key != key_of(file)
    write_private(file, key, {"files": ["a"]})
    write_private(file, key, {"files": ["b"]})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 == 0
    assert json.loads(file.read_text())["files"] == ["b"]
    assert key_of(file) == key
    assert [p.name for p in file.parent.iterdir()] == ["x.json"]


def test_the_key_of_digests_is_made_once_and_the_owners_alone(tmp_path):
    key = digest_key(tmp_path / "private")
    assert len(key) == 32 and digest_key(tmp_path / "private") == key != digest_key(tmp_path / "other")
    (file,) = (tmp_path / "private").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_private_file(tmp_path):
    for text in ("", "[]", '{"key": "12"}', "{}"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json: this private file is damaged"):
            key_of(tmp_path / "x.json")


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "marginlab"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local/share/marginlab"
