"""Archives: sound ones come out byte for byte, harmful or damaged ones are refused as a whole and leave nothing."""

import io
import multiprocessing
import os
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest

from dataset_loaders import archives
from dataset_loaders.archives import extract, is_archive
from kdam_hf.errors import DataIntegrityError, KdamValueError

TREE = {"images/0001.png": b"photo" * 1000, "depth/0001.npy": bytes(300_000), "gt_sets/train.txt": b"0001\n"}
TREE["images/at 3.04\u202fPM\u3000fam\u200dily.png"] = b"photo"  # names that people have
STAMP = ".kdam-archive.json"
both = pytest.mark.parametrize("kind", ["tgz", "zip"])


def entry(name, kind=tarfile.REGTYPE, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(path, entries):
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def zip_of(path, entries, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in entries:
            archive.writestr(name, data, packing)
    return path


def archive_of(folder, kind, tree):
    """The files of `tree` in an archive of that kind."""
    if kind == "zip":
        return zip_of(folder / "data.zip", tree.items())
    return tar_of(folder / f"data.{kind}", [entry(name, data=data) for name, data in tree.items()])


def zip_entry(name, mode=0):
    info = zipfile.ZipInfo("placeholder")
    info.filename, info.external_attr = name, mode << 16
    return info


@pytest.fixture
def home(tmp_path):
    """The user's folder, which holds the archive, and beside it the one to write to."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def into(home):
    return home.parent / "cache" / "data"


def read_back(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STAMP)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_nothing_was_written(home):
    """Neither in the target nor beside it nor in the user's folder; a lock file is no data."""
    assert len(list(home.iterdir())) == 1
    left = [p for p in home.parent.rglob("*") if home not in p.parents and p != home and p.suffix != ".lock"]
    assert left in ([], [into(home).parent])


def refused(path, home, words=""):
    with pytest.raises(DataIntegrityError) as raised:
        extract(path, into(home))
    assert str(path) in str(raised.value)
    assert words in str(raised.value)
    assert_nothing_was_written(home)


@pytest.mark.parametrize(("kind", "top"), [("tgz", ""), ("tar.gz", "NYUDv2/"), ("tar", "NYUDv2/"), ("zip", "")])
def test_a_sound_archive_comes_out_byte_for_byte_and_a_single_top_folder_holds_the_data(home, kind, top):
    junk = {"__MACOSX/images/._0001.png": b"1", f"{top}images/._0001.png": b"1", f"{top}images/.DS_Store": b"1"}
    path = archive_of(home, kind, {f"{top}{name}": data for name, data in TREE.items()} | junk)
    assert is_archive(str(path).upper())
    assert extract(path, into(home)) == into(home) / top
    assert read_back(into(home) / top) == TREE
    assert [p.name for p in home.iterdir()] == [path.name]
    assert {p.name for p in into(home).parent.iterdir()} == {"data", ".data.lock"}


def test_permissions_are_harmless_and_a_folder_may_be_listed_again(home):
    folder = entry("d", tarfile.DIRTYPE, mode=0o7777)
    entries = [folder, entry("d/x", data=b"1", mode=0o7777), folder, entry("y", mode=0)]
    target = extract(tar_of(home / "data.tgz", entries), into(home))
    assert read_back(target) == {"d/x": b"1", "y": b""}
    for name in ("d/x", "y"):
        mode = (target / name).stat().st_mode
        assert mode & stat.S_IRUSR
        assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWGRP | stat.S_IWOTH)


BAD_NAMES = [
    *("/etc/passwd", "../outside", "a/../../outside", "a/..", "..\\outside", "a\\b", "C:/outside", "a/c:outside"),
    *("a\0b", "a\nb", "a\u202eb", "x" * 300, "/".join(["x"] * 2000), STAMP, f"{STAMP.upper()}/x"),
    "__MACOSX/../../._x",
]


@pytest.mark.fault(24, 34)
@both
@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_a_name_that_could_leave_the_folder_refuses_the_archive(home, kind, name):
    if kind == "zip":
        path = zip_of(home / "data.zip", [("good", b"1"), (zip_entry(name), b"evil")])
    else:
        path = tar_of(home / "data.tgz", [entry("good"), entry(name, pax_headers={"path": name}, data=b"evil")])
    refused(path, home)


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    "bad",
    [
        entry("x", tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("x", tarfile.LNKTYPE, linkname="good"),
        entry("x", tarfile.FIFOTYPE),
        entry("x", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("x", tarfile.BLKTYPE),
        entry("x", b"V"),
        entry("x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}),
    ],
    ids=["symlink", "hardlink", "fifo", "char", "block", "unknown", "sparse"],
)
def test_a_tar_member_that_is_no_file_refuses_the_archive(home, bad):
    refused(tar_of(home / "data.tgz", [entry("good"), bad]), home, "'x'")


def encrypted(path):
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(mark) + offset] |= 1
    path.write_bytes(raw)


@pytest.mark.fault(24)
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, "packed", "encrypted"])
def test_a_zip_member_that_is_no_file_refuses_the_archive(home, kind):
    packing = zipfile.ZIP_BZIP2 if kind == "packed" else zipfile.ZIP_DEFLATED
    path = zip_of(home / "data.zip", [(zip_entry("x", kind | 0o777 if isinstance(kind, int) else 0), b"1")], packing)
    if kind == "encrypted":
        encrypted(path)
    refused(path, home, "'x'")


