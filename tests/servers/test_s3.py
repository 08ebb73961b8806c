"""The S3 server that other tests rely on, through Arrow's client: what it keeps, and how its refusals read."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from pyarrow.fs import FileSelector, FileSystem, FileType

from tests.s3 import S3, serving

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serving() as made:
        made.make_bucket("lab")
        yield made


def write(files, path, *pieces):
    with files.open_output_stream(path) as f:
        for piece in pieces:
            f.write(piece)


def read(files, path):
    with files.open_input_file(path) as f:
        return f.read()


def listed(files, folder):
    found = files.get_file_info(FileSelector(folder, recursive=True))
    return sorted(i.path for i in found if i.type == FileType.File)


def test_put_get_list_copy_and_delete(s3, monkeypatch):
    for name, word in s3.environment.items():
        monkeypatch.setenv(name, word)
    files, _ = FileSystem.from_uri("s3://lab")  # S3FileSystem() would not read AWS_ENDPOINT_URL
    for name in ("a", "b c", "deep/er/ä"):
        write(files, f"lab/kept/{name}", name.encode())
    assert listed(files, "lab/kept") == ["lab/kept/a", "lab/kept/b c", "lab/kept/deep/er/ä"]
    assert read(files, "lab/kept/deep/er/ä") == "deep/er/ä".encode()
    files.copy_file("lab/kept/b c", "lab/kept/copied")
    files.delete_file("lab/kept/b c")
    assert read(files, "lab/kept/copied") == b"b c"
    write(files, "lab/kept/a", b"anew")
    assert read(files, "lab/kept/a") == b"anew"
    files.delete_dir("lab/kept/deep")
    assert listed(files, "lab/kept") == ["lab/kept/a", "lab/kept/copied"]


def test_a_stream_in_parts(s3):
    files, pieces = s3.files(), [bytes([i]) * 2**20 for i in range(12)]
    write(files, "lab/parts/large", *pieces)
    files.copy_file("lab/parts/large", "lab/parts/again")
    for name in ("large", "again"):
        assert files.get_file_info(f"lab/parts/{name}").size == 12 * 2**20
        assert read(files, f"lab/parts/{name}") == b"".join(pieces)
    with files.open_input_file("lab/parts/large") as f:  # a few bytes, over the border of two parts
        f.seek(10 * 2**20 - 2)
        assert f.read(4) == b"\x09\x09\x0a\x0a"
    write(files, "lab/parts/large", b"small now")
    assert read(files, "lab/parts/large") == b"small now"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_what_was_stored_outlives_the_server(s3, how):
    files, path = s3.files(), f"lab/{how.name}/stored"
    write(files, path, b"0123456789")
    s3.stop(how)
    try:
        for refused in (lambda: read(files, path), lambda: write(files, path, b"x"), lambda: listed(files, "lab")):
            with pytest.raises(OSError, match=r"AWS Error NETWORK_CONNECTION during .*Could not connect to server"):
                refused()
    finally:
        s3.start()
    assert read(files, path) == b"0123456789"
    assert listed(files, f"lab/{how.name}") == [path]


def test_a_part_written_stream_leaves_nothing(s3):
    files, path = s3.files(), "lab/partly/large"
    stream = files.open_output_stream(path)
    stream.write(bytes(11 * 2**20))
    s3.stop(signal.SIGKILL)
    with pytest.raises(OSError, match="AWS Error NETWORK_CONNECTION during"):
        stream.close()
    s3.start()
    assert files.get_file_info(path).type == FileType.NotFound


@pytest.mark.parametrize("wrong", [{"secret_key": "wrong"}, {"access_key": "lab:nobody"}], ids=lambda w: next(iter(w)))
def test_a_wrong_key_is_refused(s3, wrong):
    write(s3.files(), "lab/guarded", b"")
    files = s3.files(**wrong)
    with pytest.raises(OSError, match="AWS Error ACCESS_DENIED during HeadObject operation: No response body"):
        read(files, "lab/guarded")
    for refused in (lambda: write(files, "lab/guarded", b"x"), lambda: listed(files, "lab")):
        with pytest.raises(OSError, match="AWS Error SIGNATURE_DOES_NOT_MATCH during"):
            refused()


def test_an_unknown_bucket_is_refused(s3):
    files = s3.files()
    for refused in (lambda: write(files, "absent/a", b"x"), lambda: listed(files, "absent")):
        with pytest.raises(OSError, match=r"AWS Error NO_SUCH_BUCKET during \w+ operation: .*does not exist"):
            refused()
    for missing in ("absent/a", "lab/missing"):  # the same for both
        with pytest.raises(FileNotFoundError, match=f"Path does not exist '{missing}'"):
            read(files, missing)
