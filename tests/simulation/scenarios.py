"""For each mend a history that was made to meet its fault: it runs well with all mends, and breaks the promise named here without that one.

Each scenario gets a fresh world and drives it; the checks after every event, or a bound at its end, raise `Broken`. They are small versions of
the stories in `docs/consensus.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from raft.engine import State
from raft.interface import Kind, Member, Members, Unknown
from raft.messages import Append, AppendReply, TimeoutNow, VoteReply, VoteRequest
from raft.settings import DEFAULT_SETTINGS, Settings
from tests.simulation.checks import Broken
from tests.simulation.clients import Attempt
from tests.simulation.machine import Command, Verb
from tests.simulation.node import SimNode
from tests.simulation.world import World

Rule = Callable[[str, str, Any], bool]


class Interceptor:
    """Takes the messages that a rule names out of the network; they can be let go later, old and late."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rules: list[Rule] = []
        self.taken: list[tuple[str, str, Any]] = []
        self.seen: Callable[[str, str, Any], None] | None = None
        world.network.watch = self._watch

    def _watch(self, source: str, target: str, message: Any) -> Any:
        if self.seen is not None:
            self.seen(source, target, message)
        if any(rule(source, target, message) for rule in self.rules):
            self.taken.append((source, target, message))
            return None
        return message

    def take(self, rule: Rule) -> None:
        self.rules.append(rule)

    def let_go(self) -> None:
        """What was taken arrives now, in order; nothing more is taken."""
        self.rules.clear()
        taken, self.taken = self.taken, []
        for source, target, message in taken:
            self.world.nodes[target].hear(source, message)


def members(voters: str, learners: str = "") -> Members:
    return Members(tuple(Member(name, name) for name in voters), tuple(Member(name, name) for name in learners))


def work(world: World, node: SimNode, count: int, *, wait: bool = True, size: int = 20) -> None:
    """That many commands, asked for at once; waits until the last is acknowledged."""
    last = 0
    for _ in range(count):
        last = world.ask(node, size)
    if wait and not world.run_until(world.now + 5, lambda: last in world.checks.acknowledged_operations):
        raise Broken("it commits", f"{node.id} did not commit a command within 5 s")


def change_members(world: World, node: SimNode, wanted: Members) -> bool:
    """False where the engine refuses."""
    try:
        node.engine.propose_members(wanted)
    except ValueError:
        return False
    node.wake()
    return True


def must(holds: bool, promise: str, detail: str) -> None:
    if not holds:
        raise Broken(promise, detail)


# --- the log


def a_repeated_append(world: World) -> None:
    """An append that arrives again, late, must not cut the entries that followed it."""
    world.cluster(3)
    leader = world.elect("a")
    interceptor = Interceptor(world)
    copies: list[Any] = []
    interceptor.seen = lambda source, target, message: copies.append(message) if target == "b" and isinstance(message, Append) else None
    work(world, leader, 3)
    first = next(message for message in copies if message.entries)
    work(world, leader, 10)
    world.pass_time(0.2)
    world.nodes["b"].hear("a", first)
    world.pass_time(0.3)
    work(world, leader, 3)


def a_notice_over_an_unverified_tail(world: World) -> None:
    """A leader alone collects entries, others commit theirs and cut the log behind: the notice to fetch a snapshot says nothing of the tail."""
    world.cluster(3)
    old = world.elect("a")
    work(world, old, 3)
    world.pass_time(0.3)
    world.separate({"a"})
    work(world, old, 20, wait=False)
    world.pass_time(2.5)
    new = world.elect()
    work(world, new, 60)
    new.engine.compact(new.ledger.index - 1)
    world.lose_held()
    world.heal()
    world.pass_time(2)


def a_tail_behind_a_small_append(world: World) -> None:
    """a and the others share entries of a's term that a does not know to be committed; behind them stands a tail of its own."""
    world.cluster(3)
    old = world.elect("a")
    work(world, old, 3)
    world.pass_time(0.3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, target, message: target == "a" and isinstance(message, AppendReply))
    work(world, old, 6, wait=False)
    world.pass_time(0.05)
    world.separate({"a"})
    interceptor.rules.clear()
    work(world, old, 10, wait=False)
    world.pass_time(2.5)
    work(world, world.elect(), 10)
    world.lose_held()
    world.heal()
    world.pass_time(2)


