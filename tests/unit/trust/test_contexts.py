"""Contexts over real sockets: who believes whom, the pin in a token, and what a rotation of the CA leaves working."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from igor_node.trust import certificates, contexts, pins
from igor_node.trust.contexts import Trust
from igor_node.trust.pins import asking_context
from tests.unit.trust.authorities import NOW_S, make_node

AUTHORITY = certificates.found_authority("c1", NOW_S)
STRANGER = certificates.found_authority("c1", NOW_S)


def talk(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str]:
    """Whom the server and the client take each other for, or why they do not."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[str] = []

    def serve() -> None:
        plain, _ = listener.accept()
        plain.settimeout(5)
        try:
            with server.wrap_socket(plain, server_side=True) as sock:
                seen.append(contexts.node_of(sock.getpeercert()))
                sock.sendall(b"x")
        except OSError as problem:
            seen.append(f"refused: {getattr(problem, 'reason', problem)}")
            plain.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), 5) as plain, client.wrap_socket(plain) as sock:
            met = contexts.node_of(sock.getpeercert())
            if sock.recv(1) != b"x":
                met = "closed"
    except OSError as problem:
        met = f"refused: {getattr(problem, 'reason', problem)}"
    thread.join()
    listener.close()
    return seen[0], met


def test_nodes_know_each_other_and_people_need_no_certificate(tmp_path: Path) -> None:
    one, other = Trust(make_node(tmp_path / "1", AUTHORITY, "n1")), Trust(make_node(tmp_path / "2", AUTHORITY, "n2"))
    assert talk(one.accepting(), other.dialling()) == ("n2", "n1")
    assert talk(one.serving(), other.asking()) == ("n2", "n1")
    assert talk(one.serving(), asking_context(AUTHORITY.certificates)) == ("", "n1")


def test_without_a_certificate_nobody_gets_to_consensus(tmp_path: Path) -> None:
    one = Trust(make_node(tmp_path / "1", AUTHORITY, "n1"))
    served, met = talk(one.accepting(), asking_context(AUTHORITY.certificates))
    assert served == "refused: PEER_DID_NOT_RETURN_A_CERTIFICATE" and met.startswith("refused")


@pytest.mark.parametrize(
    "authority, now_s",
    [
        pytest.param(STRANGER, NOW_S, id="another CA of the same name"),
        pytest.param(AUTHORITY, NOW_S - certificates.NODE_S - 7_200, id="expired"),
        pytest.param(AUTHORITY, NOW_S + 7_200, id="not valid yet"),
    ],
)
def test_a_certificate_that_is_not_good_is_refused_by_both_sides(tmp_path: Path, authority: certificates.Authority, now_s: int) -> None:
    one = Trust(make_node(tmp_path / "1", AUTHORITY, "n1"))
    bad = Trust(make_node(tmp_path / "2", authority, "n2", now_s=now_s, trusted=AUTHORITY.certificates))
    assert talk(one.accepting(), bad.dialling())[0] == "refused: CERTIFICATE_VERIFY_FAILED"
    assert talk(one.serving(), bad.asking())[0] == "refused: CERTIFICATE_VERIFY_FAILED"
    assert talk(bad.serving(), one.asking())[1] == "refused: CERTIFICATE_VERIFY_FAILED"


def test_older_versions_of_tls_are_refused(tmp_path: Path) -> None:
    one = Trust(make_node(tmp_path / "1", AUTHORITY, "n1"))
    old = asking_context(AUTHORITY.certificates)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert talk(one.serving(), old)[0] == "refused: UNSUPPORTED_PROTOCOL"


def test_a_new_certificate_counts_from_the_next_connection_on(tmp_path: Path) -> None:
    folder = make_node(tmp_path / "1", AUTHORITY, "n1")
    trust, client = Trust(folder), asking_context(AUTHORITY.certificates)
    make_node(folder, AUTHORITY, "n1-again")
    assert talk(trust.serving(), client)[1] == "n1"
    trust.renew()
    assert talk(trust.serving(), client)[1] == "n1-again"


# --- the pin


