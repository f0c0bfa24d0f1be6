"""The cluster and its nodes: how it is, joining and leaving, the stream between a node and the leader, leases, health."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from igor_node import stream
from igor_node.http import quorum
from igor_node.http.api.jobs import text
from igor_node.http.auth import compose_token, derive_secret, hash_secret
from igor_node.http.dispatch import Call, given_token
from igor_node.http.identity import proven_node
from igor_node.http.openapi import describe_routes
from igor_node.http.permissions import Reach
from igor_node.http.problems import NotHere
from igor_node.http.routes import NoBody, Reply, Route, Struct, Where
from igor_node.http.services import NodeView
from igor_node.http.sessions import cookie_name
from igor_node.ledger import commands, query_attempts, query_authorities, query_cluster, query_keys, query_live
from igor_node.trust.keys import write_ring
from igor_node.words import NAME, SECOND, Conflict, Denied, Invalid, NodeState, NotFound, Role, Unauthenticated, Unavailable, WrongHost, new_id
from raft.interface import Halted, NotLeader, Unknown

NODE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
ADDRESS = re.compile(r"(https?://)?(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):\d{1,5}")
LABELS_LIMIT = 100
SLOTS_LIMIT = 10_000
REPORT_WITHIN_S = 2.0  # a wrapper asks again soon
STREAM_PING_S = 10.0  # a node that is gone without a word is noticed
CLOSE_S = 0.5  # how long the other side has to answer a close


class JoinBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cluster`, `epoch`: what the node belongs to already, where it comes back. `address`: HOST:PORT or a URL. `request`: in a cluster with TLS a
    signing request for the node's certificate, PEM. `ephemeral`: it never votes, and is taken out when it stops or is lost."""

    id: str
    name: str
    address: str
    labels: dict[str, str] = {}
    slots: int = 1
    version: str = ""
    cluster: str = ""
    epoch: int = 0
    request: str = ""
    ephemeral: bool = False


class CertificateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`request`: PEM."""

    request: str


class ReportBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    events: Annotated[list[stream.AttemptEvent], msgspec.Meta(max_length=stream.EVENTS_PER_REPORT)]


class LeaveBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


# --- how it is


class LeaderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    leader: str | None
    id: str | None
    address: str | None
    term: int
    here: bool


async def show_cluster(call: Call) -> Any:
    status = call.services.replica.status()
    heard = {view.node: view for view in await call.front.live_views()}
    rows = await call.read(query_cluster.nodes)
    info = await call.read(query_cluster.cluster)
    names = {row.node: row.name for row in rows}
    voters = [names.get(member.id, member.id) for member in status.members.voters]
    learners = {member.id for member in status.members.learners}
    return {
        "id": info.cluster if info is not None else call.services.me.cluster,
        "leader": names.get(status.leader, status.leader) if status.leader is not None else None,
        "term": status.term,
        "voters": voters,
        "wanted_voters": info.wanted_voters if info is not None else None,
        "nodes": [
            node_json(row, heard.get(row.node), role_of(row.node, {member.id for member in status.members.voters}, learners), call) for row in rows
        ],
        "commit_index": status.commit_index,
        "applied_index": call.index,
        "highly_available": highly_available(status, rows),
        "quorum": status.quorum,
        "age_s": call.age_s,
        "why": None if status.quorum else quorum.why_none(call.services.replica),
        "node": call.services.me.name,
        "version": call.services.me.version,
        "ledger_version": info.ledger_version if info is not None else None,
        "key": key_json(await call.read(query_keys.keys)),
        "ca": ca_json(await call.read(query_authorities.authorities)),
    }


def key_json(keys: query_keys.KeyRows) -> dict[str, Any] | None:
    """`generation`: the one in force. `replaced`: whether another one is to come, or an older one is still needed."""
    if keys.in_force is None:
        return None
    generation = keys.in_force.generation
    return {"generation": generation, "since": text(keys.in_force.used_at), "replaced": keys.to_come is not None or keys.oldest < generation}


def ca_json(authorities: list[query_authorities.AuthorityRow]) -> dict[str, Any] | None:
    """Null in a cluster without TLS. `replaced`: whether the one before is still believed."""
    if not authorities:
        return None
    trusted = [row for row in authorities if row.dropped_at is None]
    return {"generation": authorities[0].generation, "since": text(authorities[0].set_at), "replaced": len(trusted) > 1}


def role_of(node: str, voters: set[str], learners: set[str]) -> str:
    return "voter" if node in voters else "learner" if node in learners else "worker"


def highly_available(status: Any, rows: list[query_cluster.NodeRow]) -> bool:
    """Whether any one voter may be lost: three or more voters, of which enough are up."""
    up = {row.node for row in rows if row.state in (NodeState.UP, NodeState.DRAINING)}
    voters = [member.id for member in status.members.voters]
    return status.quorum and len(voters) >= 3 and sum(voter in up for voter in voters) - 1 > len(voters) // 2


def node_json(row: query_cluster.NodeRow, view: NodeView | None, role: str, call: Call) -> dict[str, Any]:
    """`clock_error_s`, `heard_s` (ago), `heard_at` and what the machine has left come from the leader's heartbeats: null where it cannot be asked."""
    now = call.now()
    return {
        "id": row.node,
        "name": row.name,
        "address": call.services.url_of(row.address),
        "role": role,
        "state": row.state,
        "reason": row.reason,
        "labels": row.labels,
        "slots": row.slots,
        "slots_used": row.used,
        "running": row.running,
        "version": row.version,
        "ephemeral": row.ephemeral,
        "changed_at": text(row.changed_at),
        "clock_error_s": view.clock_error_s if view is not None else None,
        "heard_s": round(view.heard_s, 1) if view is not None else None,
        "heard_at": text(now - int(view.heard_s * SECOND)) if view is not None else None,
        "load": view.load if view is not None else None,
        "memory_free_bytes": view.memory_free_bytes if view is not None else None,
        "behind": list(view.behind) if view is not None else [],
    }