def a_snapshot_in_the_middle_of_a_tail(world: World) -> None:
    """a, alone, collects more entries than the others commit, and then gets a snapshot that stands among them."""
    world.cluster(3)
    old = world.elect("a")
    work(world, old, 3)
    world.pass_time(0.3)
    world.separate({"a"})
    work(world, old, 100, wait=False)
    world.pass_time(2.5)
    new = world.elect()
    work(world, new, 60)
    new.engine.compact(new.ledger.index - 1)
    world.lose_held()
    world.heal()
    world.pass_time(1)
    work(world, world.elect(), 5)
    caught_up = world.run_until(world.now + 3, lambda: old.ledger.index >= new.ledger.index)
    must(caught_up, "members catch up", f"a stands at {old.ledger.index} after 3 s, the leader at {new.ledger.index}")


def a_copy_that_comes_late(world: World) -> None:
    """c has asked for a copy, got the log from somebody else meanwhile, and is further when the copy is there."""
    world.cluster(3)
    leader = world.elect("a")
    c = world.nodes["c"]
    copy = leader.machine.now
    work(world, leader, 10)
    world.pass_time(0.3)
    c.pump.call(lambda: c.pump._transfers.install(copy))
    work(world, leader, 10)
    world.pass_time(0.3)


def a_leader_that_wakes_up_deposed(world: World) -> None:
    """a stands still with an entry that nobody got; all of the next leadership and another proposal meet it in one turn."""
    world.cluster(3)
    old = world.elect("a")
    work(world, old, 3)
    world.pass_time(0.3)
    Interceptor(world).take(lambda source, target, message: source == "a" and isinstance(message, Append))
    work(world, old, 1, wait=False)
    world.pass_time(0.01)
    old.stalled_until = world.now + 3
    world.pass_time(2)
    new = next(node for node in world.leading() if node is not old)
    work(world, new, 5)
    work(world, old, 1, wait=False)
    world.pass_time(2)


def a_deposed_leader_with_proposals(world: World) -> None:
    """a is alone with proposals that nobody got: whoever waits for one is told that nobody knows, when it steps down and not by a time-out."""
    world.cluster(3)
    old = world.elect("a")
    world.pass_time(0.3)
    world.separate({"a"})
    told: list[Any] = []
    for operation in range(1, 4):
        Attempt(world, Command(operation, 1, Verb.FILL), told.append).ask(old)
    world.run_until(world.now + 5, lambda: old.engine.state is not State.LEADER)
    world.pass_time(0.1)
    must(old.engine.state is not State.LEADER, "scenario", "a stepped down")
    must([type(outcome) for outcome in told] == [Unknown] * 3, "a deposed leader answers", f"three wait, and were told {told}")


def an_apply_that_raises(world: World) -> None:
    """The ledger of a lone voter raises: it halts with that entry, answers nothing as done, and the entry is applied once when it is well again."""
    (node,) = world.cluster(1)
    world.elect()
    work(world, node, 3)
    stood = node.ledger.index
    node.machine.fails = True
    told: list[Any] = []
    Attempt(world, Command(world.operations + 1, 1, Verb.FILL), told.append).ask(node)
    world.operations += 1
    world.pass_time(0.05)
    must(node.halted and node.ledger.index == stood, "an apply that raises halts", f"a goes on at {node.ledger.index}, after {stood}")
    must([type(outcome) for outcome in told] == [Unknown], "an apply that raises halts", f"whoever waits was told {told}")
    world.run_until(world.now + 5, lambda: node.up)
    work(world, world.elect(), 3)
    must(node.ledger.index >= stood + 4, "an apply that raises halts", f"a stands at {node.ledger.index}, after {stood}")


