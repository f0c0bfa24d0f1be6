"""SEMANTICS, "When a node is lost", from the wrapper's side: the lease file, the end of the lease, the wrapper's own renewal."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.unit.wrapper.room import MILLISECOND, SECOND, Room, alive, wait_for
from wrapper import protocol


def kinds(events):
    return [event["kind"] for event in events]


def write_lease(room: Room, renewed: int, steady: int, boot_id: str | None = None) -> None:
    line = protocol.Lease(boot_id or room.boot_id, renewed, steady, room.clock_ns).line()
    (room.root / protocol.LEASE).write_bytes(line)


def wait_lease_over(room: Room, attempt: str) -> None:
    """Until the lease that its spec gave it has run out by the clock, whether or not anybody looks."""
    spec = protocol.load_json(str(room.folder(attempt) / protocol.SPEC))
    assert spec is not None
    wait_for(lambda: protocol.boot_ns() > spec["lease_from_boot_ns"] + spec["lease_ns"], "the end of the lease")


# --- which renewals count: arithmetic


@pytest.mark.parametrize(
    "lease, counted_from, now, renewed, steady, good",
    [
        pytest.param(10, 100, 105, 104, 104, True, id="read while the lease is good"),
        pytest.param(10, 100, 115, 114, 112, False, id="an answer that came when the lease was over"),
        pytest.param(10, 100, 115, 114, 90, True, id="a reader that slept through a steady series"),
        pytest.param(3, 100, 105, 104, 90, False, id="a lease shorter than the gaps of the series"),
        pytest.param(10, 100, 105, 99, 90, False, id="an older heartbeat than the one it counts from"),
    ],
)
def test_which_renewals_count(lease: int, counted_from: int, now: int, renewed: int, steady: int, good: bool) -> None:
    """Seconds. The leader answers heartbeats without asking whether it has given an attempt up."""
    found = protocol.Lease("boot", renewed * SECOND, steady * SECOND, 0)
    assert found.renews(lease * SECOND, counted_from * SECOND, now * SECOND) is good


def leaderless(node: str, *, for_s: float = 3.0, after_s: float = 0.1, **more: Any) -> dict[str, Any]:
    return {"no_leader": True, "node": node, "for_s": for_s, "after_s": after_s, **more}


@pytest.mark.parametrize(
    "answers, voters, good",
    [
        pytest.param([{"renewed": True}], 3, True, id="the leader"),
        pytest.param([leaderless("a")], 3, False, id="one of three knows none"),
        pytest.param([leaderless("a"), leaderless("b")], 3, True, id="two of three know none"),
        pytest.param([leaderless("a"), leaderless("a")], 3, False, id="one of three, asked twice"),
        pytest.param([leaderless("a", voter=False)], 1, False, id="no voter"),
        pytest.param([leaderless("a"), leaderless("b", for_s=1.5)], 3, False, id="one of two not long enough: a leader may go on"),
        pytest.param([leaderless("a"), leaderless("b", for_s=8, after_s=7)], 3, False, id="one after the other, never together"),
        pytest.param([leaderless("a"), leaderless("b", for_s=9.5, after_s=7)], 3, True, id="the second was slow to answer"),
        pytest.param([{"renewed": False}, {"title": "Denied"}], 1, False, id="refused"),
    ],
)
def test_what_renews(answers: list[dict], voters: int, good: bool) -> None:
    assert protocol.renewed_by(answers, voters) is good


def test_a_torn_lease_file_says_nothing(tmp_path) -> None:
    path = tmp_path / "lease"
    line = protocol.Lease("b" * 36, 5, 4, -3).line()
    path.write_bytes(line)
    found = protocol.read_lease(str(path))
    assert found is not None and (found.renewed_boot_ns, found.steady_boot_ns, found.clock_ns) == (5, 4, -3)
    path.write_bytes(line[:40] + b"9" + line[41:])
    assert protocol.read_lease(str(path)) is None


# --- real processes


def test_the_end_of_the_lease_ends_the_command(room: Room) -> None:
    """KILL at once, for the whole tree; the attempt is lost, and not tried again."""
    attempt = room.start("trap '' TERM; sleep 60 & echo $! > ../child; wait; sleep 60", lease_ns=700 * MILLISECOND, retries={"max": 3})
    child = int(room.wait_file(attempt, "child"))
    began = room.events(attempt)[0]["at"]
    events = room.finish(attempt)
    assert kinds(events) == ["held", "try_started", "try_ended", "ended"]
    assert (events[-1]["state"], events[-1]["reason"]) == ("lost", "its lease ran out")
    assert 500 * MILLISECOND < events[-1]["at"] - began < 3 * SECOND
    assert not alive(child)


@pytest.mark.parametrize("policy", ["wait", "fail"])
def test_without_rerun_the_command_goes_on(room: Room, policy: str) -> None:
    events = room.run("sleep 0.8; exit 4", lease_ns=200 * MILLISECOND, on_node_loss=policy)
    assert events[-1]["exit_code"] == 4


def test_nothing_starts_without_a_lease(room: Room) -> None:
    attempt = room.start("echo x > ../count", lease_from_boot_ns=protocol.boot_ns() - 11 * SECOND, lease_ns=10 * SECOND)
    events = room.finish(attempt)
    assert kinds(events) == ["held", "ended"] and events[-1]["state"] == "lost"
    assert not (room.folder(attempt) / "count").exists()


def test_the_lease_runs_out_before_the_due_time(room: Room) -> None:
    events = room.run("true", lease_ns=300 * MILLISECOND, due_at=protocol.boot_ns() + room.clock_ns + 60 * SECOND)
    assert kinds(events) == ["held", "ended"] and events[-1]["state"] == "lost"


def test_the_node_renews(room: Room) -> None:
    """As long as the lease file is refreshed the command goes on, many leases long."""
    attempt = room.start("sleep 2.5; exit 6", lease_ns=SECOND)
    while not room.ended(attempt):
        write_lease(room, protocol.boot_ns(), protocol.boot_ns())
        time.sleep(0.05)
    assert room.events(attempt)[-1]["exit_code"] == 6


def test_a_lease_file_of_another_boot_renews_nothing(room: Room) -> None:
    attempt = room.start("sleep 60", lease_ns=400 * MILLISECOND)
    write_lease(room, protocol.boot_ns() + 100 * SECOND, 0, "another-boot")
    assert room.finish(attempt)[-1]["state"] == "lost"


def test_a_stopped_wrapper_wakes_after_its_lease(room: Room) -> None:
    """It ends the command when it can: nothing that came meanwhile counts for a lease this short."""
    attempt = room.start("sleep 60", lease_ns=500 * MILLISECOND)
    room.wait_kind(attempt, "try_started")
    pid = room.wrapper_pid(attempt)
    os.kill(pid, 19)
    wait_lease_over(room, attempt)
    write_lease(room, protocol.boot_ns(), protocol.boot_ns())
    os.kill(pid, 18)
    assert room.finish(attempt)[-1]["state"] == "lost"


def test_a_killed_wrapper_and_a_lease_that_is_over(room: Room) -> None:
    """The next wrapper starts no next try, whatever `retries` says."""
    attempt = room.start("echo $IGOR_TRY >> ../tries; echo on > ../on; sleep 60", lease_ns=600 * MILLISECOND, retries={"max": 5})
    room.wait_file(attempt, "on")
    os.kill(room.wrapper_pid(attempt), 9)
    room.wait_free(attempt)
    wait_lease_over(room, attempt)
    write_lease(room, protocol.boot_ns(), protocol.boot_ns())
    room.launch(attempt)
    events = room.finish(attempt)
    assert events[-1]["state"] == "lost"
    assert (room.folder(attempt) / "tries").read_text() == "1\n"


# --- its own renewal


class Voters:
    """Small nodes that answer renewals; `answer` per node, changed by the test."""

    def __init__(self, answers: list[Callable[[], tuple[int, dict, dict]]]) -> None:
        self.asked: list[tuple[int, str, str]] = []
        self.servers = [self._serve(n, answer) for n, answer in enumerate(answers)]
        self.addresses = [f"http://127.0.0.1:{server.server_port}" for server in self.servers]

    def _serve(self, number: int, answer: Callable[[], tuple[int, dict, dict]]) -> HTTPServer:
        voters = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                voters.asked.append((number, self.path, self.headers["Authorization"]))
                status, headers, body = answer()
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def voters() -> Iterator[Callable[..., Voters]]:
    made: list[Voters] = []

    def make(*answers: Callable[[], tuple[int, dict, dict]]) -> Voters:
        made.append(Voters(list(answers)))
        return made[-1]

    yield make
    for group in made:
        group.close()


def yes() -> tuple[int, dict, dict]:
    return 200, {}, {"renewed": True}


def refuses() -> tuple[int, dict, dict]:
    return 401, {}, {"title": "Not authenticated"}


def leaderless(node: str) -> Callable[[], tuple[int, dict, dict]]:
    return lambda: (200, {}, {"no_leader": True, "for_s": 60.0, "voter": True, "node": node})


def test_the_wrapper_renews_itself(room: Room, voters: Callable[..., Voters]) -> None:
    """More than two leases without a node: past half of each it asks the voters, with its own token."""
    group = voters(yes)
    attempt = room.start("sleep 4.5; exit 6", lease_ns=2 * SECOND, renew_addresses=group.addresses)
    room.wait_kind(attempt, "try_started")
    room.kill_zygote()
    assert room.finish(attempt)[-1]["exit_code"] == 6
    assert len(group.asked) >= 3
    assert set(group.asked) == {(0, f"/v1/attempts/{attempt}/renew", "Bearer secret")}


def test_a_majority_without_a_leader_renews(room: Room, voters: Callable[..., Voters]) -> None:
    group = voters(leaderless("a"), leaderless("b"))
    addresses = ["http://127.0.0.1:9", *group.addresses]
    events = room.run("sleep 2.5; exit 6", lease_ns=2 * SECOND, renew_addresses=addresses)
    assert events[-1]["exit_code"] == 6


def test_one_voter_of_a_spec_that_is_older_than_the_others_is_no_majority(room: Room, voters: Callable[..., Voters]) -> None:
    """The spec was written when there was one voter; now there are three, and the one that is left says so."""
    left = voters(lambda: (200, {}, {"no_leader": True, "for_s": 60.0, "voter": True, "voters": 3, "node": "a"}))
    assert room.run("sleep 60", lease_ns=SECOND, renew_addresses=left.addresses)[-1]["state"] == "lost"


@pytest.mark.parametrize("answer", [pytest.param(refuses, id="refused"), pytest.param(leaderless("a"), id="one of three")])
def test_what_does_not_renew_ends_the_command(room: Room, voters: Callable[..., Voters], answer: Callable[[], tuple[int, dict, dict]]) -> None:
    addresses = [*voters(answer).addresses, "http://127.0.0.1:9", "http://127.0.0.1:9"]
    assert room.run("sleep 60", lease_ns=SECOND, renew_addresses=addresses)[-1]["state"] == "lost"


def test_it_goes_to_the_leader_it_is_told_of(room: Room, voters: Callable[..., Voters]) -> None:
    leader = voters(yes)
    group = voters(lambda: (421, {"Igor-Leader": leader.addresses[0]}, {"title": "Not the leader"}))
    events = room.run("sleep 2.5; exit 6", lease_ns=2 * SECOND, renew_addresses=group.addresses)
    assert events[-1]["exit_code"] == 6 and leader.asked


def test_a_voter_that_hangs_holds_up_nothing(room: Room, voters: Callable[..., Voters]) -> None:
    """Output is read and the lease ends in time while a connection waits."""
    over = threading.Event()

    def hang() -> tuple[int, dict, dict]:
        over.wait(20)
        return yes()

    attempt = room.start("while :; do echo x; sleep 0.01; done", lease_ns=SECOND, renew_addresses=voters(hang).addresses)
    try:
        events = room.finish(attempt)
    finally:
        over.set()
    assert events[-1]["state"] == "lost"
    assert events[-1]["at"] - events[1]["at"] < 10 * SECOND, "the end waited for the voter, which hangs for 20 s"
    assert len(room.output(attempt).split()) > 10


def test_asking_leaves_no_trace_in_the_measures(room: Room, voters: Callable[..., Voters]) -> None:
    """The child that asks is no process of the command's."""
    events = room.run("sleep 1.3", lease_ns=2 * SECOND, renew_addresses=voters(yes).addresses)
    assert events[-1]["state"] == "succeeded" and "reason" not in events[-1]


