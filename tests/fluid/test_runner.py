"""`python -m holdfast.fluid SCRIPT` in real processes: as `python SCRIPT`, with Holdfast's modules for paddle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.fluid import runner
from holdfast.fluid.paddle import serving, unplanned


def run(*arguments: object, own: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """A script by our runner, or by Python itself."""
    command = [sys.executable, *(["-m", "holdfast.fluid"] if own else []), *map(str, arguments)]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **options.pop("env", {}),
    }
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=200, **options)


def script(folder: Path, text: str, name: str = "program.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_names_are_the_same_objects(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
import paddle
import paddle.fluid as fluid
import paddle.fluid.metrics as metrics
import paddle.fluid.average
from paddle.fluid.metrics import Accuracy
from paddle import fluid as again
from paddle.reader.decorator import shuffle
from paddle.reader import creator
import paddle.dataset.mnist as mnist
import paddle.batch
import sys
import holdfast.fluid, holdfast.fluid.metrics, holdfast.fluid.paddle as own

assert fluid is holdfast.fluid is again is paddle.fluid, fluid
assert metrics is holdfast.fluid.metrics is paddle.fluid.metrics is sys.modules["paddle.fluid.metrics"]
assert Accuracy is holdfast.fluid.metrics.Accuracy
assert paddle is own and callable(paddle.batch) and paddle.reader.shuffle is shuffle
assert mnist is own.dataset.mnist and mnist.train.__module__ == "holdfast.fluid.paddle.dataset.mnist"
assert metrics.__spec__.name == metrics.__name__ == "holdfast.fluid.metrics"
print(list(paddle.batch(paddle.reader.firstn(lambda: iter(range(9)), 3), batch_size=2)()))
""",
    )

    assert outcome(run(path)) == (0, "[[0, 1], [2]]\n", "")


def test_an_installed_paddle_is_not_touched(tmp_path: Path) -> None:
    for package in ("paddle", "paddle/fluid"):
        (tmp_path / "site" / package).mkdir(parents=True)
        script(tmp_path / "site" / package, "raise SystemExit('the real paddle was loaded')", "__init__.py")
    path = script(tmp_path, "import paddle, paddle.fluid.metrics as m; print(m.__name__)")
    site = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])}

    assert outcome(run(path, env=site)) == (0, "holdfast.fluid.metrics\n", "")
    assert run(path, own=False, env=site).stderr == "the real paddle was loaded\n"


def test_paddle_is_served_inside_the_runner_only(tmp_path: Path) -> None:
    path = script(tmp_path, "import holdfast.fluid.runner, holdfast.fluid.paddle, paddle")

    assert "No module named 'paddle'" in run(path, own=False).stderr


REPORT = """
import os, sys
print(sys.argv, sys.path[0], __name__, __file__, __spec__, __package__, __doc__, type(__builtins__).__name__)
print(sys.modules["__main__"].__dict__ is globals(), sorted(name for name in globals() if name.startswith("__")))
import neighbour
print(neighbour.__file__, os.getcwd())
"""


@pytest.mark.parametrize("named", ["absolute", "relative", "link"])
def test_script_sees_what_python_gives_it(tmp_path: Path, named: str) -> None:
    script(tmp_path, '"""Its text."""' + REPORT)
    script(tmp_path, "", "neighbour.py")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(tmp_path / "program.py")
    name = {"absolute": tmp_path / "program.py", "relative": "../program.py", "link": "link.py"}[named]
    arguments = ["--help", "-x", "a b", "--", "--flag=1", ""]

    ours = run(name, *arguments, cwd=tmp_path / "elsewhere")
    python = run(name, *arguments, own=False, cwd=tmp_path / "elsewhere")

    assert outcome(ours) == outcome(python)
    assert ours.returncode == 0