async def list_nodes(call: Call) -> Any:
    cluster = await show_cluster(call)
    return {"items": cluster["nodes"], "next": None}


async def live_nodes(call: Call) -> Any:
    """The leader's views alone; others answer with none."""
    return list(call.services.views()) if call.services.replica.is_leader() else []


async def show_leader(call: Call) -> Any:
    status = call.services.replica.status()
    name = None
    if status.leader is not None and call.services.holds_ledger():
        rows = await call.services.reads.query(query_cluster.nodes)
        name = next((row.name for row in rows if row.node == status.leader), None)
    return LeaderAnswer(
        leader=name,
        id=status.leader,
        address=call.services.leader_address(),
        term=status.term,
        here=call.services.replica.is_leader(),
    )


class NodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`addresses`: HOST:PORT of each member as this node reaches it, itself included."""

    id: str
    name: str
    cluster: str
    epoch: int
    version: str
    leader: str | None
    addresses: dict[str, str]


async def show_node(call: Call) -> Any:
    """For nodes that look for each other: it needs no quorum."""
    me = call.services.me
    own = me.address.partition("://")[2]
    return NodeAnswer(
        id=me.id, name=me.name, cluster=me.cluster, epoch=me.epoch, version=me.version, leader=call.services.replica.leader(),
        addresses={**call.services.addresses(), me.id: own},
    )  # fmt: skip


# --- joining and leaving


async def join(call: Call) -> Any:
    """Registers a node and gives it a token of its own; in a cluster with TLS a certificate too, else the cluster's key. Sent twice it answers the
    same token: the secret follows from the id."""
    body: JoinBody = call.body
    check_join(call, body)
    info = await call.read(query_cluster.cluster)
    rows = {row.node: row for row in await call.read(query_cluster.nodes)}
    check_identity(call, body, rows.get(body.id))
    token, secret = own_token(call.services.key, body.id, await call.read(query_cluster.tokens))
    trusted = await trust_of(call, body)  # before the ledger changes: a bad request changes nothing
    await call.propose(
        commands.RegisterNode(
            node=body.id, name=body.name, address=body.address, labels=body.labels, slots=body.slots, version=body.version,
            token_id=token, token_hash=hash_secret(secret), ephemeral=body.ephemeral,
        )
    )  # fmt: skip
    members = call.services.replica.status().members
    answer = {
        "cluster": info.cluster if info is not None else call.services.me.cluster,
        "id": body.id,
        "name": body.name,
        "token": compose_token(token, secret, call.services.fingerprint()),
        **trusted,
        "epoch": call.services.me.epoch,
        "members": [{"id": member.id, "address": member.address} for member in (*members.voters, *members.learners)],
    }
    return Reply(answer, status=200 if body.id in rows else 201)


async def trust_of(call: Call, body: JoinBody) -> dict[str, str]:
    """What the node needs to be believed. With TLS the cluster's key is not among it: a node asks for that by its certificate when it is a member."""
    if not call.services.tls:
        if call.services.keys.ring is None:
            raise Unavailable("this node does not hold the cluster's key", hint="ask the leader")
        return {"key": write_ring(call.services.keys.ring)}
    if not body.request:
        raise Invalid("this cluster has TLS: a node joins with a signing request", faults=["request: it is missing; expected one in PEM"])
    return await signed(call, body.request, body.id)