CLASHES = [
    *(["images/a", "images/a"], ["images/a.png", "images/A.png"], ["Images/a", "images/b"]),
    *(["caf\u00e9", "cafe\u0301"], ["images", "images/a"], ["images/a", "images"], ["a", "a/"]),
]


@pytest.mark.fault(24)
@both
@pytest.mark.parametrize("names", CLASHES, ids=range(len(CLASHES)))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_fall_on_each_other_refuse_the_archive(home, kind, names):
    if kind == "zip":
        path = zip_of(home / "data.zip", [(name, b"") for name in names])
    else:
        types = [tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE for name in names]
        path = tar_of(home / "data.tgz", [entry(*pair) for pair in zip(names, types, strict=True)])
    refused(path, home)


@pytest.mark.fault(24)
@both
def test_a_bomb_is_refused_and_small_files_may_shrink_as_they_like(home, kind, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_FLOOR", 10 * 2**20)
    path = archive_of(home, kind, {"x": bytes(20 * 2**20)})
    refused(path, home, str(10 * 2**20))
    path.unlink()
    zeros = {f"{k}.npy": bytes(2**20) for k in range(9)}
    path = archive_of(home, kind, zeros)
    assert 9 * 2**20 / path.stat().st_size > archives.MAX_RATIO
    assert read_back(extract(path, into(home))) == zeros


@pytest.mark.fault(24)
@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 1000), ("MAX_MEMBERS", 100)])
def test_the_limits_can_be_set_and_implied_folders_count(home, monkeypatch, limit, value):
    tree = TREE if limit == "MAX_BYTES" else {"/".join(f"{k}{i}" for i in range(50)): b"" for k in "abc"}
    monkeypatch.setattr(archives, limit, value)
    refused(archive_of(home, "zip", tree), home, str(value))


@pytest.mark.fault(24)
def test_a_zip_member_that_holds_more_than_promised_is_refused(home):
    path = zip_of(home / "data.zip", [("good", b"1"), ("x", bytes(1_234_567))])
    raw, true = path.read_bytes(), struct.pack("<L", 1_234_567)
    assert raw.count(true) >= 2
    path.write_bytes(raw.replace(true, struct.pack("<L", 10)))
    refused(path, home)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [2**60, -512, 5 * 2**20])