def a_ledger_that_stands_at_the_cut(world: World) -> None:
    """The log is cut right behind what is durable of the ledger, again and again, and the power goes: the next entry must be there."""
    (node,) = world.cluster(1)
    for _ in range(150):
        world.elect()
        durable = node.machine.now
        work(world, node, 1, size=60)
        work(world, node, 1, size=60)
        node.engine.compact(durable.index)
        node.journal.sync()
        node.die(power=True)
        node.machine.now = node.machine.durable = durable
        node.start()


def an_answer_of_an_old_term(world: World) -> None:
    """b held entries of a's first term and lost them to c's; its old answer arrives when a leads again."""
    world.cluster(5)
    first = world.elect("a")
    interceptor = Interceptor(world)
    world.separate({"a", "b"})
    interceptor.take(lambda source, target, message: (source, target) == ("b", "a") and isinstance(message, AppendReply))
    work(world, first, 15, wait=False)
    world.pass_time(2.5)
    answers = [message for _, _, message in interceptor.taken]
    interceptor.rules.clear()
    must(world.elect().id in "cde", "scenario", "another leader was elected")
    for name in "acde":
        for other in "acde":
            if name != other:
                world.network.heal(world.network.link(world.nodes[name], world.nodes[other]))
    world.pass_time(1)
    again = world.elect("a")
    world.pass_time(0.5)
    world.separate({"a", "d"})
    for answer in answers:
        again.hear("b", answer)
    work(world, again, 5, wait=False)
    world.pass_time(0.6)


def unsynced_answers(world: World) -> None:
    """b answers, and the power fails before its sync."""
    world.cluster(3)
    leader = world.elect("a")
    world.separate({"c"})
    world.pass_time(0.3)
    b = world.nodes["b"]

    def strike(_source: str, target: str, message: Any) -> None:
        if target == "b" and isinstance(message, Append) and message.entries:
            b.die_in_a_step(2, power=True)  # after the write, before the sync

    Interceptor(world).seen = strike
    world.restarts = False
    work(world, leader, 1, wait=False)
    world.pass_time(0.3)


def an_entry_only_in_memory(world: World) -> None:
    """A voter that is alone counts its own disk, and only what is on it."""
    world.cluster(1)
    leader = world.elect("a")
    leader.stall_before_sync_s = 0.5
    work(world, leader, 1)


def a_large_entry(world: World) -> None:
    """131,050 bytes: PySyncObj pickles such an entry in pieces, and never sends the last one."""
    world.cluster(3)
    leader = world.elect()
    try:
        work(world, leader, 1, size=131_050)
    except RuntimeError as problem:
        raise Broken("every entry is replicated", str(problem)) from problem


def a_stream_of_answers(world: World) -> None:
    """Answers to earlier appends do not make the leader send again what is on its way."""
    world.cluster(3)
    leader = world.elect()
    interceptor = Interceptor(world)
    sent = 0

    def count(_source: str, _target: str, message: Any) -> None:
        nonlocal sent
        sent += len(message.entries) if isinstance(message, Append) else 0

    interceptor.seen = count
    world.network.delay_s = 0.02
    for _ in range(100):
        work(world, leader, 1, wait=False)
        world.pass_time(0.003)
    work(world, leader, 1)
    world.pass_time(0.5)
    must(sent <= 2 * 101 * 1.1, "an entry is sent once", f"101 entries went to two peers as {sent}")


def one_in_flight(world: World) -> None:
    """A proposal is sent at once, not when the period is over."""
    world.cluster(3)
    leader = world.elect()
    world.network.delay_s = 0.001
    world.pass_time(0.3)
    began = world.now
    for _ in range(20):
        work(world, leader, 1)
    each = (world.now - began) / 20
    must(each < 0.01, "commits take a round trip", f"{each * 1000:.1f} ms each")


def a_long_tail_to_walk_back(world: World) -> None:
    """400 entries that nobody else has are replaced in a few round trips."""
    world.cluster(3)
    old = world.elect("a")
    world.separate({"a"})
    for _ in range(40):
        work(world, old, 10, wait=False)
        world.pass_time(0.005)
    world.pass_time(2.5)
    new = world.elect()
    work(world, new, 30)
    world.lose_held()
    world.heal()
    caught_up = world.run_until(world.now + 2, lambda: old.ledger.index >= new.ledger.index)
    must(caught_up, "members catch up", f"a stands at {old.ledger.index} after 2 s, the leader at {new.ledger.index}")


