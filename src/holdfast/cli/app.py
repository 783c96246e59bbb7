"""The commands, their arguments and their help. What each does is in its own module, which is loaded when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from holdfast._version import __version__
from holdfast.cli.exits import USAGE, guarded
from holdfast.cli.output import Output, escaped

if TYPE_CHECKING:
    from holdfast.interop.tensor import Dialect

# Where click's UsageError lives depends on the version of Typer; BadParameter is one, and public.
USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


class Commands(TyperGroup):
    """The group of all commands; says what is wrong with the arguments, in JSON too."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run a command and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a name must not end the program because of the locale
        extra["standalone_mode"] = False
        try:
            status = super().main(arguments, prog_name or "holdfast", **extra)
        except USAGE_ERROR as error:
            options = arguments[: arguments.index("--")] if "--" in arguments else arguments
            if "--json" in options:
                Output(as_json=True).document({"error": {"type": "UsageError", "message": error.format_message()}})
            else:
                if error.ctx is not None:
                    print(error.ctx.get_usage(), file=sys.stderr)
                print(f"holdfast: {escaped(error.format_message())}", file=sys.stderr)
            status = USAGE
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    name="holdfast",
    cls=Commands,
    add_completion=False,
    # Not Rich's: "[@SERIAL]" would be markup to it, and examples would be run together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _help(*paragraphs: str, examples: Sequence[str]) -> str:
    # \b keeps click from filling a paragraph.
    shown = "\n".join(f"  $ holdfast {example}" for example in examples)
    return "\n\n".join([*paragraphs, f"\b\n{'Example' if len(examples) == 1 else 'Examples'}:\n{shown}"])


def _run(as_json: bool, work: Callable[[Output], int]) -> None:
    if status := guarded(work, Output(as_json)):
        raise typer.Exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"holdfast {__version__}")
        raise typer.Exit


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text; errors too.")]
Run = Annotated[str, typer.Argument(metavar="DIR", help="A run folder.")]
One = Annotated[
    str,
    typer.Argument(
        metavar="DIR[@SERIAL]",
        help="A run folder (its newest complete checkpoint is meant, or that with the serial), or a checkpoint's own folder.",
    ),
]
Pinned = Annotated[str, typer.Argument(metavar="DIR@SERIAL", help="A run folder and which of its checkpoints.")]


@app.callback(
    invoke_without_command=True,
    help=_help(
        "Look at checkpoints, verify, compare, prune, export and convert them.",
        "\b\nExit status:\n"
        "  0  done; nothing wrong was found\n"
        "  1  a difference or damage was found\n"
        "  2  wrong usage, or there is no such checkpoint\n"
        "  3  the system refused an operation, or another error",
        examples=["ls runs/digits", "verify runs/digits@3", "COMMAND --help"],
    ),
)
def _commands(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)


@app.command(
    help=_help(
        "List the checkpoints of a run.",
        "The oldest comes first. Below stand those that cannot be used, and why, and what interrupted saves left.",
        examples=["ls runs/digits", "ls runs/digits --json"],
    )
)
def ls(path: Run, as_json: Json = False) -> None:
    """`holdfast ls`."""
    from holdfast.cli.ls import ls

    _run(as_json, lambda out: ls(path, out))


@app.command(
    help=_help(
        "Show what a checkpoint holds.",
        "Variables by kind with dtype, shape and bytes, trainer arguments, values and files. Takes a .safetensors file too.",
        examples=["show runs/digits", "show runs/digits@3", "show model.safetensors"],
    )
)
def show(path: One, as_json: Json = False) -> None:
    """`holdfast show`."""
    from holdfast.cli.show import show

    _run(as_json, lambda out: show(path, out))


@app.command(
    help=_help(
        "Read every byte of a checkpoint and check it.",
        "Names each damaged variable. A newer checkpoint that cannot be used counts as damage, as a load would pass it over. "
        "Exit status 0: all is sound; 1: damage was found; 3: something could not be read.",
        examples=["verify runs/digits", "verify runs/digits@3", "verify runs/digits --all"],
    )
)
def verify(
    path: One,
    every: Annotated[bool, typer.Option("--all", help="Verify every checkpoint of the run.")] = False,
    as_json: Json = False,
) -> None:
    """`holdfast verify`."""
    from holdfast.cli.verify import verify

    _run(as_json, lambda out: verify(path, every, out))


@app.command(
    help=_help(
        "Compare two checkpoints.",
        "Lists what was added (+), removed (-) and changed (~): how many elements, the largest absolute difference, and "
        "the norm of the difference relative to that of A. Values beside the variables and trainer arguments are compared "
        "too; steps, metrics and dates are not. Takes .safetensors files too. Only what differs is read. "
        "Exit status 0: equal; 1: they differ.",
        examples=["diff runs/digits@2 runs/digits@3", "diff --params runs/digits@3 exported-model"],
    )
)
def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="DIR[@SERIAL], a checkpoint's own folder or a .safetensors file.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; what A became.")],
    parameters_only: Annotated[bool, typer.Option("--params", help="Compare the parameters only.")] = False,
    as_json: Json = False,
) -> None:
    """`holdfast diff`."""
    from holdfast.cli.diff import diff

    _run(as_json, lambda out: diff(a, b, parameters_only, out))