async def signed(call: Call, request: str, node: str) -> dict[str, str]:
    if call.services.sign is None:
        raise Conflict("this cluster has no TLS, so its nodes have no certificates")
    made = await call.services.sign(request, node)
    return {"certificate": made.certificate, "authorities": made.authorities}


async def renew_certificate(call: Call) -> Any:
    """A node that has one, and shows it, gets another."""
    assert call.caller.node is not None
    return await signed(call, call.body.request, call.caller.node)


async def cluster_key(call: Call) -> Any:
    """The cluster's keys, for a voter or learner that has none yet. In a cluster with TLS its certificate was looked at (`check_certificate`)."""
    members = call.services.replica.status().members
    ring = call.services.keys.ring
    if ring is None:
        raise Unavailable("this node does not hold the cluster's key", hint="ask the leader")
    if call.caller.node is None or members.find(call.caller.node) is None:
        raise Denied("the cluster's key is for its voters and learners", hint="a node gets it when it becomes one")
    return {"keys": write_ring(ring)}


async def rotate_key(call: Call) -> Any:
    """Begins it; the leader's loops bring it to its end (leader/rotation.py)."""
    if call.services.make_key is None:
        raise Unavailable("this node cannot make a key", hint="ask another node")
    return Reply(await call.propose(await call.services.make_key()), status=202)


async def rotate_authority(call: Call) -> Any:
    if call.services.next_authority is None:
        raise Conflict("this cluster has no TLS, so it has no CA")
    return Reply(await call.propose(await call.services.next_authority()), status=202)


def own_token(key: bytes, node: str, tokens: list[query_cluster.TokenRow]) -> tuple[str, str]:
    """The id and the secret of the node's token; another one where the cluster's key has been replaced since it got the one it has."""
    token = node_token(node, tokens)
    secret = node_secret(key, token)
    if any(row.token == token and row.hash != hash_secret(secret) for row in tokens):
        token = node_token(node, tokens, anew=True)
        secret = node_secret(key, token)
    return token, secret


def node_secret(key: bytes, token: str) -> str:
    return derive_secret(key, "node " + token.removeprefix("n-"))


def node_token(node: str, tokens: list[query_cluster.TokenRow], *, anew: bool = False) -> str:
    """The id of the node's token: the one it has, or, where it left and comes back (or the cluster's key is another one: `anew`), the next one."""
    own = [row.token for row in tokens if row.node == node]
    good = [row.token for row in tokens if row.node == node and row.revoked_at is None and not anew]
    return good[-1] if good else f"n-{node}" if not own else f"n-{node}-{len(own) + 1}"