# --- members


def a_stranger_answers(world: World) -> None:
    """A node that is no member answers an append."""
    world.cluster(3)
    leader = world.elect("a")
    world.add_node("x").start()
    leader.hear("x", AppendReply(leader.engine.term, 1, 2, True, False))
    world.pass_time(0.1)
    work(world, leader, 1)


def two_changes_at_once(world: World) -> None:
    """a, alone with two newcomers, makes both voters at once: their majority and the old one do not meet."""
    world.cluster(3, 2)
    leader = world.elect("a")
    world.pass_time(0.3)
    world.separate({"b", "c"})
    change_members(world, leader, members("abcd"))
    change_members(world, leader, members("abcde"))
    work(world, leader, 3, wait=False)
    for name in "bc":
        world.run_until(world.now + 3, lambda: world.nodes["b"].engine.state is State.LEADER or world.nodes["c"].engine.state is State.LEADER)
        if world.nodes[name].engine.state is State.LEADER:
            work(world, world.nodes[name], 3, wait=False)
    world.pass_time(2)


def two_voters_in_one_change(world: World) -> None:
    """The same in one list."""
    world.cluster(3, 2)
    leader = world.elect("a")
    world.pass_time(0.3)
    world.separate({"b", "c"})
    change_members(world, leader, members("abcde"))
    work(world, leader, 3, wait=False)
    others = world.nodes["b"], world.nodes["c"]
    world.run_until(world.now + 3, lambda: any(node.engine.state is State.LEADER for node in others))
    for node in others:
        if node.engine.state is State.LEADER:
            work(world, node, 3, wait=False)
    world.pass_time(2)


def a_change_before_the_terms_first_entry(world: World) -> None:
    """Ongaro's correction of 2015: without it, a change of a new term and one left over from an old term both count, and do not meet."""
    world.cluster(4, 1)
    old = world.elect("a")
    world.pass_time(0.3)
    interceptor = Interceptor(world)
    world.separate({"a", "e"})
    change_members(world, old, members("abcde"))
    interceptor.take(lambda source, target, message: isinstance(message, Append) and target == "d")
    interceptor.take(lambda source, target, message: isinstance(message, VoteRequest) and source in "cd")
    b = world.nodes["b"]
    if not world.run_until(world.now + 10, lambda: b.engine.state is State.LEADER):
        raise Broken("scenario", "b was not elected")
    change_members(world, b, members("bcd"))
    work(world, b, 3, wait=False)
    world.pass_time(0.5)
    interceptor.rules.clear()
    world.separate({"b", "c"})
    for name in "de":
        for ends in ((name, "a"), ("a", name)):
            world.network.heal(world.network.link(*(world.nodes[end] for end in ends)))
    world.pass_time(3)
    leader = world.leader()
    if leader is not None and leader.id in "ade":
        work(world, leader, 3, wait=False)
    world.pass_time(2)


def a_list_only_in_the_log(world: World) -> None:
    """Nodes start with a list of members in their log that is not applied yet."""
    world.cluster(3)
    world.elect()


def a_list_that_is_cut_off(world: World) -> None:
    """A leader alone writes a list, and must forget it with the entry."""
    world.cluster(3, 1)
    old = world.elect("a")
    world.pass_time(0.3)
    world.separate({"a"})
    change_members(world, old, members("abcd"))
    world.pass_time(2.5)
    work(world, world.elect(), 5)
    world.heal()
    world.pass_time(2)
    must(old.engine.members == members("abc"), "the members are those of the log", f"a still follows {old.engine.members}")