def test_what_ended_while_the_node_is_down_is_told_to_the_leader(room: Room, voters: Callable[..., Voters]) -> None:
    """The job's next run may wait for this end, so it does not wait for the node: the wrapper reports it, and is done."""
    group = voters(lambda: (200, {}, {"renewed": True, "upto": 4}))
    room.node_down()
    attempt = room.start("exit 6", renew_addresses=["http://127.0.0.1:9", *group.addresses])
    room.finish(attempt)
    wait_for(lambda: not protocol.lock_holder(str(room.folder(attempt) / protocol.LOCK)), "the wrapper to end")
    assert group.asked == [(0, f"/v1/attempts/{attempt}/events", "Bearer secret")]


def test_what_ended_while_nobody_listens_keeps_its_lease(room: Room, voters: Callable[..., Voters]) -> None:
    """No node, and a leader that commits nothing: the wrapper goes on renewing, so nobody reruns it, until the node is back."""
    group = voters(yes)
    room.node_down()
    attempt = room.start("exit 6", lease_ns=SECOND, renew_addresses=group.addresses)
    room.finish(attempt)
    wait_for(lambda: len(group.asked) >= 3, "renewals after the end")
    assert protocol.lock_holder(str(room.folder(attempt) / protocol.LOCK))
    room.node_up()
    wait_for(lambda: not protocol.lock_holder(str(room.folder(attempt) / protocol.LOCK)), "the wrapper to end")
    assert room.kinds(attempt) == ["held", "try_started", "try_ended", "ended"]
