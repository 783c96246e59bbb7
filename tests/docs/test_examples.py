"""Everything that the documentation shows is executed: Python blocks, `$ holdfast …` lines, links, and docstrings.

The blocks of a page run in their order, in one namespace and one temporary working directory, as a reader would try
them. A block is left out only by `<!-- not executed: REASON -->` on the line above it. A command must end with the
status that `# exit status N` behind it announces, or else 0, and print every word that the page shows below it; numbers
and dates may differ, and `…` stands for what is left out. A page that begins with `<!-- needs: MODULE … -->` is skipped where
one of these is not installed.
"""

import contextlib
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGE_IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]

FENCE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL)
SKIP = re.compile(r"<!-- not executed: \S.* -->\n\Z")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)(?P<target>[^)\s#]+)(?:#[^)\s]*)?\)")
COMMAND = re.compile(r"^\$ holdfast (?P<arguments>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
STATUS = re.compile(r"# exit status (?P<status>\d+)$")
NEEDS = re.compile(r"\A<!-- needs: (?P<modules>.*) -->")
WORD = re.compile(r"[A-Za-z_.]{4,}")
NEWLINE = "\n"
FRAMEWORK = re.compile(
    r"holdfast\.(adapters|integrations)\.(?P<name>torch|jax|paddle|lightning|transformers|keras)(_|\Z)"
)
os.environ.setdefault("KERAS_BACKEND", "jax")  # its own default is TensorFlow


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page; `line` is where its text begins."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> Iterator[Block]:
    """The blocks of a page that a reader can run."""
    for match in FENCE.finditer(markdown):
        if match["language"] in ("python", "console") and not SKIP.search(markdown, 0, match.start()):
            yield Block(match["language"], match["text"], markdown.count("\n", 0, match.start("text")) + 1)


def fresh_programs(markdown: str) -> contextlib.AbstractContextManager[object]:
    """Default programs, scope, names and operators of its own for a page about programs: readers try it in a new process."""
    guards = contextlib.ExitStack()
    if "holdfast.fluid" in markdown:
        import holdfast.fluid as fluid
        from holdfast.fluid import registry

        operators = dict(registry._ops)
        guards.callback(lambda: (registry._ops.clear(), registry._ops.update(operators)))
        guards.enter_context(fluid.program_guard(fluid.Program(), fluid.Program()))
        guards.enter_context(fluid.scope_guard(fluid.Scope()))
        guards.enter_context(fluid.unique_name.guard())
    return guards


def run_page(markdown: str, name: str) -> int:
    """Run the blocks of a page in the working directory; return how many lines of the console and blocks ran."""
    with fresh_programs(markdown):
        return run_blocks(markdown, name)


def run_blocks(markdown: str, name: str) -> int:
    """Run the blocks of a page, one after the other."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    ran = 0
    for block in blocks(markdown):
        if block.language == "python":
            # Empty lines in front, so that a traceback shows the line of the page.
            exec(compile("\n" * (block.line - 1) + block.text, name, "exec", dont_inherit=True), namespace)
            ran += 1
            continue
        for match in COMMAND.finditer(block.text):
            run_command(
                match["arguments"],
                match["output"],
                f"{name}:{block.line + block.text.count(NEWLINE, 0, match.start())}",
            )
            ran += 1
    return ran


def run_command(arguments: str, output: str, where: str) -> None:
    """Run `holdfast` in a new process; compare its exit status and the words of its output with those of the page."""
    command = [sys.executable, "-m", "holdfast", *shlex.split(arguments, comments=True)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    printed = done.stdout + done.stderr
    announced = STATUS.search(arguments)
    said = f"{where}: holdfast {arguments}"
    assert done.returncode == int(announced["status"] if announced else 0), f"{said}: {done.returncode}\n{printed}"
    absent = sorted(set(WORD.findall(output)) - set(WORD.findall(printed)))
    assert absent == [], f"{said}: the page shows another output\n{printed}"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which commands find the same holdfast as this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning, of PyTorch
@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's advice, on machines with more cores
@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_examples_of_the_page_run(page: Path, workplace: Path) -> None:
    markdown = page.read_text(encoding="utf-8")
    if needs := NEEDS.match(markdown):
        for module in needs["modules"].split():
            pytest.importorskip(module, reason=f"{module} is not installed")
    run_page(markdown, str(page))


@pytest.mark.parametrize("module", [m.name for m in pkgutil.walk_packages(holdfast.__path__, "holdfast.")])
def test_examples_in_docstrings_run(module: str, workplace: Path) -> None:
    framework = FRAMEWORK.match(module)
    if framework:
        pytest.importorskip(framework["name"], reason=f"{framework['name']} is not installed")
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    targets = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_and_guide_show_something_to_run() -> None:
    for name in ("README.md", "docs/guide-core.md"):
        languages = [block.language for block in blocks((ROOT / name).read_text(encoding="utf-8"))]

        assert "python" in languages, name
        assert "console" in languages, name


def test_a_wrong_example_is_noticed(workplace: Path) -> None:
    page = "# Title\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n"

    with pytest.raises(AssertionError) as caught:
        run_page(page, "page.md")
    assert caught.traceback[-1].lineno == 9, "counted from 0: the line of the page"


def test_a_wrong_command_is_noticed(workplace: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:3: holdfast ls nowhere: 2"):
        run_page("```console\n$ holdfast --version\n$ holdfast ls nowhere\n```\n", "page.md")


def test_an_announced_exit_status_is_expected(workplace: Path) -> None:
    assert run_page("```console\n$ holdfast ls nowhere  # exit status 2\n```\n", "page.md") == 1
    with pytest.raises(AssertionError, match="holdfast --version"):
        run_page("```console\n$ holdfast --version  # exit status 2\n```\n", "page.md")


def test_an_output_that_the_command_does_not_print_is_noticed(workplace: Path) -> None:
    assert run_page("```console\n$ holdfast --version\nholdfast 99\n…\n```\n", "page.md") == 1
    with pytest.raises(AssertionError, match="the page shows another output"):
        run_page("```console\n$ holdfast --version\nholdall 0.1.0\n```\n", "page.md")


def test_a_block_is_left_out_only_by_a_marker_with_a_reason(workplace: Path) -> None:
    block = "```python\nraise RuntimeError\n```\n"

    assert run_page("<!-- not executed: needs a GPU -->\n" + block, "page.md") == 0
    for above in ("", "<!-- not executed: -->\n", "<!-- not executed: needs a GPU -->\n\n"):
        with pytest.raises(RuntimeError):
            run_page(above + block, "page.md")


@pytest.mark.parametrize("page", ["README", "docs/guide"])
def test_a_page_shows_the_same_examples_in_both_languages(page: str) -> None:
    english, chinese = (
        [block.text for block in blocks((ROOT / name).read_text(encoding="utf-8"))]
        for name in (f"{page}.md", f"{page}.zh-CN.md")
    )

    assert english == chinese
    assert len(english) >= 4
