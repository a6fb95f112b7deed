import io
import json
import logging
import multiprocessing
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import namedtuple

import pytest

from dataset_loaders import archives
from dataset_loaders.archives import extract, is_archive
from kdam_hf.errors import DataIntegrityError, KdamValueError

TREE = {"images/0001.png": b"photo" * 1000, "depth/0001.npy": bytes(300_000), "gt_sets/train.txt": b"0001\n"}
KINDS = ["tgz", "tar.gz", "tar", "zip"]


def entry(name, kind=tarfile.REGTYPE, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(path, entries, **options):
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz", **options) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def zip_of(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def archive_of(folder, kind, tree):
    """The files of `tree` in an archive of that kind."""
    if kind == "zip":
        return zip_of(folder / "data.zip", tree.items())
    return tar_of(folder / f"data.{kind}", [entry(name, data=data) for name, data in tree.items()])


def zip_entry(name, mode=0, **fields):
    info = zipfile.ZipInfo("placeholder")
    info.filename, info.external_attr = name, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.fixture
def home(tmp_path):
    """The user's folder, which holds the archive, and beside it the one to write to."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def into(home):
    return home.parent / "cache" / "data"


def read_back(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".kdam-archive.json"
    }


def assert_nothing_was_written(home):
    """Neither in the target nor beside it nor in the user's folder; a lock file is no data."""
    assert len(list(home.iterdir())) == 1
    left = [p for p in home.parent.rglob("*") if home not in p.parents and p != home and p.suffix != ".lock"]
    assert left in ([], [into(home).parent])


def refused(path, home, match, **options):
    with pytest.raises(DataIntegrityError, match=match) as raised:
        extract(path, into(home), progress=False, **options)
    assert str(path) in str(raised.value)
    assert_nothing_was_written(home)


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.gz", "a.tar", "a.zip", "NYUDv2.TGZ", "b.c.Zip"])
def test_archives_are_known_by_their_name(name):
    assert is_archive(name)


@pytest.mark.parametrize("name", ["a", "a.tar.bz2", "a.gz", "zip", "a.mat", "a.7z", "a.zip.part"])
def test_other_names_are_no_archives(name, tmp_path):
    assert not is_archive(name)
    with pytest.raises(KdamValueError, match=r"expected one of \.tgz"):
        extract(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_archive_comes_out_byte_for_byte(home, kind, capsys):
    path = archive_of(home, kind, TREE)
    assert extract(path, into(home)) == into(home)
    assert read_back(into(home)) == TREE
    assert [p.name for p in home.iterdir()] == [path.name]
    assert {p.name for p in into(home).parent.iterdir()} == {"data", ".data.lock"}
    assert "unpacking data" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_folder_at_the_top_is_what_holds_the_data(home, kind):
    path = archive_of(home, kind, {f"./NYUDv2/{name}": data for name, data in TREE.items()})
    assert extract(path, into(home), progress=False) == into(home) / "NYUDv2"
    assert read_back(into(home) / "NYUDv2") == TREE


def test_a_folder_packed_by_tarfile_or_shutil_comes_out_as_it_was(home, tmp_path):
    source = tmp_path / "source"
    for name, data in TREE.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    for number, kind in enumerate(("gztar", "tar", "zip")):
        path = shutil.make_archive(str(home / f"data{number}"), kind, source)
        target = home.parent / f"out{number}"
        assert read_back(extract(path, target, progress=False)) == TREE
    assert read_back(source) == TREE


def test_permissions_are_plain_whatever_the_archive_says(home):
    entries = [entry("d", tarfile.DIRTYPE, mode=0o7777), entry("d/x", data=b"1", mode=0o7777), entry("y", mode=0)]
    path = tar_of(home / "data.tgz", entries)
    before = os.umask(0o022)
    try:
        target = extract(path, into(home), progress=False)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((target / name).stat().st_mode) for name in ("", "d", "d/x", "y")}
    assert modes == {"": 0o755, "d": 0o755, "d/x": 0o644, "y": 0o644}


BAD_NAMES = {
    "/etc/passwd": "absolute path",
    "../outside": r"'\.\.' in its path",
    "a/../../outside": r"'\.\.' in its path",
    "a/..": r"'\.\.' in its path",
    "..\\outside": "backslash",
    "a\\b": "backslash",
    "C:/outside": "drive letter",
    "a/c:outside": "drive letter",
    "a\0b": "NUL",
    "a\nb": "control characters",
    "a\u202eb": "control characters",
    "x" * 300: "longer than",
    "/".join(["x"] * 2000): "longer than",
    ".kdam-archive.json": "takes the place of",
    ".KDAM-archive.json/x": "takes the place of",
}


@pytest.mark.fault(24, 34)
@pytest.mark.parametrize("kind", ["tgz", "zip"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_a_name_that_could_leave_the_folder_refuses_the_archive(home, kind, name):
    if kind == "zip":
        path = zip_of(home / "data.zip", [*TREE.items(), (zip_entry(name), b"evil")])
    else:
        entries = [entry(name, data=data) for name, data in TREE.items()]
        path = tar_of(home / "data.tgz", [*entries, entry(name, pax_headers={"path": name}, data=b"evil")])
    refused(path, home, f"member .*{BAD_NAMES[name]}.*expected files and folders only.*Nothing was written")


@pytest.mark.fault(24)
def test_a_target_whose_name_begins_alike_is_out_of_reach(home):
    sibling = into(home).with_name("data-other")
    sibling.mkdir(parents=True)
    path = tar_of(home / "data.tgz", [entry("../data-other/x", data=b"evil")])
    with pytest.raises(DataIntegrityError, match=r"'\.\.'"):
        extract(path, into(home), progress=False)
    assert list(sibling.iterdir()) == []
    assert not into(home).exists()


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (entry("x", tarfile.SYMTYPE, linkname="/etc/passwd"), "symbolic link to '/etc/passwd'"),
        (entry("x", tarfile.LNKTYPE, linkname="images/0001.png"), "hard link to 'images/0001.png'"),
        (entry("x", tarfile.FIFOTYPE), "a FIFO"),
        (entry("x", tarfile.CHRTYPE, devmajor=1, devminor=3), "character device"),
        (entry("x", tarfile.BLKTYPE), "block device"),
        (entry("x", b"V"), "entry of type b'V'"),
        (entry("x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}), "sparse"),
    ],
    ids=["symlink", "hardlink", "fifo", "char", "block", "unknown", "sparse"],
)
def test_a_tar_member_that_is_no_file_refuses_the_archive(home, bad, match):
    good = [entry(name, data=data) for name, data in TREE.items()]
    refused(tar_of(home / "data.tgz", [*good, bad]), home, f"member 'x' is .*{match}")


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("mode", "match"),
    [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "FIFO"), (stat.S_IFCHR, "character"), (stat.S_IFBLK, "block")],
)
def test_a_zip_member_that_is_no_file_refuses_the_archive(home, mode, match):
    path = zip_of(home / "data.zip", [*TREE.items(), (zip_entry("x", mode | 0o777), b"/etc/passwd")])
    refused(path, home, f"member 'x' is a {match}")


def test_a_zip_that_is_encrypted_or_packed_in_another_way_is_refused(home):
    path = home / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x", b"data")
    refused(path, home, "method 12")
    zip_of(path, [("x", b"data")])
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(mark) + offset] |= 1
    path.write_bytes(raw)
    refused(path, home, "encrypted")


