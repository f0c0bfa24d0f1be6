"""A node's settings: three places in order, all faults at once, each with its place and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from igor_node.settings import CHECKS, FILE_ONLY, NodeSettings, default_slots, read_settings, split_address
from igor_node.words import Invalid


def faults_of(folder: Path, options: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(Invalid) as raised:
        read_settings(folder, options or {}, environ or {})
    return raised.value.faults


def test_without_any_setting_a_node_listens_on_loopback(tmp_path: Path) -> None:
    found = read_settings(tmp_path, {}, {})
    assert found == NodeSettings(data_dir=tmp_path, slots=default_slots()) and found.given == frozenset()
    assert NodeSettings(tmp_path).listen_host == "127.0.0.1" and NodeSettings(tmp_path).listen_port == 7946


def test_the_later_place_wins(tmp_path: Path) -> None:
    """File, then environment, then options."""
    (tmp_path / "node.toml").write_text('name = "file"\nslots = 1\nvoters = 5\n[labels]\nzone = "eu"\ngpu = true\n')
    found = read_settings(tmp_path, {"name": "option"}, {"IGOR_NAME": "environment", "IGOR_SLOTS": "2"})
    assert (found.name, found.slots, found.voters, found.labels) == ("option", 2, 5, {"zone": "eu", "gpu": "true"})
    assert found.given == {"name", "slots", "voters", "labels"}


def test_options_that_were_not_given_change_nothing(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {"name": None}, {"IGOR_NAME": "environment"}).name == "environment"


def test_labels_are_pairs_in_every_place(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {"labels": ("zone=eu", "gpu=a100")}, {}).labels == {"zone": "eu", "gpu": "a100"}
    assert read_settings(tmp_path, {}, {"IGOR_LABELS": "zone=eu,gpu=a100"}).labels == {"zone": "eu", "gpu": "a100"}


def test_all_faults_of_all_places_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('nmae = "x"\nslots = "many"\n')
    faults = faults_of(tmp_path, {"listen": "here"}, {"IGOR_VOTERS": "2"})
    assert [fault.partition(": ")[0] for fault in faults] == [f"{tmp_path}/node.toml", f"{tmp_path}/node.toml", "IGOR_VOTERS", "--listen"]
    assert "there is no such setting" in faults[0] and "not a whole number" in faults[1] and "1, 3, 5 or 7" in faults[2] and "HOST:PORT" in faults[3]


@pytest.mark.parametrize(
    "option, value, said",
    [
        ("listen", "127.0.0.1", "expected HOST:PORT"),
        ("listen", "127.0.0.1:70000", "expected HOST:PORT"),
        ("listen", "::1:7946", "expected HOST:PORT"),
        ("listen", "0.0.0.0:7946", "expected --advertise HOST:PORT besides"),
        ("listen", "[::]:7946", "expected --advertise HOST:PORT besides"),
        ("advertise", "0.0.0.0:7946", "no address of one node"),
        ("tls", "off", "expected auto or on"),
        ("name", "a b", "is not a name"),
        ("name", "-x", "is not a name"),
        ("labels", ("zone",), "expected key=value"),
        ("labels", ("zone=a b",), "without space"),
        ("labels", tuple(f"l{n}=1" for n in range(101)), "at most 100"),
        ("slots", -1, "expected 0"),
        ("slots", 10_001, "to 10000"),
        ("slots", True, "not a whole number"),
        ("voters", 4, "1, 3, 5 or 7"),
        ("auth", "on", "required or off"),
        ("log_format", "xml", "text, json or auto"),
        ("log_level", "loud", "debug, info, warning or error"),
    ],
)
def test_what_is_not_possible_is_refused_with_what_was_expected(tmp_path: Path, option: str, value: Any, said: str) -> None:
    (fault,) = faults_of(tmp_path, {option: value})
    assert said in fault


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.0.0.2:1", "localhost:7946", "[::1]:7946"])
def test_loopback_in_all_its_forms_is_allowed(tmp_path: Path, listen: str) -> None:
    assert read_settings(tmp_path, {"listen": listen}, {}).listen == listen
    assert split_address(listen)[0] in ("127.0.0.1", "127.0.0.2", "localhost", "::1")


def test_a_file_that_is_no_toml_is_one_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("name = \n")
    (fault,) = faults_of(tmp_path)
    assert fault.startswith(f"{tmp_path}/node.toml: cannot be read: ") and "line 1" in fault


def test_every_setting_has_its_row_in_the_story() -> None:
    """The table at the top of the module is what docs and people read."""
    import igor_node.settings

    story = igor_node.settings.__doc__ or ""
    for name in CHECKS:
        assert f"\n    {name} " in story and (name in FILE_ONLY or f"IGOR_{name.upper()}" in story)


def test_the_environment_of_commands_stands_in_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[environment]\nLANG = "C.UTF-8"\n')
    assert read_settings(tmp_path, {}, {"IGOR_ENVIRONMENT": "A=b"}).environment == {"LANG": "C.UTF-8"}


@pytest.mark.parametrize(
    "line, said", [('IGOR_RUN = "x"', "IGOR_RUN"), ('"a b" = "x"', "a b"), ("A = 1", "table of texts"), ('A = "\\u0000"', "NUL")]
)
def test_an_environment_that_no_command_could_have_is_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "node.toml").write_text(f"[environment]\n{line}\n")
    (fault,) = faults_of(tmp_path)
    assert said in fault


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ('"nobody"', "it is not a list"),
        ('["no-such-user-here"]', 'there is no user "no-such-user-here" on this machine'),
        ("[7]", "it is not a list"),
    ],
)
def test_users_are_those_of_this_machine(tmp_path: Path, users: str, said: str) -> None:
    (tmp_path / "node.toml").write_text(f"users = {users}\n")
    with pytest.raises(Invalid) as refused:
        read_settings(tmp_path, {}, {})
    assert f"{tmp_path / 'node.toml'}: users: {said}" in str(refused.value.faults)