ENDINGS = {
    "exit": "import sys; sys.exit(7)",
    "exit with a message": "import sys; sys.exit('no data')",
    "error": "def deep():\n    raise KeyError('x')\n\ndef outer():\n    deep()\n\nouter()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ExceptionGroup('two', [ValueError(1)]) from error",
    "broken": "def f(:\n    pass",
    "in a module": "import neighbour",
    "atexit": "import atexit\nname = 'still here'\n@atexit.register\ndef last():\n    print(name)",
    "thread": "import threading\ndef f(): raise OSError('x')\nt = threading.Thread(target=f, name='T'); t.start(); t.join()",
    "hook": "import sys\nsys.excepthook = lambda kind, error, trace: print('own hook', kind.__name__)\n1 / 0",
    "interrupted": "raise KeyboardInterrupt",
    "pickle": "import pickle\nclass Own: pass\nprint(type(pickle.loads(pickle.dumps(Own()))) is Own)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_script_ends_as_under_python(tmp_path: Path, ending: str) -> None:
    path = script(tmp_path, ENDINGS[ending])
    script(tmp_path, "def f():\n    raise RuntimeError('here')\nf()", "neighbour.py")

    ours, python = run(path), run(path, own=False)

    assert outcome(ours) == outcome(python)
    if ending == "interrupted":
        assert ours.returncode == -signal.SIGINT


def test_safe_path_is_respected(tmp_path: Path) -> None:
    path = script(tmp_path, "import sys; print([entry for entry in sys.path if entry.startswith(sys.argv[1])])")

    assert run(path, tmp_path, env={"PYTHONSAFEPATH": "1"}).stdout == "[]\n"
    assert run(path, tmp_path).stdout == f"[{str(tmp_path)!r}]\n"


PYTHON_2 = {
    "print": "print 'cost'",
    "print nothing": "x = 1\nif x:\n    print x, x",
    "print to": "import sys\nprint >>sys.stderr, 'x'",
    "exec": "exec 'x = 1'",
    "except": "try:\n    pass\nexcept ValueError, error:\n    pass",
    "raise": "raise ValueError, 'x'",
    "unequal": "if 1 <> 2: pass",
    "octal": "mode = 0755",
    "backquotes": "text = `1`",
    "xrange": "for at in xrange(3): pass",
    "unicode": "unicode('x')",
    "cPickle": "import cPickle",
    "urllib2": "import urllib2",
    "tabs": "if 1:\n        a = 1\n\tb = 2",
}


@pytest.mark.parametrize("kind", PYTHON_2)
def test_python_2_is_recognised(kind: str) -> None:
    with pytest.raises((SyntaxError, NameError, ImportError, TypeError)) as caught:
        exec(compile(PYTHON_2[kind], "old.py", "exec"), {})

    assert "`2to3 -w old.py`" in (runner.python2_hint(caught.value, "old.py") or "")


def test_python_2_hint_stands_below_what_python_says(tmp_path: Path) -> None:
    path = script(tmp_path, PYTHON_2["print"])

    done, python = run(path), run(path, own=False)

    assert done.returncode == 1
    assert done.stderr.startswith(python.stderr)
    assert done.stderr.removeprefix(python.stderr).startswith(f"This looks like Python 2. `2to3 -w {path}` rewrites")


def test_python_2_hint_names_the_module_that_needs_it(tmp_path: Path) -> None:
    script(tmp_path, "print 'reader'", "neighbour.py")

    done = run(script(tmp_path, "import neighbour"))

    assert f"`2to3 -w {tmp_path / 'neighbour.py'}`" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        SyntaxError("invalid syntax", ("f.py", 1, 1, "def f(:")),
        NameError("x", name="x"),
        ImportError("x", name="cPickle"),
        KeyError(1),
    ],
)
def test_other_errors_get_no_hint(error: BaseException) -> None:
    assert runner.python2_hint(error, "f.py") is None


