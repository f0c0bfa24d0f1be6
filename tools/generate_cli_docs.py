"""Writes docs/cli.md from the `--help` of every command of both programs.

    python -m tools.generate_cli_docs            writes the page
    python -m tools.generate_cli_docs --check    exits 1 if the page is not what it would write

A test does the same check: whoever changes a command runs this and commits the page with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = 100  # fixed, so that the page does not depend on somebody's terminal
HEAD = """\
# The command lines

This page is made from `--help` by `python -m tools.generate_cli_docs`; do not edit it.

`igor` is for everybody who uses a cluster, `igor-node` for whoever runs its machines. Data goes to standard output, words for people to standard
error. The options of every command may stand before or after its name; they are listed once, at `igor`. `-o json` prints the answer of the API as
it is (times in UTC), `-o jsonl` a line an item, `-o name` names or ids alone.

| exit code | of `igor` |
| --- | --- |
| 0 | done |
| 1 | failed; `audit`: a fire was made twice or is unaccounted for |
| 2 | usage, or definitions that are not valid |
| 3 | `plan` found changes |
| 4 | not found |
| 5 | conflict |
| 6 | denied |
| 7 | no quorum, or no node can be reached |
| 8 | `--timeout` of a command that waits ran out |
| 10, 11, 12, 13, 14 | `run --wait`, `run --follow`, `watch`: the run failed, timed out, was cancelled, was lost, was skipped or missed |
| 130 | Ctrl-C |

| exit code | of `igor-node` |
| --- | --- |
| 0 | asked to stop |
| 1 | failed |
| 2 | usage, or settings that are not valid |
| 3 | the data directory is damaged or in use |
| 4 | refused by the cluster |

`igor-node check` has the codes of Nagios: 0 ok, 1 warning, 2 critical, 3 unknown.
"""


def page() -> str:
    from igor_node.cli.igor import igor
    from igor_node.cli.node import igor_node

    sections = [section for program in (igor, igor_node) for section in _sections(program, str(program.name), None, 2)]
    return "\n".join([HEAD, *sections])


def _sections(command: click.Command, name: str, parent: click.Context | None, level: int) -> Iterator[str]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    title = context.command_path
    text = command.get_help(context)
    if parent is not None:  # they stand once, at the program
        text = text.partition("Options of every command:")[0]
    yield f"{'#' * level} `{title}`\n\n```text\n{text.rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for inner_name, inner in command.commands.items():
            yield from _sections(inner, inner_name, context, 3)


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not fresh:
            print(f"{PAGE} is not fresh; run: python -m tools.generate_cli_docs", file=sys.stderr)
        return 0 if fresh else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
