"""Every class of error has the exit code of the contract."""

from __future__ import annotations

import pytest

from asyncpull import errors
from asyncpull.cli.exit_codes import common_exit_code, exit_code_of
from asyncpull.errors import MountError

CONTRACT = {
    "AsyncpullError": 1,
    "UsageError": 64,
    "InvalidReferenceError": 64,
    "ConfigurationError": 64,
    "DocumentError": 65,
    "InvalidDigestError": 65,
    "DocumentTooLargeError": 65,
    "IntegrityError": 65,
    "DigestMismatchError": 65,
    "SizeMismatchError": 65,
    "DiffIDMismatchError": 65,
    "SourceError": 1,
    "NotFoundError": 2,
    "NoMatchingPlatformError": 2,
    "ManifestRejectedError": 65,
    "AuthenticationError": 77,
    "UnavailableError": 69,
    "TemporaryError": 75,
    "LayerError": 65,
    "MalformedLayerError": 65,
    "UnsupportedMemberError": 65,
    "CeilingError": 65,
    "TooManyLayersError": 65,
    "StoreError": 1,
    "StoreWriteError": 73,
    "NoSpaceError": 73,
    "StoreCorruptError": 1,
    "NotInStoreError": 2,
    "InUseError": 1,
    "PolicyError": 65,
    "MountError": 1,
    "WorkerError": 1,
}
ARGUMENTS = {
    "CeilingError": ("size", "is too large"),
    "DigestMismatchError": ("x", "a", "b"),
    "SizeMismatchError": ("x", 1, 2),
    "DiffIDMismatchError": ("x", "a", "b"),
}


def test_the_contract_knows_every_error() -> None:
    assert set(CONTRACT) == set(errors.__all__)


@pytest.mark.parametrize(("name", "code"), CONTRACT.items())
def test_exit_code(name: str, code: int) -> None:
    assert exit_code_of(getattr(errors, name)(*ARGUMENTS.get(name, ("what failed",)))) == code


def test_a_mount_that_the_kernel_refuses_lacks_a_privilege() -> None:
    error = MountError("cannot mount")
    error.__cause__ = PermissionError(1, "Operation not permitted")
    assert exit_code_of(error) == 77


def test_an_error_of_nobody_is_one() -> None:
    assert exit_code_of(ValueError("what")) == 1


@pytest.mark.parametrize(
    ("codes", "common"), [([], 0), ([0, 0], 0), ([0, 2, 2], 2), ([2, 65], 1), ([65, 0], 65), ([1, 65], 1)]
)
def test_several_codes(codes: list[int], common: int) -> None:
    assert common_exit_code(codes) == common
