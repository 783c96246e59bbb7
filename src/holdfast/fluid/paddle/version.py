"""The version that programs compare with: that of the Paddle whose behaviour and names this front end follows."""

full_version = "1.8.5"
major, minor, patch, rc = "1", "8", "5", "0"
istaged = True
commit = "holdfast"
with_mkl = "OFF"


def mkl() -> str:
    """'OFF': there is no MKL build of this."""
    return with_mkl


def show() -> None:
    """Print the version, as Paddle does."""
    print("full_version:", full_version)  # noqa: T201 - what the function is for
    print("commit:", commit)  # noqa: T201
