"""Who belongs to the Raft quorum: one step at a time from the members as they are to the number of voters that is wanted.

`leader/autopilot.py` asks `next_step` every second and does what it says. Order of the cases (DESIGN §4, Membership): an address that moved; a
learner that is gone; a lost voter, removed only where somebody caught up can take its place; a learner that can be made a voter; a node that can
be made a learner. From one voter it begins when two learners are caught up, so that a quorum of two out of two lasts milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WANTED = (1, 3, 5, 7)
NAME_KEPT = 40  # characters of a name, and of an id, in the name of a node that had to give up its own: both fit into a name


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the autopilot sees it. `stable`: up and connected for a while. `gone`: lost, or it left. `caught_up`: as a member.
    `ephemeral`: it comes and goes, so nothing rests on it."""

    node: str
    address: str
    stable: bool = False
    gone: bool = False
    caught_up: bool = False
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class MemberNow:
    node: str
    address: str
    voter: bool


@dataclass(frozen=True, slots=True)
class AddLearner:
    node: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class Promote:
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Remove:
    node: str
    why: str


Step = AddLearner | Promote | Remove


def next_step(members: Sequence[MemberNow], nodes: Sequence[Candidate], leader: str, wanted: int) -> Step | None:
    """The next change of the members, or None where they are as they should be or nothing can be done."""
    known = {node.node: node for node in nodes}
    voters = [member for member in members if member.voter]
    learners = [member for member in members if not member.voter]
    lost = [voter for voter in voters if voter.node != leader and _gone(known, voter)]
    ready = [learner for learner in learners if learner.node in known and known[learner.node].caught_up and not known[learner.node].gone]
    return (
        _moved(members, known)
        or _dead_learner(learners, known)
        or _replace(lost, ready)
        or _promote(voters, ready, wanted)
        or _recruit(members, len(voters) - len(lost), len(learners), nodes, wanted)
    )


def former_name(name: str, node: str) -> str:
    """What a lost node is called whose name another one has taken, for as long as its attempts are not decided."""
    return f"{name[:NAME_KEPT]}.{node[:NAME_KEPT]}"


def gave_up_its_name(name: str, node: str) -> bool:
    return name.endswith(f".{node[:NAME_KEPT]}")


def _gone(known: dict[str, Candidate], member: MemberNow) -> bool:
    return member.node not in known or known[member.node].gone


def _moved(members: Sequence[MemberNow], known: dict[str, Candidate]) -> Step | None:
    for member in members:
        node = known.get(member.node)
        if node is not None and node.stable and node.address != member.address:
            return AddLearner(node.node, node.address, "its address changed")
    return None


def _dead_learner(learners: Sequence[MemberNow], known: dict[str, Candidate]) -> Step | None:
    return next((Remove(learner.node, "it is lost or left") for learner in learners if _gone(known, learner)), None)


def _replace(lost: Sequence[MemberNow], ready: Sequence[MemberNow]) -> Step | None:
    return Remove(lost[0].node, f"it is lost, and {ready[0].node} can take its place") if lost and ready else None


def _promote(voters: Sequence[MemberNow], ready: Sequence[MemberNow], wanted: int) -> Step | None:
    missing = wanted - len(voters)
    # An odd number of voters becomes the next odd one in one go: both learners are ready before the first is promoted.
    needed = 2 if len(voters) % 2 and missing >= 2 else 1
    if missing > 0 and len(ready) >= needed:
        return Promote(ready[0].node, f"{len(voters)} of {wanted} voters")
    return None


def _recruit(members: Sequence[MemberNow], live_voters: int, learners: int, nodes: Sequence[Candidate], wanted: int) -> Step | None:
    member_ids = {member.node for member in members}
    spare = [node for node in nodes if node.stable and not node.gone and not node.ephemeral and node.node not in member_ids]
    if spare and live_voters + learners < wanted:
        return AddLearner(spare[0].node, spare[0].address, f"{live_voters} of {wanted} voters")
    return None
