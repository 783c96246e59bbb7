"""The exception tree: every class is a HoldfastError and the builtin that a caller would expect."""

import errno
import pickle

import pytest

import holdfast
from holdfast import errors
from holdfast.errors import Problem


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (errors.CheckpointNotFoundError, FileNotFoundError),
        (errors.FormatError, ValueError),
        (errors.VersionError, errors.FormatError),
        (errors.CorruptCheckpointError, ValueError),
        (errors.MismatchError, ValueError),
        (errors.CastError, ValueError),
        (errors.UnsupportedVariableError, TypeError),
        (errors.ForeignFolderError, FileExistsError),
        (errors.StorageError, OSError),
        (errors.DiskFullError, errors.StorageError),
        (errors.RestoreError, RuntimeError),
        (errors.ClosedError, ValueError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_error_is_also_the_builtin_that_callers_expect(ours: type, builtin: type) -> None:
    assert issubclass(ours, builtin)
    assert issubclass(ours, errors.HoldfastError)


def test_every_error_is_public_and_drawn_in_the_tree() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.HoldfastError)]

    assert len(classes) == 14
    for found in classes:
        assert getattr(holdfast, found.__name__) is found
        assert found.__name__ in (errors.__doc__ or "")


def test_public_names_exist() -> None:
    assert sorted(holdfast.__all__) == list(holdfast.__all__)
    for name in holdfast.__all__:
        assert hasattr(holdfast, name)


def test_mismatch_error_lists_every_problem() -> None:
    problems = [Problem("missing", "a", "'a' is not there"), Problem("shape", "b", "'b' is too long")]

    error = errors.MismatchError("runs/x", problems, ["try this"])

    assert error.problems == tuple(problems)
    assert error.named("missing") == ["a"]
    assert error.named("dtype") == []
    assert str(error) == (
        "runs/x does not match its target in 2 places; nothing was loaded:\n  'a' is not there\n  'b' is too long\ntry this"
    )


def test_mismatch_error_speaks_of_one_place() -> None:
    assert "in 1 place;" in str(errors.MismatchError("m", [Problem("missing", "a", "text")]))


def test_mismatch_error_shows_the_first_fifty_and_keeps_all() -> None:
    error = errors.MismatchError("m", [Problem("missing", str(i), f"no {i:03d}") for i in range(120)])

    assert "no 049" in str(error)
    assert "no 050" not in str(error)
    assert "70 more" in str(error)
    assert len(error.problems) == 120


def test_unsupported_variable_error_names_every_leaf() -> None:
    error = errors.UnsupportedVariableError({"a.b": "is odd", "c": "is strange"})

    assert error.reasons == {"a.b": "is odd", "c": "is strange"}
    assert "'a.b': is odd" in str(error)
    assert "'c': is strange" in str(error)


def test_storage_error_keeps_the_number_and_the_file() -> None:
    cause = OSError(errno.EACCES, "Permission denied", "/some/file")

    error = errors.StorageError.of(cause, "cannot write x")

    assert (error.errno, error.filename) == (errno.EACCES, "/some/file")
    assert "cannot write x" in str(error)
    assert "Permission denied" in str(error)


def test_storage_error_of_an_error_without_number_keeps_its_text() -> None:
    assert "something odd" in str(errors.StorageError.of(OSError("something odd"), "cannot read y"))


def test_fields_of_errors() -> None:
    full = errors.DiskFullError("full", needed_bytes=7, free_bytes=3)
    corrupt = errors.CorruptCheckpointError("bad", path="/p", variables=["a"])
    restore = errors.RestoreError("none", [(3, ValueError("x"))])

    assert (full.needed_bytes, full.free_bytes) == (7, 3)
    assert (corrupt.path, corrupt.variables) == ("/p", ("a",))
    assert restore.attempts[0][0] == 3
    assert errors.CorruptCheckpointError("bad", path="/p").variables == ()


def test_plain_errors_survive_a_trip_to_another_process() -> None:
    # Data loaders and test runners send errors between processes; one that cannot be rebuilt hangs some of them.
    error = pickle.loads(pickle.dumps(errors.FormatError("text")))

    assert isinstance(error, errors.FormatError)
    assert str(error) == "text"
