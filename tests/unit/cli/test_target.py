"""Where the command line finds nodes and token: the order of CONTRACT, and that no token goes to a node it was not made for."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from igor_node import words
from igor_node.cli import contexts
from igor_node.cli import target as places
from igor_node.cli.contexts import Context
from igor_node.cli.target import find_target, normal_address, remember_index, remembered_index

A, B, C = "http://127.0.0.1:1001", "http://127.0.0.1:1002", "http://127.0.0.1:1003"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment with a home of its own; also root's default directory is in it."""
    monkeypatch.setattr(places, "default_data_dir", lambda environ: Path(environ["HOME"]) / "default")
    return {"HOME": str(tmp_path)}


def write_context(nodes: list[str], token: str, environ: dict[str, str], name: str = "x") -> Path:
    path = contexts.write(Context(name, "cluster", tuple(nodes), token), environ)
    contexts.use(name, environ)
    return path


def data_dir(folder: Path, address: str, token: str | None = "igor1.none.d.secret", peers: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "address").write_text(address + "\n")
    if token:
        (folder / "admin.token").write_text(token + "\n")
    if peers:
        (folder / "peers").write_text(peers)
    return folder


def test_named_nodes_come_first(home: dict[str, str], tmp_path: Path) -> None:
    data_dir(tmp_path / "default", C)
    environ = {**home, "IGOR_NODE": f"{B}, {C}", "IGOR_TOKEN": "t"}
    assert find_target([A], environ=environ).addresses == (A,)
    assert find_target(environ=environ).addresses == (B, C)
    assert find_target(environ=environ).token == "t"


def test_then_the_data_directory_with_its_peers(home: dict[str, str], tmp_path: Path) -> None:
    """So that a node's directory still leads to its cluster while that node is down."""
    folder = data_dir(tmp_path / "n1", A, peers=f"{B}\n{C}\n{A}\n")
    write_context([C], "context", home)
    found = find_target(data_dir=folder, environ=home)
    assert found.addresses == (A, B, C) and found.token == "igor1.none.d.secret"
    assert find_target(environ={**home, "IGOR_DATA_DIR": str(folder)}) == found


def test_then_the_login_then_the_default_directory(home: dict[str, str], tmp_path: Path) -> None:
    data_dir(tmp_path / "default", A)
    assert find_target(environ=home).addresses == (A,)
    write_context([B, C], "context", home)
    found = find_target(environ=home)
    assert (found.addresses, found.token) == ((B, C), "context")


def test_nothing_anywhere_says_what_to_do(home: dict[str, str]) -> None:
    with pytest.raises(words.Unavailable, match=r"--node URL, or start one: igor-node start"):
        find_target(environ=home)


def test_a_data_directory_without_a_node_says_so(home: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(words.Unavailable, match="no node has been in service here"):
        find_target(data_dir=tmp_path / "nothing", environ=home)


def test_the_token_file_wins(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "t").write_text("from-file\n")
    environ = {**home, "IGOR_TOKEN": "from-environment", "IGOR_NODE": A}
    assert find_target(token_file=str(tmp_path / "t"), environ=environ).token == "from-file"
    assert find_target(environ=environ).token == "from-environment"


@pytest.mark.parametrize("text, said", [(None, "there is no such token file"), ("", "holds no token"), ("two words", "holds no token")])
def test_a_token_file_without_a_token_is_refused(home: dict[str, str], tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "t").write_text(text)
    with pytest.raises(words.Malformed, match=said):
        find_target([A], token_file=str(tmp_path / "t"), environ=home)


def test_this_machines_token_goes_to_loopback_alone(home: dict[str, str], tmp_path: Path) -> None:
    """Whoever names a node must not get the key of another one."""
    folder = data_dir(tmp_path / "default", A)
    assert find_target([B], environ=home).token == "igor1.none.d.secret"
    assert find_target(["10.0.0.1:7946"], environ=home).token is None
    assert find_target(["10.0.0.1:7946"], data_dir=folder, environ=home).token is None
    assert find_target([B, "10.0.0.1:7946"], data_dir=folder, environ=home).token is None


def test_a_contexts_token_goes_to_its_own_nodes_alone(home: dict[str, str]) -> None:
    write_context(["http://10.0.0.1:7946"], "context", home)
    assert find_target(["10.0.0.1:7946"], environ=home).token == "context"
    assert find_target(["10.0.0.2:7946"], environ=home).token is None


def test_inside_a_job_the_name_of_its_node_is_no_address(home: dict[str, str], tmp_path: Path) -> None:
    """A command sees IGOR_NODE=n2: the node that runs it. `igor` in it goes by the next place."""
    data_dir(tmp_path / "default", A)
    assert find_target(environ={**home, "IGOR_NODE": "n2", "IGOR_RUN": "r", "IGOR_ATTEMPT": "1"}).addresses == (A,)
    assert find_target(environ={**home, "IGOR_NODE": "n2"}).addresses == ("http://n2:7946",)


@pytest.mark.parametrize(
    "text, url",
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:7946"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://[::1]", "http://[::1]:7946"),
    ],
)
def test_addresses_may_be_short(text: str, url: str) -> None:
    assert normal_address(text) == url


