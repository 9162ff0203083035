"""Members of zip and tar archives: what they give, and what hostile ones can't do."""

from __future__ import annotations

import bz2
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptcli.errors import SpecError
from gptcli.records.archives import members_of_tar, members_of_zip, spooled
from gptcli.records.pieces import ByteStream, Notes


class Bytes:
    """A stream of bytes, in small blocks."""

    def __init__(self, data: bytes, name: str = "x.tar", depth: int = 0) -> None:
        self.name, self.fault, self.depth = name, "", depth
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return (self._data[at : at + 1000] for at in range(0, len(self._data), 1000))


FILES = {"a.txt": b"first", "folder/b.txt": b"second " * 3000, "empty": b"", "ü.txt": "grün".encode()}


def zipped(files: dict[str, bytes] = FILES, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.mkdir("folder")
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def tarred(files: dict[str, bytes] = FILES, kind: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, link in (("link", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE), ("null", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = link, "/etc/passwd"
            archive.addfile(member)
    return target.getvalue()


def read_all(members: Iterator[tuple[str, ByteStream]]) -> dict[str, bytes]:
    return {name: b"".join(stream) for name, stream in members}


def read_zip(tmp_path: Path, data: bytes, notes: Notes) -> dict[str, bytes]:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    return read_all(members_of_zip(path, "x.zip", notes))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip_members_in_order(tmp_path: Path, method: int) -> None:
    notes = Notes()
    found = read_zip(tmp_path, zipped(method=method), notes)
    assert list(found.items()) == list(FILES.items())
    assert notes == Notes()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_members_in_order(kind: int) -> None:
    deep = "/".join(["folder"] * (20 if kind == tarfile.USTAR_FORMAT else 90))
    files, notes = {**FILES, f"{deep}/c.txt": b"deep"}, Notes()
    assert list(read_all(members_of_tar(Bytes(tarred(files, kind)), notes)).items()) == list(files.items())
    assert notes == Notes()


def test_what_is_not_read_of_a_member_is_passed_over() -> None:
    assert [name for name, _ in members_of_tar(Bytes(tarred()), Notes())] == list(FILES)


def test_names_are_shown_as_they_can_be() -> None:
    data = tarred({"bad\udcff\n.txt": b"x"}, tarfile.GNU_FORMAT)
    assert list(read_all(members_of_tar(Bytes(data), Notes()))) == ["bad\\xff\\n.txt"]


def test_zip_members_that_cannot_be_read_cost_no_other(tmp_path: Path) -> None:
    data = bytearray(zipped({name: b"text of " + name.encode() for name in "abcd"}, zipfile.ZIP_STORED))
    data[data.index(b"text of a")] ^= 1  # a wrong checksum
    for name, field, value in (("b", 8, 1), ("c", 10, 14)):  # encrypted; LZMA
        entry = data.index(b"PK\1\2", data.rindex(b"PK\1\2", 0, data.rindex(name.encode())))
        struct.pack_into("<H", data, entry + field, value)
    notes = Notes()
    assert read_zip(tmp_path, bytes(data), notes)["d"] == b"text of d"
    assert notes.faults == [("x.zip!a", "corrupt"), ("x.zip!b", "encrypted"), ("x.zip!c", "unsupported_method")]


def test_a_bomb_ends_and_those_behind_it_are_read(tmp_path: Path) -> None:
    notes = Notes()
    path = tmp_path / "x.zip"
    draw = random.Random(1)
    path.write_bytes(zipped({"bomb": bytes(70 << 20), "after": draw.randbytes(700_000)}))
    sizes = {name: sum(map(len, stream)) for name, stream in members_of_zip(path, "x.zip", notes)}
    assert notes.faults == [("x.zip!bomb", "bomb")]
    assert sizes == {"bomb": 64 << 20, "after": 700_000}


def test_many_small_bombs_share_one_budget(tmp_path: Path) -> None:
    notes, path = Notes(), tmp_path / "x.zip"
    path.write_bytes(zipped({f"{k}": bytes(30 << 20) for k in range(4)}))
    sizes = [sum(map(len, stream)) for _, stream in members_of_zip(path, "x.zip", notes)]
    assert sum(sizes) <= 64 << 20
    assert notes.faults == [("x.zip!2", "bomb"), ("x.zip!3", "bomb")]


def test_archives_within_archives(tmp_path: Path) -> None:
    inner = tarred({"letter.zip": zipped({"a.txt": b"deep"})})
    notes = Notes()
    (name, stream), *_ = members_of_tar(Bytes(inner, depth=1), notes)
    stream = next(iter(members_of_tar(Bytes(inner, depth=1), notes)))[1]
    with spooled(stream) as path:
        assert path is not None
        found = {inside: (b"".join(s), s.name) for inside, s in members_of_zip(path, stream.name, notes, stream)}
    assert not path.exists()
    assert found == {"a.txt": (b"deep", "x.tar!letter.zip!a.txt")}
    assert (name, notes) == ("letter.zip", Notes())


def test_nesting_ends(tmp_path: Path) -> None:
    notes, path = Notes(), tmp_path / "x.zip"
    path.write_bytes(zipped())
    assert list(members_of_zip(path, "x.zip", notes, Bytes(b"", depth=3))) == []
    assert list(members_of_tar(Bytes(tarred(), depth=3), notes)) == []
    assert notes.faults == [("x.zip", "nested_too_deep"), ("x.tar", "nested_too_deep")]


def test_spooled_tells_what_is_too_large() -> None:
    stream = Bytes(b"x" * 5000)
    with spooled(stream, 4000) as path:
        assert path is None
    assert stream.fault == "too_large"
    with spooled(Bytes(b"x" * 4000), 4000) as path:
        assert path is not None and path.read_bytes() == b"x" * 4000


def test_a_truncated_tar_gives_what_there_is() -> None:
    notes = Notes()
    data = tarred()
    found = read_all(members_of_tar(Bytes(data[: data.index(b"second") + 3000]), notes))
    assert found == {"a.txt": FILES["a.txt"], "folder/b.txt": FILES["folder/b.txt"][:3000]}
    assert notes.faults == [("x.tar!folder/b.txt", "truncated"), ("x.tar", "truncated")]


def test_a_damaged_tar_header_costs_its_member() -> None:
    notes, data = Notes(), bytearray(tarred(kind=tarfile.GNU_FORMAT))
    data[data.index(b"folder/b.txt")] ^= 1
    found = read_all(members_of_tar(Bytes(bytes(data)), notes))
    assert list(found) == ["a.txt", "empty", "ü.txt"]
    assert notes.faults == [("x.tar", "corrupt")]


def test_a_sparse_member_is_named() -> None:
    data = bytearray(tarred({"holes": b""}, tarfile.GNU_FORMAT))
    data[156:157] = b"S"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    notes = Notes()
    assert read_all(members_of_tar(Bytes(bytes(data)), notes)) == {"holes": b""}
    assert notes.faults == [("x.tar!holes", "unsupported_method")]


def test_what_is_no_archive(tmp_path: Path) -> None:
    notes = Notes()
    assert read_zip(tmp_path, b"PK\3\4 and nothing", notes) == {}
    assert read_all(members_of_tar(Bytes(b"x" * 5000), notes)) == {}
    assert notes.faults == [("x.zip", "corrupt"), ("x.tar", "corrupt"), ("x.tar", "truncated")]
    with pytest.raises(SpecError):
        list(members_of_zip(tmp_path / "none.zip", "none.zip", notes))


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_mutated_archives_never_raise(tmp_path: Path, form: str) -> None:
    draw = random.Random(9)
    whole = zipped() if form == "zip" else tarred()
    for _ in range(80):
        data = bytearray(whole)
        for at in draw.choices(range(len(data)), k=draw.choice((1, 4, 30))):
            data[at] = draw.randrange(256)
        del data[draw.choice((len(data), draw.randrange(len(data)))) :]
        if form == "zip":
            read_zip(tmp_path, bytes(data), Notes())
        else:
            read_all(members_of_tar(Bytes(bytes(data)), Notes()))


def test_a_damaged_bzip2_member(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": bytes(range(256)) * 40, "b": b"good"}, zipfile.ZIP_BZIP2))
    begin = data.index(b"BZh")
    data[begin + 40] ^= 0xFF
    notes = Notes()
    assert read_zip(tmp_path, bytes(data), notes)["b"] == b"good"
    assert notes.faults == [("x.zip!a", "corrupt")]
    with pytest.raises((OSError, EOFError, ValueError, zlib.error)):
        bz2.decompress(bytes(data[begin:]))
