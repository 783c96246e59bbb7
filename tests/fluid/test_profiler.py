"""fluid.profiler: what was recorded is in the table; Fluid's calls and mistakes."""

import threading

import pytest

from holdfast.fluid import profiler


@pytest.fixture(autouse=True)
def stopped(capsys: pytest.CaptureFixture[str]):
    yield
    profiler.stop_profiler()


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:]}


def test_profiler_counts_what_was_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    with profiler.profiler("All", "total", "nowhere"):
        for _ in range(3):
            with profiler.record("run"):
                pass
        threads = [threading.Thread(target=lambda: profiler.record("feed").__enter__()) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
        with pytest.raises(ZeroDivisionError), profiler.record("failed"):
            1 / 0  # noqa: B018
    printed = capsys.readouterr().out

    assert printed.splitlines()[0].startswith("profiler: ")
    found = rows(printed)
    assert (found["run"][0], found["failed"][0]) == ("3", "1")
    total, low, high, mean = map(float, found["run"][1:5])
    assert low <= mean <= high <= total + 0.001
    assert 0 <= float(found["run"][5].rstrip("%")) <= 100


@pytest.mark.parametrize(("key", "first"), [("calls", "often"), (None, "once"), ("default", "once")])
def test_table_is_sorted_by_the_key(capsys: pytest.CaptureFixture[str], key: str | None, first: str) -> None:
    profiler.start_profiler("CPU")
    for name in ("once", "often", "often"):
        with profiler.record(name):
            pass
    profiler.stop_profiler(key)

    assert next(iter(rows(capsys.readouterr().out))) == first


def test_reset_forgets_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with profiler.profiler("GPU"):
        with profiler.record("before"):
            pass
        profiler.reset_profiler()
        with profiler.record("after"):
            pass

    assert set(rows(capsys.readouterr().out)) == {"after"}


def test_nothing_is_recorded_or_printed_while_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with profiler.record("run"):
        pass
    profiler.reset_profiler()
    profiler.stop_profiler()
    assert capsys.readouterr().out == ""

    with profiler.profiler("CPU"):
        pass
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_table_is_printed_when_the_block_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="full"), profiler.profiler("CPU"):
        raise OSError("full")

    assert capsys.readouterr().out.startswith("profiler: ")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: profiler.start_profiler("TPU"), "state must be one of CPU, GPU, All, not 'TPU'"),
        (lambda: profiler.start_profiler("CPU", "Deep"), "tracer_option must be"),
        (lambda: profiler.stop_profiler("time"), "sorted_key must be one of calls, total, max, min, ave"),
        (lambda: profiler.cuda_profiler("out", "xml").__enter__(), "output_mode must be one of kvp, csv"),
    ],
)
def test_other_arguments_are_refused(call, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()


def test_cuda_profiler_runs_the_block_and_says_that_it_writes_nothing(tmp_path) -> None:
    ran = []
    with (
        pytest.warns(UserWarning, match=r"writes no .*out\.csv: use jax\.profiler\.trace"),
        profiler.cuda_profiler(str(tmp_path / "out.csv")),
    ):
        ran.append(1)

    assert ran
    assert not list(tmp_path.iterdir())