def test_modules_that_are_not_planned_can_be_imported_and_refuse_when_called(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
import paddle
from paddle.fluid.incubate.fleet.base import role_maker
from paddle.fluid.incubate.fleet.parameter_server.distribute_transpiler import fleet
import paddle.fluid.contrib.slim as slim
import paddle.dataset.flowers as flowers
for call in (lambda: role_maker.PaddleCloudRoleMaker(is_collective=True), lambda: fleet.init(None), slim.Compressor, flowers.train):
    try:
        call()
    except NotImplementedError as error:
        print(error)
try:
    class Mine(slim.Strategy): pass
except NotImplementedError as error:
    print(error)
print(hasattr(slim, "__wrapped__"), repr(fleet))
""",
    )

    done = run(path)

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "paddle.fluid.incubate.fleet.base.role_maker.PaddleCloudRoleMaker is not provided by Holdfast"
    )
    assert lines[1].startswith(
        "paddle.fluid.incubate.fleet.parameter_server.distribute_transpiler.fleet.init is not provided"
    )
    assert lines[2].startswith("paddle.fluid.contrib.slim.Compressor is not provided")
    assert lines[3].startswith("paddle.dataset.flowers.train is not provided")
    assert lines[4].startswith("paddle.fluid.contrib.slim.Strategy is not provided")
    assert lines[5].startswith("False <paddle.fluid.incubate")


UNKNOWN = {
    "paddle.fluid.no_such_thing": "no module of this name is provided by Holdfast's Fluid front end",
    "paddle.no_such_thing": "no module of this name is provided",
    "paddle.v2": "the API before Fluid is out of scope",
    "paddle.v2.fluid": "the API before Fluid is out of scope",
    "paddle.fluid.runner": "no module of this name",
    "paddle.fluid.metrics.deeper": "is not a package",
}


def test_unknown_modules_are_import_errors_that_say_so(tmp_path: Path) -> None:
    tries = "\n".join(
        f"try:\n    import {name}\nexcept ModuleNotFoundError as error:\n    print(error)" for name in UNKNOWN
    )

    done = run(script(tmp_path, tries))

    assert (done.returncode, done.stderr) == (0, "")
    for line, complaint in zip(done.stdout.splitlines(), UNKNOWN.values(), strict=True):
        assert line.startswith("No module named 'paddle.")
        assert complaint in line


def test_programs_can_try_an_unknown_module(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "try:\n    import paddle.v2 as paddle\nexcept ImportError:\n    import paddle\nprint(paddle.__version__)",
    )

    assert outcome(run(path)) == (0, "1.8.5\n", "")


def test_help_names_the_usage() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: python -m holdfast.fluid SCRIPT [ARGS]" in done.stdout
    nothing = run()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == done.stdout


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("missing.py", "can't open file '{}/missing.py': [Errno 2] No such file"),
        (".", "can't open file"),
        ("-x", "unknown option '-x'"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)

    assert runner.main([name]) == 2
    assert complaint.format(tmp_path) in capsys.readouterr().err


def test_serve_refuses_beside_another_paddle(tmp_path: Path) -> None:
    script(tmp_path, "", "paddle.py")
    path = script(tmp_path, "import paddle\nfrom holdfast.fluid.runner import main\nraise SystemExit(main([__file__]))")

    done = run(path, own=False)

    assert done.returncode == 2
    assert f"another paddle is loaded already, from {tmp_path}/paddle.py" in done.stderr


def test_every_unplanned_module_is_below_paddle_and_has_a_reason() -> None:
    for name, why in serving.UNPLANNED.items():
        assert name.startswith("paddle.")
        with pytest.raises(NotImplementedError, match=r"is not provided by Holdfast's Fluid front end: \w"):
            unplanned.UnplannedModule(name, why).anything()


def test_own_and_alias_names_are_inverse() -> None:
    for name in ("paddle", "paddle.fluid", "paddle.fluid.layers.nn", "paddle.reader.decorator"):
        assert serving.alias_name(serving.own_name(name)) == name
    for private in ("holdfast.fluid.runner", "holdfast.engine", "holdfast"):
        assert serving.alias_name(private) is None