def a_list_right_behind_what_is_applied(world: World) -> None:
    """The entry before a list is committed and applied, the list is not, and is cut off."""
    world.cluster(3, 1)
    old = world.elect("a")
    world.pass_time(0.3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, target, message: isinstance(message, Append) and any(entry.kind == Kind.MEMBERS for entry in message.entries))
    work(world, old, 1, wait=False)
    world.pass_time(0.001)
    change_members(world, old, members("abcd"))
    world.pass_time(0.1)
    world.separate({"a"})
    interceptor.rules.clear()
    world.pass_time(2.5)
    work(world, world.elect(), 5)
    world.lose_held()
    world.heal()
    world.pass_time(2)
    must(old.engine.members == members("abc"), "the members are those of the log", f"a still follows {old.engine.members}")


# --- elections


def a_vote_that_arrives_twice(world: World) -> None:
    """a has its own vote of five and b's, which arrives twice; c has its own, d's and e's in the same term."""
    world.cluster(5)
    interceptor = Interceptor(world)

    def rule(source: str, target: str, message: Any) -> bool:
        if isinstance(message, VoteRequest):
            if message.pre:
                return source != ("a" if world.nodes["a"].engine.term == 1 else "c")
            return (source == "a" and target in "cde") or (source == "c" and target in "ab")
        if isinstance(message, VoteReply):
            return source in "ab" and target == "c"  # who would tell c of a's term
        return isinstance(message, Append)

    def double(source: str, target: str, message: Any) -> None:
        if isinstance(message, VoteReply) and not message.pre and message.granted and target == "a":
            world.nodes[target].hear(source, message)

    interceptor.take(rule)
    interceptor.seen = double
    world.pass_time(6)


def a_vote_before_a_power_cut(world: World) -> None:
    """a and c ask for votes of one term; b gives a its own, loses its power, and is asked by c after it came back."""
    world.cluster(3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, target, message: isinstance(message, VoteRequest) and (not message.pre or source == "b" or target != "b"))

    def requests(source: str) -> dict[int, VoteRequest]:
        return {message.term: message for sender, target, message in interceptor.taken if (sender, target) == (source, "b") and not message.pre}

    if not world.run_until(world.now + 20, lambda: bool(requests("a").keys() & requests("c").keys())):
        raise Broken("scenario", "a and c did not ask for votes of the same term")
    interceptor.take(lambda source, target, message: isinstance(message, VoteReply) and not message.pre)  # nobody comes to lead
    term = max(requests("a").keys() & requests("c").keys())
    first, second = requests("a")[term], requests("c")[term]
    b = world.nodes["b"]
    b.hear("a", first)
    world.pass_time(0.05)
    world.crash(b, power=True)
    world.run_until(world.now + 5, lambda: b.up)
    world.pass_time(2)
    b.hear("c", second)
    world.pass_time(0.1)


def a_leader_elected_late(world: World) -> None:
    """c gets b's vote when a leads a higher term already and has committed an entry of an older one: it leads, and harms nothing."""
    world.cluster(3)
    a = world.elect("a")
    b, c = world.nodes["b"], world.nodes["c"]
    world.pass_time(0.3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, target, message: source == "a" and isinstance(message, Append) and bool(message.entries))
    work(world, a, 1, wait=False)
    world.pass_time(0.05)
    world.restarts = False
    world.crash(a, power=False)
    interceptor.take(lambda source, target, message: source == "b" and (isinstance(message, VoteRequest) or _is_vote(message)))
    votes = interceptor.taken
    if not world.run_until(world.now + 10, lambda: any(target == "c" and _is_vote(message) for _, target, message in votes)):
        raise Broken("scenario", "c did not get a vote")
    vote = next(message for _, target, message in votes if target == "c" and _is_vote(message))
    interceptor.rules.clear()
    world.separate({"c"})
    world.start(a)
    if not world.run_until(world.now + 10, lambda: a.engine.leads_since_applied is not None and a.engine.term > vote.term):
        raise Broken("scenario", "a does not lead a higher term")
    c.hear("b", vote)
    world.pass_time(0.05)
    must(c.engine.state is State.LEADER and c.engine.term < a.engine.term, "scenario", "c leads a lower term")
    world.lose_held()
    world.heal()
    world.pass_time(2)
    must(c.engine.state is not State.LEADER and c.ledger.index == b.ledger.index, "members catch up", f"c stands at {c.ledger.index}")