def check_join(call: Call, body: JoinBody) -> None:
    if body.cluster and body.cluster != call.services.me.cluster:
        raise WrongHost(
            f"this node belongs to cluster {call.services.me.cluster}, you come from {body.cluster}",
            hint="join with --reset to give up the other one",
        )
    if body.cluster and body.epoch != call.services.me.epoch:
        higher, lower = max(body.epoch, call.services.me.epoch), min(body.epoch, call.services.me.epoch)
        whose = "you come from" if body.epoch == lower else "this node is of"
        raise WrongHost(f"this cluster was recovered: epoch {higher}; {whose} epoch {lower}", hint="rejoin empty: igor-node join --reset")
    if call.caller.node is not None and call.caller.node != body.id:
        raise Denied(f"your token is that of node {call.caller.node}, not of {body.id}", hint="a new node needs a join token")
    faults = []
    if not NODE_ID.fullmatch(body.id):
        faults.append("id: it is not an id of a node; expected up to 64 letters, digits, - _")
    if not NAME.fullmatch(body.name):
        faults.append(f'name: "{body.name}" is not a name; expected up to 100 letters, digits, - _ .')
    if not ADDRESS.fullmatch(body.address):
        faults.append(f'address: "{body.address}" is not an address; expected HOST:PORT')
    if not 0 <= body.slots <= SLOTS_LIMIT:
        faults.append(f"slots: {body.slots} is not possible; expected 0 to {SLOTS_LIMIT}")
    if len(body.labels) > LABELS_LIMIT:
        faults.append(f"labels: {len(body.labels)} are too many; expected at most {LABELS_LIMIT}")
    if faults:
        raise Invalid("the node cannot join", faults=faults)


def check_identity(call: Call, body: JoinBody, row: query_cluster.NodeRow | None) -> None:
    """With a join token alone nobody becomes a node that is in service: that would be its certificate, and with a voter's the cluster's key."""
    if not call.services.tls or row is None or call.caller.node == body.id or row.state not in (NodeState.UP, NodeState.DRAINING):
        return
    if proven_node(call.request, call.services) != body.id:
        raise Denied(f"node {row.name} ({body.id}) is in service; it comes back by its own certificate", hint="a new node has an id of its own")


async def own_node(call: Call) -> query_cluster.NodeRow:
    """The node that is named: any for an admin, itself for a node."""
    name = call.part("node")
    row = await call.read(lambda connection: query_cluster.node(connection, name))
    if call.caller.role is Role.NODE and call.caller.node != row.node:
        raise Denied(f"a node may only take itself out, not {row.name}")
    return row


async def drain(call: Call) -> Any:
    """Nothing new is placed there; what it has goes on."""
    row = await own_node(call)
    await call.propose(commands.NodeChanged(node=row.node, state=NodeState.DRAINING, reason=call.body.reason))
    return {"id": row.node, "name": row.name, "state": NodeState.DRAINING, "running": row.running}


async def undrain(call: Call) -> Any:
    row = await own_node(call)
    if row.state == NodeState.DRAINING:
        await call.propose(commands.NodeChanged(node=row.node, state=NodeState.UP, reason=call.body.reason))
        return {"id": row.node, "name": row.name, "state": NodeState.UP, "running": row.running}
    return {"id": row.node, "name": row.name, "state": row.state, "running": row.running}


async def leave(call: Call) -> Any:
    row = await own_node(call)
    if row.running:  # before anything is changed: it would lose its vote, be refused by the ledger, and get its vote back
        raise Conflict(f"node {row.name} has {row.running} attempts that have not ended", hint="drain it first: `igor-node leave` does and waits")
    if call.services.leave is not None:
        await call.services.leave(row.node)
    await call.propose(commands.RemoveNode(node=row.node, reason=call.body.reason if call.body is not None else ""))
    return {"id": row.node, "name": row.name, "left": True}


# --- a node's stream, and leases


async def node_stream(call: Call) -> web.StreamResponse:
    """The WebSocket of one node to the leader; any other node says who leads."""
    node = call.part("node")
    if call.caller.node is not None and call.caller.node != node:
        raise Denied(f"your token is that of node {call.caller.node}, not of {node}")
    if not call.services.replica.is_leader():
        raise NotHere(call.services.leader_address())
    socket = web.WebSocketResponse(max_msg_size=stream.FRAME_LIMIT_BYTES, heartbeat=STREAM_PING_S, compress=False, timeout=CLOSE_S)
    await socket.prepare(call.request)
    try:
        await call.services.streams.serve(node, received(socket), socket.send_bytes)
    finally:
        await socket.close(code=WSCloseCode.GOING_AWAY)
    return socket


