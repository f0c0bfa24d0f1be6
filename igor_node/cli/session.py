"""What one call of `igor` knows: the options of every command, the client made from them, and the two ways out (data and words).

Data goes to standard output in the form that `-o` names, words for people to standard error. Commands get a `Session`; they never print by
themselves. `client` is made when a command first asks for it, so that a local command needs no node.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igor_node.cli import output
from igor_node.cli.output import Column

if TYPE_CHECKING:
    from igor_node.cli.client import Client
    from igor_node.cli.target import Target


@dataclass
class Session:
    form: str = "table"
    local_time: bool = False
    quiet: bool = False
    verbose: int = 0
    no_color: bool = False
    yes: bool = False
    nodes: tuple[str, ...] = ()
    data_dir: Path | None = None
    token_file: str | None = None
    context: str | None = None
    _noticed: set[str] = field(default_factory=set)

    @cached_property
    def target(self) -> Target:
        from igor_node.cli.target import find_target

        return find_target(self.nodes, self.data_dir, self.token_file, context=self.context)

    @cached_property
    def client(self) -> Client:
        from igor_node.cli.client import Client
        from igor_node.cli.target import remember_index, remembered_index

        target = self.target
        return Client(
            target.addresses,
            target.token,
            authorities=target.authorities,
            index=remembered_index(target),
            notice=self._notice,
            on_write=lambda index: remember_index(target, index),
            on_age=self._aged,
        )

    @property
    def structured(self) -> bool:
        """Whether standard output is for a program."""
        return self.form in ("json", "jsonl")

    # --- words

    def say(self, text: str) -> None:
        """Words for a person; `-q` silences them."""
        if not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Words that even `-q` lets through."""
        click.echo(text, err=True)

    def _notice(self, text: str) -> None:
        if self.verbose and text not in self._noticed:
            self._noticed.add(text)
            click.echo(f"igor: {text}", err=True)

    def _aged(self, age_s: float) -> None:
        if "age" not in self._noticed and not self.quiet:
            self._noticed.add("age")
            click.echo(f"igor: no quorum: this is what the node knew {output.span_text(age_s)} ago", err=True)

    def confirm(self, question: str) -> None:
        """Asks where a person is there to answer; `-y` and scripts go on."""
        if not self.yes and sys.stdin.isatty() and sys.stderr.isatty():
            click.confirm(question, abort=True, err=True)

    # --- data

    def items(self, items: Sequence[dict[str, Any]], columns: Sequence[Column], *, whole: Any = None, name: str = "name", empty: str = "") -> None:
        """A list: as a table, as `whole` (the API's answer) in JSON, as lines of JSON, or as names alone."""
        match self.form:
            case "json":
                output.write_json(items if whole is None else whole)
            case "jsonl":
                output.write_lines(output.compact(item) for item in items)
            case "name":
                output.write_lines(str(item.get(name) or "") for item in items)
            case _ if not items:
                self.say(empty or "nothing to show")
            case form:
                output.write_table(items, [column for column in columns if form == "wide" or not column.wide], self)

    def thing(self, thing: dict[str, Any], text: Iterable[str], *, name: str = "name") -> None:
        """One thing: as lines of text, as JSON, or as its name alone."""
        match self.form:
            case "json":
                output.write_json(thing)
            case "jsonl":
                output.write_lines([output.compact(thing)])
            case "name":
                output.write_lines([str(thing.get(name) or "")])
            case _:
                output.write_lines(text)

    def time(self, text: str | None) -> str:
        return output.time_text(text, local=self.local_time)
