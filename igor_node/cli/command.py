"""The shape that all commands of both programs share: examples first, the options of every command, one way out for errors.

`Command` and `Group` are click's, with two additions: every `--help` begins with an example, and the options that work everywhere (`-o`, `--json`,
`-q`, …) may stand before or after the command's name and are listed apart from the command's own. `run` turns whatever a command raises into
words on standard error and an exit code of `words`; nobody ever sees a traceback for something that is not our mistake.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from igor_node import words
from igor_node.cli.session import Session

FORMS = ("table", "wide", "json", "jsonl", "name")
HELP_NAMES = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
SENTENCE_CHARACTERS = 200  # of a command's help in the list of its group
INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended


class WaitTimedOut(words.IgorError):
    """`--timeout` of a command that waits ran out; what is waited for goes on."""

    exit_code, title = 8, "Wait timed out"


class Shaped(click.Command):
    """Adds the options of every command and puts the examples first. `remote`: talks to a node."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), remote: bool = True, session: bool = True, **attributes: Any) -> None:
        attributes.setdefault("context_settings", HELP_NAMES)
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)
        self.everywhere = everywhere(remote=remote) if session else []
        self.params.extend(self.everywhere)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            formatter.write("Example:\n" if len(self.examples) == 1 else "Examples:\n")
            formatter.write("".join(f"  {example}\n" for example in self.examples))
            formatter.write_paragraph()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        mine = [param for param in self.get_params(ctx) if isinstance(param, click.Option) and param not in self.everywhere]
        own = [record for param in mine if (record := param.get_help_record(ctx))]
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        shared = [record for param in self.everywhere if (record := param.get_help_record(ctx))]
        if shared:
            with formatter.section("Options of every command"):
                formatter.write_dl(shared)


class Command(Shaped):
    pass


class Group(Shaped, click.Group):
    """Its commands in the order in which they were added, which is the order in which people read them."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.command_class = Command
        self.group_class = Group

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each with the first sentence of its help, whole."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(SENTENCE_CHARACTERS)) for name, command in self.commands.items()])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def everywhere(*, remote: bool) -> list[click.Parameter]:
    """The options of every command; each call makes new ones, because click keeps state in them."""
    shown: list[click.Parameter] = [
        _option(["-o", "--output"], "form", "How to print data.", type=click.Choice(FORMS)),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_json, help="The same as -o json."),
        click.Option(
            ["--utc/--local"],
            default=None,
            expose_value=False,
            callback=_local,
            help="Times in UTC (as they are without it) or in this machine's zone.",
        ),
        _option(["-q", "--quiet"], "quiet", "No words on standard error but errors.", is_flag=True),
        _option(["-v", "--verbose"], "verbose", "Say which nodes were passed over, and why.", count=True),
        _option(["--no-color"], "no_color", "No colours.", is_flag=True),
        _option(["-y", "--yes"], "yes", "Do not ask, do it.", is_flag=True),
    ]
    if not remote:
        return shown
    return [
        *shown,
        _option(["--node"], "nodes", "A node to ask, as URL or HOST:PORT; may be given several times [IGOR_NODE].", multiple=True, metavar="URL"),
        _option(["--data-dir"], "data_dir", "Ask the node with this data directory [IGOR_DATA_DIR].", type=click.Path(path_type=Path), metavar="D"),
        _option(["--context"], "context", "Ask the cluster that igor login remembers under this name [IGOR_CONTEXT].", metavar="NAME"),
        _option(["--token-file"], "token_file", "Where the token is; - is standard input [the token itself: IGOR_TOKEN].", metavar="F"),
    ]


def _option(names: list[str], field: str, text: str, **attributes: Any) -> click.Option:
    """An option whose value goes into the session's `field` if it was given."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        session = ctx.ensure_object(Session)
        if value:
            setattr(session, field, value)

    return click.Option(names, expose_value=False, callback=keep, help=text, **attributes)


def _json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    session = ctx.ensure_object(Session)
    if value:
        session.form = "json"


def _local(ctx: click.Context, param: click.Parameter, value: bool | None) -> None:
    session = ctx.ensure_object(Session)
    if value is not None:
        session.local_time = not value


def run(program: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Calls a command line and gives its exit code; every foreseen error becomes words on standard error. A pipe whose reader has gone is click's."""
    try:
        result = program.main(args=None if arguments is None else list(arguments), prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except click.Abort:
        return INTERRUPTED
    except words.IgorError as problem:
        return tell(name, problem)
    except OSError as problem:
        click.echo(f"{name}: {problem.filename or 'error'}: {problem.strerror or problem}", err=True)
        return 1
    except Exception as problem:  # the edge of the program: our mistake, or an answer that is not of this version
        return _tell_mistake(name, problem, arguments)


def _tell_mistake(name: str, problem: Exception, arguments: Sequence[str] | None) -> int:
    """One line; where it happened only for those who ask for it."""
    given = sys.argv[1:] if arguments is None else arguments
    if any(argument in ("-v", "-vv", "--verbose") for argument in given):
        traceback.print_exception(problem)
    click.echo(f"{name}: this should not have happened: {type(problem).__name__}: {problem} (-v tells where)", err=True)
    return 1


def tell(name: str, problem: words.IgorError) -> int:
    """The words of an error. Faults of definitions come as they are, one line each, so that an editor can jump to them."""
    for fault in problem.faults if isinstance(problem, words.Invalid) else ():
        click.echo(fault, err=True)
    click.echo(f"{name}: {problem}", err=True)
    return problem.exit_code