async def received(socket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    """Binary frames until the other side closes; a text frame is none of ours and ends the stream."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY:
            return
        yield message.data


async def renew(call: Call) -> Any:
    """A wrapper renews its attempt's lease. Only the leader renews; that a node knows no leader counts only from a majority of voters."""
    attempt = call.part("attempt")
    token = given_token(call.request)
    services = call.services
    me = services.replica.status().members.is_voter(services.me.id)
    if services.replica.is_leader():
        if not services.renew(attempt, token):
            raise Unauthenticated("the attempt or its token is not known, or the attempt has ended")
        return {"renewed": True, "voter": me, "node": services.me.id, "term": services.replica.status().term}
    status = services.replica.status()
    if status.quorum and status.leader is not None:
        raise NotHere(services.leader_address())
    if not me:
        raise Unavailable("this node is no voter and knows no leader", hint="ask a voter")
    return {
        "no_leader": True, "for_s": status.leaderless_s, "voter": me, "voters": len(status.members.voters), "node": services.me.id,
        "term": status.term,
    }  # fmt: skip


async def report(call: Call) -> Any:
    """A wrapper whose node is down tells the leader itself what happened. The node sends the same again later: each event counts once."""
    attempt, events = call.part("attempt"), call.body.events
    token = given_token(call.request)
    services = call.services
    if not services.replica.is_leader():
        raise NotHere(services.leader_address())
    if not services.renew(attempt, token):
        raise Unauthenticated("the attempt or its token is not known, or the attempt has ended")
    if any(event.attempt != attempt for event in events):
        raise Denied(f"the token is good for {attempt} alone")
    row = await services.reads.query(lambda connection: query_attempts.attempt(connection, attempt))
    if row is None:
        raise NotFound(f"attempt {attempt} is not known here")
    call.command_id, call.deadline = new_id(call.now()), asyncio.get_running_loop().time() + REPORT_WITHIN_S
    try:
        done = await call.propose(commands.ReportEvents(node=row.node, events=tuple(events)))
    except (NotLeader, Unknown, Halted) as problem:
        raise Unavailable(f"the events are not committed: {problem}", hint="send them again") from None
    return {"renewed": True, "upto": done["upto"].get(attempt, 0)}


# --- health


async def healthz(call: Call) -> Any:
    """Alive: the loop runs, the replica has not halted."""
    halted = call.services.replica.status().halted
    if halted:
        raise Unavailable(f"this node has stopped: {halted}")
    return {"ok": True, "node": call.services.me.name}


async def readyz(call: Call) -> Any:
    """Ready for clients: a quorum; a node without a ledger asks others, so it needs a leader to be connected to."""
    status = call.services.replica.status()
    if status.halted or (call.services.holds_ledger() and not status.quorum):
        raise Unavailable(quorum.why_none(call.services.replica))
    if not call.services.holds_ledger() and call.services.leader_address() is None:
        raise Unavailable("this node holds no ledger and is connected to no leader")
    return {"ok": True, "node": call.services.me.name, "applied_index": status.applied_index}


async def metrics(call: Call) -> web.Response:
    """Prometheus' text format: this node's replica, and what the ledger counts."""
    status = call.services.replica.status()
    figures: dict[str, Any] = {
        "igor_raft_term": status.term,
        "igor_raft_commit_index": status.commit_index,
        "igor_raft_applied_index": status.applied_index,
        "igor_raft_leader": int(call.services.replica.is_leader()),
        "igor_quorum": int(status.quorum),
        "igor_ledger_age_seconds": round(call.front.heard.age_s(), 3),
        **call.services.metrics(),
    }
    if call.services.holds_ledger():
        counts = await call.services.reads.query(query_live.run_counts)
        figures |= {f"igor_runs_{state}": count for state, count in counts.items() if state != "stages_queued"}
        figures["igor_stages_queued"] = counts.get("stages_queued", 0)
    lines = [line for name, value in figures.items() for line in (f"# TYPE {name} gauge", f"{name} {value}")]
    return web.Response(text="\n".join(lines) + "\n", content_type="text/plain", headers={"Cache-Control": "no-store"})


async def openapi(call: Call) -> Any:
    return describe_routes(call.front.routes, call.services.me.version, cookie_name(call.services.me.cluster, tls=call.services.tls))


ROUTES = (
    Route(method="GET", path="/v1/cluster", handler=show_cluster, summary="The cluster: leader, voters, nodes, where the ledger stands", nodes=True,
          reach=Reach.OPEN),
    Route(method="GET", path="/v1/leader", handler=show_leader, summary="Who leads, as this node knows", nodes=True, where=Where.HERE,
          reach=Reach.OPEN, answer=LeaderAnswer),
    Route(method="GET", path="/v1/node", handler=show_node, summary="This very node, and where it reaches the others", nodes=True, where=Where.HERE,
          reach=Reach.OPEN, answer=NodeAnswer),
    Route(method="GET", path="/v1/nodes", handler=list_nodes, summary="The nodes", nodes=True, reach=Reach.OPEN),
    Route(method="GET", path="/v1/nodes/live", handler=live_nodes, answer=list, summary="What the leader knows from heartbeats", nodes=True,
          where=Where.HERE),
    Route(
        method="POST", path="/v1/nodes", handler=join, summary="Join: register a node", role=Role.NODE, join=True, where=Where.WRITE, body=JoinBody,
        statuses=(201, 200),
    ),
    Route(
        method="POST", path="/v1/node/certificate", handler=renew_certificate, summary="Renew a node's certificate", role=Role.NODE,
        where=Where.WRITE, body=CertificateBody,
    ),
    Route(
        method="POST", path="/v1/cluster/key", handler=rotate_key, summary="Replace the cluster's key", role=Role.ADMIN, where=Where.WRITE,
        body=NoBody, statuses=(202,),
    ),
    Route(
        method="POST", path="/v1/cluster/ca", handler=rotate_authority, summary="Replace the cluster's CA", role=Role.ADMIN, where=Where.WRITE,
        body=NoBody, statuses=(202,),
    ),
    Route(method="GET", path="/v1/node/key", handler=cluster_key, summary="The cluster's key, for a member", role=Role.NODE, where=Where.HERE),
    Route(
        method="POST", path="/v1/nodes/{node}/leave", handler=leave, summary="Take a node out for good", role=Role.ADMIN, nodes=True,
        where=Where.WRITE, body=LeaveBody,
    ),
    Route(
        method="POST", path="/v1/nodes/{node}/drain", handler=drain, summary="Give a node nothing new", role=Role.ADMIN, nodes=True,
        where=Where.WRITE, body=LeaveBody,
    ),
    Route(
        method="POST", path="/v1/nodes/{node}/undrain", handler=undrain, summary="Use a drained node again", role=Role.ADMIN, nodes=True,
        where=Where.WRITE, body=LeaveBody,
    ),
    Route(method="DELETE", path="/v1/nodes/{node}", handler=leave, summary="Take a node out for good", role=Role.ADMIN, nodes=True,
          where=Where.WRITE),
    Route(
        method="GET", path="/v1/nodes/{node}/stream", handler=node_stream, summary="A node's WebSocket to the leader", role=Role.NODE,
        where=Where.HERE, stream="application/octet-stream", statuses=(101,),
    ),
    Route(
        method="POST", path="/v1/attempts/{attempt}/renew", handler=renew, summary="Renew an attempt's lease, with the attempt's own token",
        role=None, where=Where.HERE, own_token=True,
    ),
    Route(
        method="POST", path="/v1/attempts/{attempt}/events", handler=report, summary="Report an attempt's events while its node is down",
        role=None, where=Where.HERE, own_token=True, body=ReportBody,
    ),
    Route(method="GET", path="/healthz", handler=healthz, summary="Alive", role=None, where=Where.HERE, any_host=True),
    Route(method="GET", path="/readyz", handler=readyz, summary="Quorum and caught up", role=None, where=Where.HERE, any_host=True),
    Route(method="GET", path="/metrics", handler=metrics, summary="Figures for Prometheus", nodes=True, where=Where.HERE,
          content_types=("text/plain",)),
    Route(method="GET", path="/v1/openapi.json", handler=openapi, summary="This API as OpenAPI 3.1", nodes=True, where=Where.HERE,
          reach=Reach.OPEN),
)  # fmt: skip