@pytest.fixture
def shown(tmp_path: Path):
    """Serves one context; gives the port, and the bytes that came through TLS."""
    made: list[socket.socket] = []

    def serve(context: ssl.SSLContext | None) -> tuple[int, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        made.append(listener)
        got: list[bytes] = []

        def run() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                plain.settimeout(5)
                try:
                    if context is None:
                        plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        plain.close()
                        continue
                    with context.wrap_socket(plain, server_side=True) as sock:
                        got.append(sock.recv(100))
                except OSError:
                    plain.close()

        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()[1], got

    yield serve
    for listener in made:
        listener.close()


def test_a_token_names_the_authority_and_nothing_is_sent_before_it_is_known(tmp_path: Path, shown) -> None:
    port, got = shown(Trust(make_node(tmp_path / "1", AUTHORITY, "n1")).serving())
    token = f"igor1.{certificates.fingerprint(AUTHORITY.certificates)}.k1.secret"
    found = pins.fetch_authority("127.0.0.1", port, pins.fingerprint_in(token) or "", 5)
    assert certificates.fingerprint(found) == pins.fingerprint_in(token)
    assert got in ([], [b""])


def test_another_cluster_is_not_taken_for_the_one_of_the_token(tmp_path: Path, shown) -> None:
    port, _ = shown(Trust(make_node(tmp_path / "1", STRANGER, "n1")).serving())
    with pytest.raises(pins.NotThisCluster, match="another cluster"):
        pins.fetch_authority("127.0.0.1", port, certificates.fingerprint(AUTHORITY.certificates), 5)


def test_who_shows_a_certificate_that_is_not_its_own_gets_no_token(tmp_path: Path, shown) -> None:
    """Somebody in between can show the CA, which is public; the second connection is verified and fails."""
    folder = make_node(tmp_path / "1", STRANGER, "n1")
    with (folder / contexts.CERTIFICATE).open("a") as file:
        file.write(AUTHORITY.certificates)
    context = Trust(folder).serving()
    port, _ = shown(context)
    found = pins.fetch_authority("127.0.0.1", port, certificates.fingerprint(AUTHORITY.certificates), 5)
    assert talk(context, asking_context(found))[1] == "refused: CERTIFICATE_VERIFY_FAILED"


def test_a_plain_port_is_said_so(shown) -> None:
    port, _ = shown(None)
    with pytest.raises(pins.NotThisCluster, match="does not speak TLS"):
        pins.fetch_authority("127.0.0.1", port, "ab" * 32, 5)


@pytest.mark.parametrize("token", [None, "", "x", "igor1.none.k1.s", "igor1.zz.k1.s", "other." + "ab" * 32 + ".k1.s"])
def test_tokens_of_plain_clusters_pin_nothing(token: str | None) -> None:
    assert pins.fingerprint_in(token) is None


# --- another CA


def test_after_a_rotation_old_and_new_nodes_know_each_other(tmp_path: Path) -> None:
    """Whoever has not heard of the new CA yet verifies by the old one, through the certificate that the old one gave the new one."""
    second = certificates.follow(AUTHORITY, "c1", NOW_S, 2)
    third = certificates.follow(second, "c1", NOW_S, 3)
    both = certificates.split_pem(second.certificates)[0] + AUTHORITY.certificates
    behind = Trust(make_node(tmp_path / "1", AUTHORITY, "n1"))
    between = Trust(make_node(tmp_path / "2", AUTHORITY, "n2", trusted=both))
    ahead = Trust(make_node(tmp_path / "3", second, "n3", trusted=both))
    far = Trust(make_node(tmp_path / "4", third, "n4", trusted=certificates.split_pem(third.certificates)[0] + both))
    for new in (between, ahead, far):
        assert "refused" not in str(talk(new.accepting(), behind.dialling()))
        assert "refused" not in str(talk(behind.accepting(), new.dialling()))


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_tokens_of_every_generation_pin_what_a_node_shows(tmp_path: Path, shown, generation: int) -> None:
    made = [AUTHORITY]
    for number in (2, 3):
        made.append(certificates.follow(made[-1], "c1", NOW_S, number))
    folder = make_node(tmp_path / "1", made[-1], "n1")
    leaf = (folder / contexts.CERTIFICATE).read_text()
    (folder / contexts.CERTIFICATE).write_text(certificates.chain(leaf, [one.certificates for one in reversed(made)]))
    context = Trust(folder).serving()
    port, _ = shown(context)
    wanted = certificates.fingerprint(made[generation - 1].certificates)
    found = pins.fetch_authority("127.0.0.1", port, wanted, 5)
    assert talk(context, asking_context(found)) == ("", "n1")


def test_when_the_old_authority_is_dropped_its_certificates_are_worth_nothing(tmp_path: Path) -> None:
    second = certificates.follow(AUTHORITY, "c1", NOW_S, 2)
    new = Trust(make_node(tmp_path / "1", second, "n1"))
    old = Trust(make_node(tmp_path / "2", AUTHORITY, "n2"))
    assert talk(new.accepting(), old.dialling())[0] == "refused: CERTIFICATE_VERIFY_FAILED"
