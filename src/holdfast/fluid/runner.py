"""Runs a script as `python SCRIPT` would, with Holdfast's modules under the name `paddle`.

Arguments, `__main__`, `sys.path`, tracebacks and exit statuses are those of `python SCRIPT`. This module decides how a script
is run and what is added to its errors; what `paddle` is, `paddle/serving.py` decides. It loads no framework.
"""

from __future__ import annotations

import builtins
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType

from holdfast.fluid.paddle.serving import serve

USAGE = 2
HELP = """\
usage: python -m holdfast.fluid SCRIPT [ARGS]

Runs SCRIPT, a program written for paddle.fluid, without Paddle: `import paddle` and
`import paddle.fluid` give Holdfast's modules, in this process only. All ARGS go to SCRIPT.

Data sets of paddle.dataset are read from $HOLDFAST_DATASETS, or else ~/.cache/paddle/dataset.
Nothing is downloaded.

options:
  -h, --help  show this and stop
"""

_PYTHON2_LINES = re.compile(
    r"^\s*(print\s+[^\s=(]|exec\s+['\"\w]|raise\s+[\w.]+\s*,|except\s+[\w.()\s,]+,\s*\w+\s*:)|`|<>|\b0\d+\b|\bur['\"]"
)
_PYTHON2_NAMES = {
    "basestring",
    "cmp",
    "execfile",
    "file",
    "long",
    "raw_input",
    "reduce",
    "reload",
    "unichr",
    "unicode",
    "xrange",
}
# Where libraries of today refuse what scripts of the era do most often.
_NEWER = (
    (
        TypeError,
        "only 0-dimensional arrays can be converted to Python scalars",
        "NumPy up to 2.3 took an array of one value for a number: pip install 'numpy<2.4' runs the script as it is.",
    ),
    (
        AttributeError,
        "module 'PIL.Image' has no attribute 'ANTIALIAS'",
        "Pillow up to 9 has this name: pip install 'pillow<10' runs the script as it is.",
    ),
)
_PYTHON2_METHODS = {"has_key", "iteritems", "iterkeys", "itervalues"}  # of dict
_PYTHON2_MODULES = {
    "ConfigParser",
    "Queue",
    "StringIO",
    "cPickle",
    "cStringIO",
    "commands",
    "httplib",
    "urllib2",
    "urlparse",
}


def main(arguments: Sequence[str]) -> int:
    """Run a script in this process, which should end with it: `__main__`, `sys.argv` and `sys.path` stay the script's.

    Whatever the script raises goes on to the caller, `SystemExit` too.

    Args:
        arguments: the script's path and its arguments.

    Returns:
        The exit status: 0, or 2 if there was no script to run.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE
    script = arguments[0]
    if script.startswith("-"):
        return _refused(f"unknown option {script!r}: options stand before SCRIPT, and there is only --help")
    path = os.path.join(os.getcwd(), script)  # as Python does it: `..` stays
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        return _refused(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}")
    try:
        serve()
    except RuntimeError as error:
        return _refused(str(error))
    _run(source, script, path, arguments)
    return 0


def _refused(message: str) -> int:
    print(f"python -m holdfast.fluid: {message}", file=sys.stderr)  # noqa: T201 - a command
    return USAGE


def _run(source: bytes, script: str, path: str, arguments: Sequence[str]) -> None:
    # Not runpy.run_path: it drops the module when the script's last line is done, leaves its own frames in every traceback,
    # and makes sys.argv[0] absolute where Python leaves it as it was typed.
    module = ModuleType("__main__")
    module.__dict__.update(
        __file__=path,
        __loader__=SourceFileLoader("__main__", path),
        __builtins__=builtins,
        __cached__=None,
        __package__=None,
        __annotations__={},
    )
    sys.argv[:] = [script, *arguments[1:]]
    if not sys.flags.safe_path:  # `-m` put the working directory there
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    sys.modules["__main__"] = module
    _explain_errors(path)
    code: CodeType = compile(source, path, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - the script that the user asked for


def _explain_errors(path: str) -> None:
    """Show an error that ends the script as `python SCRIPT` would: without the frames of this package, with a hint."""
    show = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename != path:
            trace = trace.tb_next  # no frame of the script at all: it was not even compiled
        if (hint := python2_hint(error, path) or newer_hint(error)) is not None:
            error.add_note(hint)
        show(kind, error.with_traceback(trace), trace)

    sys.excepthook = excepthook


def newer_hint(error: BaseException) -> str | None:
    """What to do about an error that a library newer than the script causes; None if it looks like another."""
    return next((hint for kind, text, hint in _NEWER if isinstance(error, kind) and text in str(error)), None)


def python2_hint(error: BaseException, script: str) -> str | None:
    """What to do about an error that Python 2 code causes; None if it looks like another."""
    if not isinstance(error, SyntaxError | NameError | ModuleNotFoundError | TypeError | AttributeError):
        return None
    if isinstance(error, SyntaxError):
        parens = "Missing parentheses in call to" in (error.msg or "")
        if not (parens or _PYTHON2_LINES.search(error.text or "") or isinstance(error, TabError)):
            return None
        file = error.filename or script
    elif isinstance(error, TypeError):
        if "file=<output_stream>" not in str(error):  # what Python says of `print >>file, text`
            return None
        file = script
    elif isinstance(error, AttributeError):
        if error.name not in _PYTHON2_METHODS or not isinstance(error.obj, Mapping):
            return None
        file = script
    elif error.name in (_PYTHON2_NAMES if isinstance(error, NameError) else _PYTHON2_MODULES):
        file = script
    else:
        return None
    return (
        f"This looks like Python 2. `2to3 -w {file}` rewrites the file for Python 3 and keeps the old one as .bak (2to3 comes"
        f" with Python up to 3.12)."
    )