CLASHES = {
    "twice": ["images/a", "images/a"],
    "case": ["images/a.png", "images/A.png"],
    "case of a folder": ["Images/a", "images/b"],
    "unicode form": ["caf\u00e9", "cafe\u0301"],
    "file, then folder": ["images", "images/a"],
    "folder, then file": ["images/a", "images"],
    "file, then folder entry": ["a", "a/"],
}


@pytest.mark.fault(24)
@pytest.mark.parametrize("kind", ["tgz", "zip"])
@pytest.mark.parametrize("names", CLASHES.values(), ids=CLASHES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_fall_on_each_other_refuse_the_archive(home, kind, names):
    if kind == "zip":
        path = zip_of(home / "data.zip", [(name, b"") for name in names])
    else:
        kinds = [tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE for name in names]
        path = tar_of(home / "data.tgz", [entry(*pair) for pair in zip(names, kinds, strict=True)])
    refused(path, home, "takes the place of")


def test_a_folder_may_be_listed_again(home):
    entries = [entry("a", tarfile.DIRTYPE), entry("a/x", data=b"1"), entry("a", tarfile.DIRTYPE), entry("a/y")]
    target = extract(tar_of(home / "data.tar", entries), into(home), progress=False)
    assert read_back(target) == {"x": b"1", "y": b""}


@pytest.mark.fault(24)
@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_a_bomb_is_refused(home, kind):
    path = archive_of(home, kind, {"x": bytes(200 * 2**20)})
    assert path.stat().st_size < 0.3 * 2**20
    refused(path, home, f"{path.stat().st_size} bytes that unpack to more than {100 * 2**20}.*unpack it yourself")


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_small_files_may_shrink_as_much_as_they_like(home, kind):
    zeros = {f"edge/{k}.npy": bytes(2**20) for k in range(30)}
    path = archive_of(home, kind, zeros)
    assert 30 * 2**20 / path.stat().st_size > archives.MAX_RATIO
    assert read_back(extract(path, into(home), progress=False)) == {k[5:]: v for k, v in zeros.items()}


@pytest.mark.fault(24)
def test_the_caps_can_be_set(home):
    path = archive_of(home, "tgz", TREE)
    refused(path, home, "unpack to more than 1000,", max_bytes=1000)
    refused(path, home, "more than 2 files and folders", max_members=2)


def test_folders_that_are_only_implied_count_as_members(home):
    path = archive_of(home, "zip", {"/".join(f"{k}{i}" for i in range(50)): b"" for k in "abc"})
    refused(path, home, "more than 100 files and folders", max_members=100)


def forged_zip(path, data, promised):
    """A zip whose headers promise another size than the member unpacks to."""
    zip_of(path, [("good", b"1"), ("x", data)])
    raw = path.read_bytes()
    true = struct.pack("<L", len(data))
    assert raw.count(true) >= 2
    path.write_bytes(raw.replace(true, struct.pack("<L", promised)))
    return path


@pytest.mark.parametrize("promised", [10, 5_000_000])
def test_a_zip_member_that_is_not_as_large_as_promised_is_refused(home, promised):
    refused(forged_zip(home / "data.zip", bytes(1_234_567), promised), home, "member 'x'|damaged")


@pytest.mark.fault(24)
def test_more_than_was_promised_is_never_written(tmp_path):
    member = archives._Member("x", "file", 10)
    with pytest.raises(DataIntegrityError, match="'x' unpacks to more bytes; expected 10"):
        archives._write_file(member, iter([bytes(8), bytes(8)]), tmp_path / "x", tmp_path / "a.zip", lambda n: None)
    assert (tmp_path / "x").stat().st_size <= 10


def forged_tar(path, size):
    """A tar whose only member is said to hold `size` bytes."""
    info = tarfile.TarInfo("x")
    info.size = size
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


@pytest.mark.parametrize("size", [2**60, -512])
def test_a_size_no_archive_has_is_refused_at_once(home, size):
    refused(forged_tar(home / "data.tar", size), home, "unpack to more than|-512 bytes")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused(home, kind):
    info, data = entry("x", kind, bytes(5 * 2**20))
    refused(tar_of(home / "data.tgz", [(info, data), entry("y")]), home, "a header of 5242880 bytes")


def test_data_hidden_behind_the_end_of_a_tar_is_refused(home):
    path = archive_of(home, "tar", TREE)
    path.write_bytes(path.read_bytes() + archive_of(home, "tar", {"x": b"1"}).read_bytes())
    refused(path, home, "damaged or cut short")


@pytest.mark.fault(25)
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_was_cut_short_anywhere_is_refused(home, kind):
    path = archive_of(home, kind, TREE)
    whole = path.read_bytes()
    if kind == "tar":
        whole = whole.rstrip(b"\0")
    for share in (0, 0.05, 0.3, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, home, "damaged|cut short")


def test_a_tar_cut_between_two_members_is_refused(home):
    path = tar_of(home / "data.tar", [entry("a", data=b"1" * 512), entry("b", data=b"2" * 512)])
    path.write_bytes(path.read_bytes()[:1024])
    refused(path, home, "cut short at byte 1024")


@pytest.mark.fault(25)
@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_a_flipped_bit_in_packed_data_is_refused(home, kind):
    noise = os.urandom(100_000)
    path = archive_of(home, kind, {"a": noise, "b": noise[::-1]})
    raw = bytearray(path.read_bytes())
    raw[60_000] ^= 1
    path.write_bytes(raw)
    refused(path, home, "damaged|cut short")


def test_a_header_that_was_damaged_is_not_taken_for_the_end(home):
    path = tar_of(home / "data.tar", [entry("a", data=b"1" * 512), entry("b", data=b"2" * 512)])
    raw = bytearray(path.read_bytes())
    raw[1024] ^= 1
    path.write_bytes(raw)
    refused(path, home, "damaged or cut short")


@pytest.mark.parametrize("kind", KINDS)
def test_something_else_under_the_name_of_an_archive_is_refused(home, kind):
    path = home / f"data.{kind}"
    path.write_bytes(b"<html>404</html>" * 100)
    refused(path, home, "no archive of the kind")


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(DataIntegrityError, match=r"none\.zip: cannot be read \(No such file"):
        extract(tmp_path / "none.zip", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_without_files_is_refused(home, kind):
    refused(archive_of(home, kind, {"__MACOSX/._a": b"1"}), home, "holds no file")


def test_notes_of_macos_are_left_out_and_counted(home, caplog):
    junk = {"__MACOSX/images/._0001.png": b"1", "images/._0001.png": b"1", "images/.DS_Store": b"1"}
    path = archive_of(home, "zip", {**TREE, **junk})
    with caplog.at_level(logging.INFO):
        target = extract(path, into(home), progress=False)
    assert read_back(target) == TREE
    assert "3 macOS notes" in caplog.text
    assert json.loads((target / ".kdam-archive.json").read_text())["left_out"] == 3


def test_an_attack_in_a_note_is_an_attack(home):
    refused(archive_of(home, "zip", {**TREE, "__MACOSX/../../._x": b"1"}), home, r"'\.\.'")


def test_too_small_a_disk_is_reported_before_anything_is_written(home, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, 100_000))
    path = archive_of(home, "tgz", TREE)
    with pytest.raises(KdamValueError, match=r"cache/data: needs 3\d{5} bytes, 100000 are free"):
        extract(path, into(home), progress=False)
    assert_nothing_was_written(home)


def test_a_disk_that_fills_up_leaves_nothing(home, monkeypatch):
    def full(member, content, place, path, unpacked):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_write_file", full)
    with pytest.raises(KdamValueError, match=r"cannot be written \(.*No space left.*bytes are free"):
        extract(archive_of(home, "tgz", TREE), into(home), progress=False)
    assert_nothing_was_written(home)


def _extract_and_die(path, target):
    true = archives._write_file

    def dies(member, *rest):
        true(member, *rest)
        os._exit(9)

    archives._write_file = dies
    extract(path, target, progress=False)


@pytest.mark.fault(24)
@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_a_killed_extraction_is_not_taken_for_complete_and_the_next_one_succeeds(home, kind):
    path = archive_of(home, kind, TREE)
    process = multiprocessing.get_context("fork").Process(target=_extract_and_die, args=(path, into(home)))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert not into(home).exists()
    assert (into(home).parent / ".data.extracting").exists()
    assert read_back(extract(path, into(home), progress=False)) == TREE
    assert {p.name for p in into(home).parent.iterdir()} == {"data", ".data.lock"}


def test_an_interrupted_extraction_leaves_nothing(home, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    path = archive_of(home, "tgz", TREE)
    true = archives._write_file
    monkeypatch.setattr(archives, "_write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(path, into(home), progress=False)
    assert_nothing_was_written(home)
    monkeypatch.setattr(archives, "_write_file", true)
    assert read_back(extract(path, into(home), progress=False)) == TREE


def test_a_complete_extraction_is_used_again_without_reading(home, monkeypatch):
    path = archive_of(home, "tgz", {f"top/{name}": data for name, data in TREE.items()})
    first = extract(path, into(home), progress=False)
    before = {p: p.stat().st_mtime_ns for p in into(home).rglob("*")}
    monkeypatch.setattr(archives, "_check", None)
    assert extract(path, into(home), progress=False) == first
    assert {p: p.stat().st_mtime_ns for p in into(home).rglob("*")} == before


def test_another_archive_is_not_unpacked_over_the_first(home):
    path = archive_of(home, "tgz", TREE)
    extract(path, into(home), progress=False)
    archive_of(home, "tgz", {"y": b"2"})
    with pytest.raises(KdamValueError, match=r"unpacked from another archive.*bytes.*Remove that folder"):
        extract(path, into(home), progress=False)
    other = archive_of(home, "zip", TREE)
    with pytest.raises(KdamValueError, match=r"data\.tgz.*data\.zip"):
        extract(other, into(home), progress=False)
    assert read_back(into(home)) == TREE


@pytest.mark.parametrize("stamp", [None, "{", "[]"])
def test_a_folder_with_other_contents_is_left_alone(home, stamp):
    into(home).mkdir(parents=True)
    (into(home) / "thesis.tex").write_text("mine")
    if stamp:
        (into(home) / ".kdam-archive.json").write_text(stamp)
    with pytest.raises(KdamValueError, match="was not unpacked from an archive"):
        extract(archive_of(home, "zip", TREE), into(home), progress=False)
    assert (into(home) / "thesis.tex").read_text() == "mine"


def test_an_empty_folder_is_filled(home):
    into(home).mkdir(parents=True)
    assert read_back(extract(archive_of(home, "zip", TREE), into(home), progress=False)) == TREE


def test_an_archive_that_changes_while_it_is_unpacked_is_refused(home, monkeypatch):
    path = archive_of(home, "tar", TREE)
    evil = tar_of(home.parent / "evil.tar", [entry("../evil", data=b"1")])
    true = archives._check

    def check_and_swap(*args):
        members = true(*args)
        evil.replace(path)
        return members

    monkeypatch.setattr(archives, "_check", check_and_swap)
    refused(path, home, "changed while it was unpacked")


def test_the_checksum_of_a_gzip_is_verified_although_tar_ends_before_it(home):
    path = archive_of(home, "tgz", TREE)
    raw = bytearray(path.read_bytes())
    raw[-8:-4] = struct.pack("<L", zlib.crc32(b"other"))
    path.write_bytes(raw)
    refused(path, home, "CRC")
