"""The page of the command lines is what `--help` says, and every `--help` keeps the house rules."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from igor_node.cli.command import Shaped
from igor_node.cli.igor import igor
from igor_node.cli.node import igor_node
from tools.generate_cli_docs import PAGE, page

LATER = {"retry", "approve", "rollback", "history", "render", "test", "stats", "top"}


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")


ALL = [*commands(igor, "igor"), *commands(igor_node, "igor-node")]


def test_the_page_is_fresh() -> None:
    """After a change of a command: python -m tools.generate_cli_docs"""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("path, command", ALL, ids=[path for path, _ in ALL])
def test_every_help_begins_with_an_example_of_the_command(path: str, command: click.Command) -> None:
    assert isinstance(command, Shaped) and command.examples
    help_text = command.get_help(click.Context(command, info_name=path))
    first = help_text.splitlines()[1].strip()
    assert help_text.startswith("Example") and path.split()[0] in first
    assert all(path in example for example in command.examples) or isinstance(command, click.Group)


@pytest.mark.parametrize("path, command", ALL, ids=[path for path, _ in ALL])
def test_every_command_and_option_says_what_it_is_for(path: str, command: click.Command) -> None:
    assert command.help
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{path} {param.opts[0]}"


def test_commands_of_later_versions_are_not_there() -> None:
    """No stubs: what cannot be done is not offered."""
    assert not LATER & set(igor.commands)


def test_the_commands_of_the_contract_are_there() -> None:
    wanted = "init validate plan push schema jobs job schedule upcoming run cancel runs show watch logs why audit events nodes status ui"
    more = "lost pause resume node dst backfill backfills backup restore verify login logout whoami context token secret completion activity"
    assert {*wanted.split(), *more.split()} == set(igor.commands)