def test_a_size_that_no_archive_has_or_would_fill_the_memory_is_refused_at_once(home, size, kind):
    info, _ = entry("x", kind)
    info.size = size
    content = bytes(size) if kind != tarfile.REGTYPE and size == 5 * 2**20 else b""
    (home / "data.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(1024))
    refused(home / "data.tar", home)


def test_a_size_that_an_extended_header_makes_negative_is_refused_at_once(home):
    refused(tar_of(home / "data.tar", [entry("x", pax_headers={"size": "-512"}), entry("y")]), home, "-512")


@pytest.mark.fault(25)
@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
def test_an_archive_that_was_cut_short_anywhere_or_is_something_else_is_refused(home, kind):
    path = archive_of(home, kind, TREE)
    whole = path.read_bytes().rstrip(b"\0") if kind == "tar" else path.read_bytes()
    for share in (0, 0.05, 0.3, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, home)
    path.write_bytes(b"<html>404</html>" * 100)
    refused(path, home)


def flipped(position):
    return lambda raw: raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("tgz", flipped(60_000)),
        ("zip", flipped(60_000)),
        ("tar", flipped(512 + 100_352)),  # a header that cannot be read is no end
        ("tar", lambda raw: raw[: 512 + 100_352]),  # between two members
        ("tar", lambda raw: raw + raw),  # data behind the end
        ("tgz", lambda raw: raw[:-8] + struct.pack("<L", zlib.crc32(b"other")) + raw[-4:]),  # tar ends before it
    ],
)
def test_damage_that_leaves_a_readable_archive_is_refused_too(home, kind, change):
    noise = os.urandom(100_000)
    path = archive_of(home, kind, {"a": noise, "b": noise[::-1]})
    path.write_bytes(change(path.read_bytes()))
    refused(path, home)


def test_what_is_no_archive_or_holds_nothing_is_named(home):
    with pytest.raises(DataIntegrityError, match=r"none\.zip"):
        extract(home / "none.zip", into(home))
    with pytest.raises(KdamValueError, match=r"a\.gz"):
        extract(home / "a.gz", into(home))
    refused(archive_of(home, "zip", {"__MACOSX/images/._0001.png": b"1"}), home)


@pytest.mark.parametrize(("error", "raised"), [(OSError(28, "full"), KdamValueError), (KeyboardInterrupt(),) * 2])
def test_an_extraction_that_fails_leaves_nothing(home, monkeypatch, error, raised):
    def fails(*args, **options):
        raise error

    monkeypatch.setattr(tarfile.TarFile, "extract", fails)
    with pytest.raises(raised if isinstance(raised, type) else type(raised)):
        extract(archive_of(home, "tgz", TREE), into(home))
    assert_nothing_was_written(home)


def _extract_and_die(path, target):
    for cls in (tarfile.TarFile, zipfile.ZipFile):
        true = cls.extract
        cls.extract = lambda self, *args, true=true, **options: (true(self, *args, **options), os._exit(9))
    extract(path, target)


@pytest.mark.fault(24)
@both
def test_a_killed_extraction_is_not_taken_for_complete_and_the_next_one_succeeds(home, kind):
    path = archive_of(home, kind, TREE)
    process = multiprocessing.get_context("fork").Process(target=_extract_and_die, args=(path, into(home)))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert not into(home).exists()
    assert list(into(home).parent.glob(".data.*/*"))
    assert read_back(extract(path, into(home))) == TREE
    assert {p.name for p in into(home).parent.iterdir()} == {"data", ".data.lock"}


def test_a_complete_extraction_is_used_again_and_another_archive_is_not_unpacked_over_it(home, monkeypatch):
    path = archive_of(home, "tgz", TREE)
    extract(path, into(home))
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_members", None)  # nothing is read
        assert extract(path, into(home)) == into(home)
    archive_of(home, "tgz", {"y": b"2"})
    for other in (path, archive_of(home, "zip", TREE)):
        with pytest.raises(KdamValueError, match=other.name):
            extract(other, into(home))
    assert read_back(into(home)) == TREE


@pytest.mark.parametrize("stamp", [None, "{", "[]"])
def test_a_folder_with_other_contents_is_left_alone_and_an_empty_one_is_filled(home, stamp):
    into(home).mkdir(parents=True)
    path = archive_of(home, "zip", TREE)
    mine = into(home) / (STAMP if stamp else "thesis.tex")
    mine.write_text(stamp or "mine")
    with pytest.raises(KdamValueError):
        extract(path, into(home))
    assert mine.read_text() == (stamp or "mine")
    mine.unlink()
    assert read_back(extract(path, into(home))) == TREE