def _is_vote(message: Any) -> bool:
    return isinstance(message, VoteReply) and message.granted and not message.pre


def a_commit_by_a_list_that_is_on_its_way(world: World) -> None:
    """a makes c a voter, commits by the two of them what b lacks, and dies right after it told c, who does not have that list yet."""
    world.cluster(2, 1)
    a, c = world.elect("a"), world.nodes["c"]
    change_members(world, a, members("ab", "c"))
    work(world, a, 1)
    world.pass_time(0.3)
    world.separate({"b"})
    committed = a.engine.commit_index
    work(world, a, 30, wait=False)  # to c they go one by one
    world.pass_time(0.05)
    change_members(world, a, members("abc"))

    def strike(source: str, target: str, message: Any) -> None:
        if (source, target) == ("a", "c") and isinstance(message, Append) and message.commit > committed:
            a.die_in_a_step(1, power=True)

    Interceptor(world).seen = strike
    world.pass_time(0.05)
    must(not a.up and c.engine.commit_index > committed, "scenario", "a is down and c knows of the commit")
    must(c.engine.members == members("ab", "c"), "scenario", "c has the old list")
    world.heal()
    world.pass_time(4)


def a_node_that_comes_back(world: World) -> None:
    """A node that was cut off for long and returns unseats nobody."""
    world.cluster(3)
    leader = world.elect("a")
    term = leader.engine.term
    world.pass_time(0.3)
    world.separate({"c"})
    world.pass_time(8)
    world.heal()
    world.pass_time(3)
    must(leader.engine.state is State.LEADER and leader.engine.term == term, "a leader stays", f"term {term} ended when c came back")


def a_vote_beside_a_leader(world: World) -> None:
    """c cannot hear the leader, b can: while it does, c gets no vote."""
    world.cluster(3)
    world.elect("a")
    world.pass_time(0.3)
    for ends in (("a", "c"), ("c", "a")):
        world.network.cut(world.network.link(*(world.nodes[end] for end in ends)))
    world.pass_time(4)


def a_leader_alone(world: World) -> None:
    """It steps down when no majority answers for a second."""
    world.cluster(3)
    leader = world.elect()
    world.pass_time(0.3)
    world.separate({leader.id})
    world.pass_time(2)
    must(leader.engine.state is not State.LEADER, "a leader without a majority steps down", f"{leader.id} still believes to lead after 2 s")


def a_node_ahead_by_terms(world: World) -> None:
    """c began elections that nobody saw to the end: it is in a higher term than the leader, who must learn of it."""
    world.cluster(3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, _, message: isinstance(message, VoteRequest) and (source != "c" or not message.pre))
    c = world.nodes["c"]
    world.run_until(world.now + 20, lambda: c.engine.term >= 4)
    interceptor.rules.clear()
    world.separate({"c"})
    interceptor.take(lambda source, _, message: source == "c" and isinstance(message, VoteRequest))
    leader = world.elect()
    if leader.engine.term >= c.engine.term:
        raise Broken("scenario", "the leader's term is not lower")
    work(world, leader, 3)
    world.heal()
    caught_up = world.run_until(world.now + 5, lambda: c.ledger.index >= leader.ledger.index)
    must(caught_up, "members catch up", f"c stands at {c.ledger.index} after 5 s")


# --- leases and reads


def late_answers(world: World) -> None:
    """Answers that were long on their way say when the leader was heard, not that it is heard now."""
    world.cluster(3)
    world.elect("a")
    world.pass_time(0.3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, target, message: target == "a" and isinstance(message, AppendReply))
    world.pass_time(0.15)
    world.separate({"a"})
    world.pass_time(0.7)
    interceptor.let_go()
    world.pass_time(2)


def a_lease_while_handing_over(world: World) -> None:
    """b was asked to take over and is elected at once; the old leader hears nothing of it."""
    world.cluster(3)
    leader = world.elect("a")
    world.pass_time(0.3)
    for other in "bc":
        world.network.cut(world.network.link(world.nodes[other], leader))
    assert leader.engine.transfer("b")
    leader.wake()
    world.pass_time(2)