@app.command(
    help=_help(
        "Delete all but the newest checkpoints of a run.",
        "Pinned ones stay besides. What interrupted saves left is removed too.",
        examples=["prune runs/digits --keep 3 --dry-run", "prune runs/digits --keep 3 --keep-period 1000"],
    )
)
def prune(
    path: Run,
    keep: Annotated[int, typer.Option("--keep", min=1, metavar="N", help="How many of the newest stay.")],
    keep_period: Annotated[
        int | None,
        typer.Option("--keep-period", min=1, metavar="K", help="Those whose step is a multiple of K stay too."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """`holdfast prune`."""
    from holdfast.cli.keep import prune

    _run(as_json, lambda out: prune(path, keep, keep_period, dry_run, out))


@app.command(
    help=_help(
        "Keep a checkpoint whatever the rules of rotation say.",
        examples=["pin runs/digits@3"],
    )
)
def pin(path: Pinned, as_json: Json = False) -> None:
    """`holdfast pin`."""
    from holdfast.cli.keep import pin

    _run(as_json, lambda out: pin(path, True, out))


@app.command(
    help=_help(
        "Let rotation delete a checkpoint again.",
        examples=["unpin runs/digits@3"],
    )
)
def unpin(path: Pinned, as_json: Json = False) -> None:
    """`holdfast unpin`."""
    from holdfast.cli.keep import pin

    _run(as_json, lambda out: pin(path, False, out))


@app.command(
    help=_help(
        "Make a folder of a checkpoint's parameters, for prediction.",
        "The files are hard links where the file system has them, so no data is copied. An earlier export there is "
        "replaced as a whole; a folder that is not Holdfast's own is refused.",
        examples=["export runs/digits@3 exported-model"],
    )
)
def export(
    path: One,
    out_path: Annotated[str, typer.Argument(metavar="OUT", help="The folder to make.")],
    as_json: Json = False,
) -> None:
    """`holdfast export`."""
    from holdfast.cli.export import export

    _run(as_json, lambda out: export(path, out_path, out))


@app.command(
    help=_help(
        "Convert files of others to Holdfast, and back.",
        "What the source is, its content says: a .pt file, a safetensors file or a Hugging Face folder, .npz or .npy, a folder of "
        "torch.distributed.checkpoint, of Orbax or of paddle.distributed, a .pdparams file (or what the names of such a pair "
        "begin with), Fluid's folder with a file per variable, combined file or tree of checkpoints, or Holdfast's own. "
        "Nothing in it is executed. Without --to, files of others become Holdfast's, and Holdfast's become a folder of "
        "Fluid.",
        "A model becomes a folder DST that stands alone. What holds more than a model, such as an optimizer or the number of "
        "an epoch, becomes the next checkpoint of the run DST.",
        examples=[
            "convert model.pt model",
            "convert training.pt runs/old --names parameters.txt",
            "convert training.pt model --part model",
            "convert pretrained-model model",
            "convert runs/digits@3 model.pt --to pt",
            "convert old-checkpoints runs/digits",
            "convert runs/digits@3 old --to fluid",
        ],
    )
)
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A file or folder, or DIR@SERIAL.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The folder, file or run to make.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="FORMAT", help="holdfast, fluid, fluid-combined, fluid-checkpoint, pdparams, pt or npz."
        ),
    ] = None,
    serial: Annotated[int | None, typer.Option("--serial", min=0, metavar="N", help="Which checkpoint of SRC.")] = None,
    program: Annotated[
        str | None, typer.Option("--program", metavar="FILE", help="The program whose variables a combined file holds.")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--names",
            metavar="FILE",
            help="Or the names of these variables, one a line; of a .pt file those of its optimizer's parameters, in its order.",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="KEY", help="Only what SRC has below this key, such as model, under names without it."
        ),
    ] = None,
    persistable: Annotated[
        list[str] | None,
        typer.Option("--persistable", metavar="GLOB", help="Names that are no parameters; may be given several times."),
    ] = None,
    bfloat16: Annotated[
        list[str] | None,
        typer.Option(
            "--bfloat16",
            metavar="NAME",
            help="An array of .pdparams, .npz or .npy that is bfloat16, stored as bare bits; '*': all.",
        ),
    ] = None,
    paddle: Annotated[
        bool, typer.Option("--paddle", help="Write what only Paddle 2 and later read: bfloat16, complex, scalars.")
    ] = False,
    as_json: Json = False,
) -> None:
    """`holdfast convert`."""
    from holdfast.cli.convert import convert
    from holdfast.cli.convert_sources import Hints
    from holdfast.cli.targets import path_of

    hints = Hints(program, names, persistable or (), bfloat16 or (), part)
    dialect: Dialect = "paddle" if paddle else "fluid"
    _run(as_json, lambda out: convert(source, path_of(destination), to, serial, hints, dialect, out))
