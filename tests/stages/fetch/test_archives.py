"""Archives: what is in them comes out, whole; what is hostile or damaged in them is refused by name."""

import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from stages.fetch import DownloadError
from stages.fetch.archives import DamagedArchive, Limits, UnsafeArchive, unpack

FILES = {"s1/bbaf2n.mpg": random.Random(0).randbytes(40_000), "s1/bbal6p.mpg": b"film " * 1000, "s1/deep/er/empty": b""}


def make_zip(path: Path, files: dict[str, bytes], **changes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in changes.items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w", **changes) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def make(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        return make_zip(path, files)
    return make_tar(path, files, "w:gz" if path.name.endswith("gz") else "w")


def kind(path: Path) -> str:
    return "zip" if path.suffix == ".zip" else "tar"


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpack_here(archive: Path, **known) -> dict[str, int]:
    return unpack(archive, kind(archive), archive.parent / "out", archive.parent / "making", **known)


def refused(archive: Path, error: type[DownloadError], match: str, **known) -> None:
    """With an error that names it, and without a trace."""
    with pytest.raises(error, match=match) as caught:
        unpack_here(archive, **known)
    assert archive.name in str(caught.value)
    assert {path.name for path in archive.parent.rglob("*")} == {archive.name}


@pytest.fixture(params=["a.zip", "a.tar", "a.tgz"])
def path(request, tmp_path) -> Path:
    return tmp_path / request.param


def test_files_come_out_as_they_went_in(path):
    assert unpack_here(make(path, FILES)) == {name: len(data) for name, data in FILES.items()}
    assert found(path.parent / "out") == FILES
    assert not (path.parent / "making").exists()


def test_two_archives_of_one_folder_come_together(tmp_path):
    """As GRID's mpg_6000 part1 and part2 do."""
    unpack_here(make(tmp_path / "1.tar", {"s1/a": b"a"}))
    unpack_here(make(tmp_path / "2.tar", {"s1/b": b"b"}))
    assert found(tmp_path / "out") == {"s1/a": b"a", "s1/b": b"b"}


def test_what_a_mac_adds_is_left_out(path):
    rubbish = {"__MACOSX/s1/._bbaf2n.mpg": b"x", "s1/.DS_Store": b"x", "s1/._bbaf2n.mpg": b"x", "./s1/kept": b"y"}
    assert unpack_here(make(path, rubbish)) == {"s1/kept": 1}


def test_a_file_in_the_way_stays_if_it_is_another(path):
    out = path.parent / "out"
    out.mkdir()
    (out / "by_hand").write_bytes(b"mine")
    make(path, {"new": b"new", "by_hand": b"another"})
    with pytest.raises(DownloadError, match=r"by_hand is in the way[\s\S]*move it"):
        unpack_here(path)
    assert found(out) == {"by_hand": b"mine"}
    unpack_here(path, ours=["by_hand"])
    assert found(out) == {"by_hand": b"another", "new": b"new"}
    unpack_here(path)


EVIL = ["/etc/evil", "../evil", "s1/../../evil", "..", "C:/evil", "C:\\evil", "s1\\..\\evil", "."]
EVIL += ["new\nline", "bell\x07", "\u202egpj.exe", "x" * 300]


@pytest.mark.parametrize("name", EVIL)
def test_a_member_with_an_evil_name_is_refused(path, name):
    refused(make(path, {"s1/good": b"x", name: b"evil"}), UnsafeArchive, "refused")


def test_a_nul_in_a_name_of_a_zip_does_not_hide_the_rest(tmp_path):
    archive = make(tmp_path / "a.zip", {"evil.mpg#.exe": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"evil.mpg#.exe", b"evil.mpg\0.exe"))
    refused(archive, UnsafeArchive, "control character")


@pytest.mark.parametrize(
    "type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)  # Z: unknown
def test_a_tar_s_links_and_devices_are_refused(tmp_path, type_):
    archive = make_tar(tmp_path / "a.tar", {"innocent": b""}, type=type_, linkname="/etc/passwd")
    refused(archive, UnsafeArchive, "'innocent', which is a link or a device")


def test_a_link_is_not_written_through(tmp_path):
    """The classic: a link to elsewhere, then a file below it."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("folder")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("folder/evil"))
    refused(tmp_path / "a.tar", UnsafeArchive, "'folder'")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_s_links_and_devices_are_refused(tmp_path, mode):
    archive = make_zip(tmp_path / "a.zip", {"innocent": b"/etc/passwd"}, create_system=3, external_attr=(mode | 0o777) << 16)
    refused(archive, UnsafeArchive, "'innocent', which is a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["a", "./a"], ["a", "a/b"], ["a/b", "a"]])
def test_two_members_of_one_name_are_refused(path, names):
    refused(make(path, dict.fromkeys(names, b"x")), UnsafeArchive, "two members that are both")


LITTLE = Limits(ratio=10, free=10_000, most=50_000, members=5)


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_a_bomb_is_refused(tmp_path, name):
    refused(
        make(tmp_path / name, {"bomb": bytes(5_000_000)}),
        UnsafeArchive,
        "unpacks to more than .* at its member 'bomb'",
        limits=LITTLE,
    )


def test_many_small_bombs_are_one(path):
    refused(
        make(path, {f"{i}": random.Random(i).randbytes(15_000) for i in range(4)}), UnsafeArchive, "more than 50", limits=LITTLE
    )


def test_too_many_members_are_refused(path):
    refused(make(path, {f"{i}": b"" for i in range(6)}), UnsafeArchive, "more than 5 members", limits=LITTLE)


def test_a_bomb_that_lies_about_its_size_is_found_as_it_unpacks(tmp_path):
    archive = make(tmp_path / "a.zip", {"bomb": bytes(5_000_000)})
    lie = archive.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", 100))
    archive.write_bytes(lie)
    refused(archive, DamagedArchive, "damaged", limits=LITTLE)


def test_a_bomb_in_what_is_left_out_counts(tmp_path):
    refused(make(tmp_path / "a.tgz", {"__MACOSX/bomb": bytes(5_000_000)}), UnsafeArchive, "unpacks to more", limits=LITTLE)


def test_a_bomb_behind_the_last_member_is_found(tmp_path):
    tar = make(tmp_path / "a.tar", {"a": b"x"}).read_bytes()
    (tmp_path / "a.tar").unlink()
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(tar + bytes(5_000_000)))
    refused(archive, UnsafeArchive, "without end", limits=LITTLE)


def test_a_header_without_end_is_not_read(tmp_path):
    """tarfile reads an extended header whole into memory; this one says it has 8 GB."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 8_000_000_000
    archive = tmp_path / "a.tar"
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    refused(archive, DamagedArchive, "header of 8000000000 bytes")


def test_a_member_with_a_password_is_refused(tmp_path):
    archive = make(tmp_path / "a.zip", {"a": b"x"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    refused(archive, UnsafeArchive, "password")


def test_an_archive_that_is_cut_short_is_damaged(path):
    whole = make(path, FILES).read_bytes()
    for length in range(0, len(whole) - 1, 997):
        if path.suffix == ".tar" and len(whole) - length <= 10_240:
            break  # the padding of zeros behind the end
        path.write_bytes(whole[:length])
        refused(path, DamagedArchive, "damaged")


def test_a_tar_that_is_cut_between_members_is_damaged(tmp_path):
    """The library takes that for its end, in silence."""
    archive = make(tmp_path / "a.tar", {"a": b"x" * 512, "b": b"y" * 512})
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, DamagedArchive, "cut short")


def test_an_altered_archive_never_comes_out_altered(path):
    """A flipped bit anywhere: an error that names the archive, or the right bytes. (A plain tar has no checksum of its files.)"""
    whole = make(path, FILES).read_bytes()
    chance = random.Random(0)
    for attempt in range(300):
        altered = bytearray(whole)
        altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
        folder = path.parent / str(attempt)
        folder.mkdir()
        (folder / path.name).write_bytes(altered)
        try:
            unpack_here(folder / path.name)
        except DownloadError as error:
            assert path.name in str(error)
        else:
            if path.suffix != ".tar":
                assert sorted(found(folder / "out").values()) == sorted(FILES.values())


def test_zip64_is_unpacked(tmp_path):
    """What some tools cannot do to VOCASET's trainingdata.zip: sizes of 64 bits, and more than 65,535 members."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        with archive.open("big", "w", force_zip64=True) as file:
            file.write(b"big")
        for number in range(66_000):
            archive.writestr(f".DS_Store/._{number}", b"")
    assert unpack_here(tmp_path / "a.zip") == {"big": 3}