@pytest.mark.parametrize("text", ["", "http://", "127.0.0.1:99999", "127.0.0.1:x", "ftp://a:1", "http://a:1/path", "http://a:1?x=1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(words.Malformed, match="expected HOST:PORT"):
        normal_address(text)


def test_a_token_that_names_a_ca_is_sent_by_tls_alone() -> None:
    """However the node was named."""
    token = f"igor1.{'a' * 64}.t.s"
    assert places.secured(["http://127.0.0.1:7946", "https://h:1"], token) == ("https://127.0.0.1:7946", "https://h:1")
    assert places.secured(["http://127.0.0.1:7946"], "igor1.none.t.s") == ("http://127.0.0.1:7946",)
    assert normal_address("https://h") == "https://h:7946"


def test_a_context_is_private_and_a_broken_one_is_a_clear_fault(home: dict[str, str]) -> None:
    path = write_context([A], "secret", home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]
    for broken in ("{", "[]", '{"cluster": 1, "nodes": [], "token": null}', '{"cluster": "c", "nodes": [1]}'):
        path.write_text(broken)
        with pytest.raises(words.Malformed, match="igor logout x removes it"):
            find_target(environ=home)


def test_one_of_several_contexts_is_in_use(home: dict[str, str]) -> None:
    """The last one; the environment or an option names another for one command."""
    write_context([A], "one", home, "one")
    write_context([B], "other", home, "other")
    assert find_target(environ=home).token == "other"
    assert find_target(environ={**home, "IGOR_CONTEXT": "one"}).token == "one"
    assert find_target(environ={**home, "IGOR_CONTEXT": "one"}, context="other").token == "other"
    assert find_target([C], environ={**home, "IGOR_NODE": B}, context="one").addresses == (A,)
    contexts.use("one", home)
    assert find_target(environ=home).token == "one"
    with pytest.raises(words.NotFound, match="there are: one, other"):
        find_target(environ=home, context="third")
    contexts.remove("one", home)
    assert contexts.current(home) is None and contexts.names(home) == ["other"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101])
def test_what_is_no_name_of_a_context(home: dict[str, str], name: str) -> None:
    with pytest.raises(words.Malformed):
        contexts.file_of(name, home)


def test_a_node_that_is_named_gets_the_token_of_its_own_context(home: dict[str, str]) -> None:
    """Also where another one is in use."""
    write_context(["http://10.0.0.1:7946"], "one", home, "one")
    write_context(["http://10.0.0.2:7946"], "other", home, "other")
    assert find_target(["10.0.0.1:7946"], environ=home).token == "one"


def test_the_index_of_the_last_write_is_known_to_the_next_command(home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For half a minute, and only with the same token: another cluster's indexes mean nothing here."""
    mine, other = places.Target((A,), "t1", "x"), places.Target((A,), "t2", "x")
    assert remembered_index(mine, home) is None
    remember_index(mine, 41, home)
    assert remembered_index(mine, home) == 41 and remembered_index(other, home) is None
    file = next((tmp_path / ".local/state/igor").iterdir())
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "at": kept["at"] - 31}))
    assert remembered_index(mine, home) is None


def test_a_home_that_cannot_be_written_to_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"HOME": str(tmp_path / "file")}
    remember_index(places.Target((A,), None, "x"), 1, environ)
    assert remembered_index(places.Target((A,), None, "x"), environ) is None