def a_leader_that_sleeps_while_it_hands_over(world: World) -> None:
    """It stands still right behind the request to take over; other threads must not see its lease any more."""
    world.cluster(3)
    leader = world.elect("a")
    world.pass_time(0.3)

    def strike(source: str, _target: str, message: Any) -> None:
        if source == "a" and isinstance(message, TimeoutNow):
            leader.sleep_in_a_step(1, 0.6)

    Interceptor(world).seen = strike
    work(world, leader, 1, wait=False)
    world.pass_time(0.002)
    leader.stalled_until = world.now + 0.05  # the answers and the wish to hand over meet in one turn, which so has something to apply
    leader.transfer("b")
    world.pass_time(2)
    must(world.nodes["b"].engine.state is State.LEADER, "scenario", "b was elected")


def a_read_at_a_deposed_leader(world: World) -> None:
    """A leader that was replaced without knowing answers no read."""
    world.cluster(3)
    old = world.elect("a")
    world.pass_time(0.3)
    world.separate({"a"})
    others = [world.nodes["b"], world.nodes["c"]]
    world.run_until(world.now + 5, lambda: any(node.engine.leads_since_applied for node in others))
    new = next(node for node in others if node.engine.state is State.LEADER)
    work(world, new, 3)
    must(old.engine.state is State.LEADER, "scenario", "a no longer believes to lead")
    world.read(old)
    world.pass_time(0.5)


def a_leader_cut_off_again_and_again(world: World) -> None:
    """c hears no leader and asks all the time; the moment the leader is alone it is a matter of b's word, and of two clocks."""
    a, *others = world.cluster(3)
    a.rate = 0.95
    for other in others:
        other.rate = 1.05
    for _ in range(12):
        world.elect("a")
        world.pass_time(0.3)
        for ends in (("a", "c"), ("c", "a")):
            world.network.cut(world.network.link(*(world.nodes[end] for end in ends)))
        world.pass_time(1.5 + 0.2 * world.chance.random())
        world.separate({"a"})
        world.pass_time(2)
        world.heal()
        world.pass_time(0.5)


def a_voter_that_starts_again(world: World) -> None:
    """b answers the leader, is killed and starts again; what it promised still holds when c asks for its vote."""
    world.cluster(3)
    b = world.nodes["b"]
    for _ in range(6):
        world.elect("a")
        world.pass_time(0.3)
        for ends in (("a", "c"), ("c", "a")):
            world.network.cut(world.network.link(*(world.nodes[end] for end in ends)))
        world.pass_time(1.5 + 0.2 * world.chance.random())
        world.separate({"a"})
        b.die(power=False)
        b.start()
        world.pass_time(2)
        world.heal()
        world.pass_time(0.5)


def a_request_to_take_over_that_comes_late(world: World) -> None:
    """a asked b, saw nothing of it, and must not go on as if it had not: the request is still on its way."""
    world.cluster(3)
    leader = world.elect("a")
    world.pass_time(0.3)
    interceptor = Interceptor(world)
    interceptor.take(lambda source, target, message: isinstance(message, TimeoutNow))
    leader.transfer("b")
    world.pass_time(1.5)
    world.network.cut(world.network.link(world.nodes["b"], leader))
    interceptor.let_go()
    world.pass_time(1)


def a_read_after_a_pause(world: World) -> None:
    """a stands still with an answer of a majority in its inbox, while another is elected; it is asked to read before it hears of that."""
    world.cluster(3)
    old = world.elect("a")
    world.pass_time(0.3)

    def strike(source: str, _target: str, _message: Any) -> None:
        if source == "a" and not old.stalled_until:
            old.stalled_until = world.now + 3

    Interceptor(world).seen = strike
    world.pass_time(0.25)
    world.separate({"a"})
    b, c = world.nodes["b"], world.nodes["c"]
    world.run_until(world.now + 5, lambda: bool(b.engine.leads_since_applied or c.engine.leads_since_applied))
    work(world, b if b.engine.state is State.LEADER else c, 3)
    world.read(old)
    world.pass_time(3)


