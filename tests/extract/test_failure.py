"""Who has to act on what the kernel refuses."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from asyncpull.errors import NoSpaceError, StoreWriteError, UnsupportedMemberError
from asyncpull.extract.failure import explain, owner_error
from asyncpull.tree.failure import store_error


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EEXIST])
def test_the_archive_is_to_blame_for_names_that_cannot_be(number: int) -> None:
    error = explain(refusal(number), Path("/diff"), b"a\xff", 512)
    assert isinstance(error, UnsupportedMemberError)
    assert (error.member, error.position) == (b"a\xff", 512)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_store_says_where_and_what_to_do(number: int) -> None:
    error = explain(refusal(number), Path("/diff"), b"a/b", 512)
    assert isinstance(error, NoSpaceError)
    assert error.path == "/diff/a/b"
    assert "--root" in (error.hint or "")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE])
def test_everything_else_is_the_stores_trouble(number: int) -> None:
    error = store_error(refusal(number), "/diff")
    assert isinstance(error, StoreWriteError)
    assert os.strerror(number) in str(error)


def test_a_message_that_says_more_is_kept() -> None:
    error = explain(OSError(errno.EINVAL, "extended attribute 'x': bad"), Path("/diff"), b"f", 0)
    assert "extended attribute 'x': bad" in str(error)


def test_names_that_are_not_utf8_can_be_printed_and_pickled() -> None:
    error = explain(refusal(errno.ENOSPC), Path("/diff"), b"caf\xe9", 0)
    assert "caf\\xe9" in str(error)
    str(error).encode()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_owner_without_id_tells_of_the_ranges() -> None:
    error = owner_error(refusal(errno.EINVAL), 5, 6, "/diff/f")
    assert "5:6" in str(error)
    assert "/etc/subuid" in (error.hint or "")
