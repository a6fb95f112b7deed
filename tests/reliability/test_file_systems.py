"""Network file systems and Windows: no locks, no sync of folders."""

import errno
import os
import stat

import filelock._unix
import pytest

from kdam_hf.errors import CheckpointError
from kdam_hf.io import exclusive, sync, write_text
from kdam_hf.training.checkpointing import explained_disk_errors


def failing(number):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF])
def test_a_file_is_written_where_folders_cannot_be_synced_and_other_failures_are_not_passed_over(
    number, tmp_path, monkeypatch
):
    fsync, asked = os.fsync, []

    def answer(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        asked.append(folder)
        return failing(number)() if folder else fsync(descriptor)

    monkeypatch.setattr(os, "fsync", answer)
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"
    assert asked == [False, True]
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path / "a.txt")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_of_the_file_system_one_process_at_a_time_still_writes(number, tmp_path, monkeypatch):
    monkeypatch.setattr(filelock._unix.fcntl, "flock", failing(number))
    lock = tmp_path / "new" / ".lock"
    with exclusive(lock, "here", 0), exclusive(lock, "here", 0):
        assert str(os.getpid()) in (tmp_path / "new" / ".lock.held").read_text()
    (tmp_path / "new" / ".lock.held").write_text("1\nanother-machine\n")
    with pytest.raises(CheckpointError, match=r"\.lock\.held"), exclusive(lock, "here", 0):
        pass


@pytest.mark.parametrize(("number", "room"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_room_is_asked_for_where_it_lacks(number, room, tmp_path):
    with pytest.raises(CheckpointError) as raised, explained_disk_errors(tmp_path):
        failing(number)()
    assert os.strerror(number) in str(raised.value)
    assert ("make room" in str(raised.value)) == room