class Scenario(NamedTuple):
    run: Callable[[World], None]
    promise: str  # what breaks without the mend
    settings: Settings = DEFAULT_SETTINGS


SLOW_FALL_BACK = Settings(fallback_s=3.0)

SCENARIOS: dict[str, Scenario] = {
    "trim_appends": Scenario(a_repeated_append, "no committed entry is lost"),
    "hold_commit": Scenario(a_notice_over_an_unverified_tail, "no committed entry is lost"),
    "tag_replies": Scenario(an_answer_of_an_old_term, "a match index lies in the follower's log"),
    "drop_strangers": Scenario(a_stranger_answers, "no error"),
    "count_votes_once": Scenario(a_vote_that_arrives_twice, "one leader a term"),
    "one_change_at_a_time": Scenario(two_changes_at_once, "no committed entry is lost"),
    "change_after_first_entry": Scenario(a_change_before_the_terms_first_entry, "no committed entry is lost"),
    "members_from_log": Scenario(a_list_only_in_the_log, "it recovers"),
    "roll_back_members": Scenario(a_list_that_is_cut_off, "the members are those of the log"),
    "own_appends": Scenario(a_large_entry, "every entry is replicated"),
    "send_at_once": Scenario(one_in_flight, "commits take a round trip"),
    "keep_sending_position": Scenario(a_stream_of_answers, "an entry is sent once"),
    "count_only_synced": Scenario(an_entry_only_in_memory, "committed is durable on a majority"),
    "conflict_hint": Scenario(a_long_tail_to_walk_back, "members catch up"),
    "pre_vote": Scenario(a_node_that_comes_back, "a leader stays"),
    "refuse_votes": Scenario(a_vote_beside_a_leader, "leases are disjoint"),
    "fall_back": Scenario(a_leader_alone, "a leader without a majority steps down"),
    "answer_old_terms": Scenario(a_node_ahead_by_terms, "members catch up"),
    "lease_from_sending": Scenario(late_answers, "leases are disjoint"),
    "lease_ends_with_transfer": Scenario(a_lease_while_handing_over, "leases are disjoint"),
    "read_by_round": Scenario(a_read_at_a_deposed_leader, "reads see what was acknowledged before", SLOW_FALL_BACK),
}

# Scenarios of mistakes that no switch makes: `faults.py` has them.
OTHERS: dict[str, Scenario] = {
    function.__name__: Scenario(function, "", settings)
    for function, settings in (
        (unsynced_answers, DEFAULT_SETTINGS),
        (a_tail_behind_a_small_append, Settings(append_entries=2, appends_in_flight=1)),
        (a_snapshot_in_the_middle_of_a_tail, DEFAULT_SETTINGS),
        (a_copy_that_comes_late, DEFAULT_SETTINGS),
        (a_leader_that_wakes_up_deposed, DEFAULT_SETTINGS),
        (a_ledger_that_stands_at_the_cut, DEFAULT_SETTINGS),
        (two_voters_in_one_change, DEFAULT_SETTINGS),
        (a_list_right_behind_what_is_applied, DEFAULT_SETTINGS),
        (a_commit_by_a_list_that_is_on_its_way, Settings(append_entries=1, appends_in_flight=1)),
        (a_leader_elected_late, DEFAULT_SETTINGS),
        (a_vote_before_a_power_cut, DEFAULT_SETTINGS),
        (a_leader_cut_off_again_and_again, DEFAULT_SETTINGS),
        (a_voter_that_starts_again, DEFAULT_SETTINGS),
        (a_leader_that_sleeps_while_it_hands_over, DEFAULT_SETTINGS),
        (a_request_to_take_over_that_comes_late, DEFAULT_SETTINGS),
        (a_read_after_a_pause, DEFAULT_SETTINGS),
        (a_deposed_leader_with_proposals, DEFAULT_SETTINGS),
        (an_apply_that_raises, DEFAULT_SETTINGS),
    )
}
ALL = SCENARIOS | OTHERS


def run_scenario(name: str, seed: int = 0) -> None:
    ALL[name].run(World(seed, settings=ALL[name].settings))
