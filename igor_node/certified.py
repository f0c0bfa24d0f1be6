"""The node's side of TLS: its files in the data directory, and how it comes by them. `trust/` makes and reads certificates, and does no I/O.

    founding    the CA and the first certificate are made here; the CA's key waits, sealed, in `ca.sealed` until the ledger has it
    joining     `ca.crt` by the token's fingerprint, a key and a signing request, then the certificate that the cluster gives for it
    renewing    with a third of its life left, or when the node is asked under other names, it asks again, over TLS by the old certificate
    signing     whoever leads opens the CA's key, signs, and forgets it

`node.crt` is written last of each set: with it the set is whole. A key in `node.key.new` belongs to a request that was not answered yet.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Sequence

import msgspec

from igor_node.data_dir import DataDir, DataDirProblem
from igor_node.ledger import query_authorities
from igor_node.ledger.commands import SetAuthority
from igor_node.settings import split_address
from igor_node.trust import certificates
from igor_node.trust.contexts import AUTHORITIES, CERTIFICATE, KEY
from igor_node.trust.keys import KeyRing
from igor_node.trust.sealing import Sealed, purpose_of_ca, seal, unseal
from igor_node.words import Conflict, Invalid, Unavailable

SEALED = "ca.sealed"
NEW_KEY = f"{KEY}.new"
FIRST = 1  # generation of the CA that a founder makes


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What a node gets for its signing request: its certificate with the CAs behind it, and the CAs to trust; PEM."""

    certificate: str
    authorities: str


def names(advertised: str, listening: str) -> tuple[str, ...]:
    """Under which the node at these HOST:PORT is asked."""
    return certificates.names_of(split_address(advertised)[0], split_address(listening)[0], socket.gethostname())


def found(data: DataDir, ring: KeyRing, *, node: str, cluster: str, named: Sequence[str], now_s: int, generation: int = FIRST) -> None:
    """A CA and this node's certificate, in the directory. A later generation is that of a cluster that was restored without its key."""
    authority = certificates.found_authority(cluster, now_s, generation)
    key = certificates.new_key()
    own = certificates.certify(authority, certificates.ask(key, node, named), node=node, cluster=cluster, now_s=now_s)
    data.write(SEALED, f"{generation} {seal(ring, purpose_of_ca(generation), authority.key.encode()).hex()}\n", secret=True)
    data.write(KEY, key, secret=True)
    data.write(AUTHORITIES, authority.certificates)
    data.write(CERTIFICATE, certificates.chain(own, [authority.certificates]))


def restore(data: DataDir, connection: sqlite3.Connection, ring: KeyRing, *, node: str, cluster: str, named: Sequence[str], now_s: int) -> bool:
    """For a ledger that came from a backup: a certificate by its CA, where the cluster's key of then is here, else by a new one. False: no TLS."""
    rows = query_authorities.authorities(connection)
    if not rows:
        return False
    try:
        signed = sign(connection, ring, ask(data, node, named), node=node, cluster=cluster, now_s=now_s)
        take(data, signed)
    except Unavailable:  # its key cannot be opened
        data.remove(NEW_KEY)
        found(data, ring, node=node, cluster=cluster, named=named, now_s=now_s, generation=rows[0].generation + 1)
    return True


def founding_command(data: DataDir) -> SetAuthority | None:
    """What tells the ledger of the CA that was made here; None once it knows."""
    sealed = data.read(SEALED)
    if sealed is None:
        return None
    generation, _, key = sealed.partition(" ")
    return SetAuthority(generation=int(generation), certificates=_text(data, AUTHORITIES), sealed_key=bytes.fromhex(key))


def ask(data: DataDir, node: str, named: Sequence[str]) -> str:
    """A signing request for a key that is kept until the answer; the same key for a request that is made again."""
    key = data.read(NEW_KEY)
    if key is None:
        key = certificates.new_key()
        data.write(NEW_KEY, key, secret=True)
    return certificates.ask(key, node, named)


def take(data: DataDir, signed: Signed) -> None:
    """The answer to `ask`. Raises Unavailable where it is none."""
    key = data.read(NEW_KEY) or ""
    if not certificates.fits_key(signed.certificate, key):
        raise Unavailable("the certificate that the cluster gave is not one for this node's key", hint="ask again")
    certificates.split_pem(signed.authorities)
    data.write(AUTHORITIES, signed.authorities)
    data.write(KEY, key + "\n", secret=True)
    data.write(CERTIFICATE, signed.certificate)
    data.remove(NEW_KEY)


def facts(data: DataDir) -> certificates.Facts:
    """Of this node's certificate. Raises DataDirProblem where it cannot be read."""
    try:
        return certificates.facts(_text(data, CERTIFICATE))
    except certificates.BadRequest as problem:
        raise DataDirProblem(f"{data.path / CERTIFICATE}: {problem}", hint="join anew with igor-node join --reset") from None


def trust_mark(data: DataDir) -> bytes:
    """What this node tells the leader of its certificate's CA and of those that it trusts."""
    return certificates.trust_mark(facts(data).issuer, certificates.split_pem(_text(data, AUTHORITIES)))


def next_authority(connection: sqlite3.Connection, ring: KeyRing, cluster: str, now_s: int) -> SetAuthority:
    """A CA that follows the newest one, and is certified by it. Raises Conflict or Unavailable."""
    rows = query_authorities.authorities(connection)
    if len([row for row in rows if row.dropped_at is None]) > 1:
        raise Conflict("the CA is being replaced already", hint="igor-node rotate ca waits for that; igor status says for whom")
    newest = rows[0]
    try:
        before = certificates.Authority(newest.certificates, unseal(ring, purpose_of_ca(newest.generation), newest.sealed_key).decode())
    except Sealed as problem:
        raise Unavailable(str(problem), hint="ask again in a moment") from None
    generation = newest.generation + 1
    made = certificates.follow(before, cluster, now_s, generation)
    return SetAuthority(generation=generation, certificates=made.certificates, sealed_key=seal(ring, purpose_of_ca(generation), made.key.encode()))


def fingerprint(data: DataDir) -> str:
    """Of the CA that the tokens made here name: the newest."""
    return certificates.fingerprint(_text(data, AUTHORITIES))


def knows_ca(data: DataDir, named: str | None) -> bool:
    """Whether a token that names this CA (None: a cluster without TLS) is of the cluster that this directory belongs to."""
    if not is_whole(data):
        return named is None
    shown = [*certificates.split_pem(_text(data, CERTIFICATE)), *certificates.split_pem(_text(data, AUTHORITIES))]
    return named is not None and named in map(certificates.fingerprint, shown)


def wants_renewal(known: certificates.Facts, named: Sequence[str], now_s: int) -> bool:
    return now_s >= certificates.renew_at_s(known) or not set(named) <= known.names


def sign(connection: sqlite3.Connection, ring: KeyRing, request: str, *, node: str, cluster: str, now_s: int) -> Signed:
    """By the newest CA of the ledger. Raises Invalid for a request that is none, Unavailable where the CA's key cannot be opened here."""
    rows = query_authorities.authorities(connection)
    if not rows:
        raise Unavailable("the ledger here does not know the cluster's CA yet", hint="ask again in a moment")
    newest = rows[0]
    try:
        authority = certificates.Authority(newest.certificates, unseal(ring, purpose_of_ca(newest.generation), newest.sealed_key).decode())
        own = certificates.certify(authority, request, node=node, cluster=cluster, now_s=now_s)
    except Sealed as problem:
        raise Unavailable(str(problem), hint="ask again in a moment") from None
    except certificates.BadRequest as problem:
        raise Invalid(str(problem), hint="make a new signing request") from None
    trusted = "".join(certificates.split_pem(row.certificates)[0] for row in rows if row.dropped_at is None)
    return Signed(certificate=certificates.chain(own, [row.certificates for row in rows]), authorities=trusted)


def is_whole(data: DataDir) -> bool:
    return all(os.path.exists(data.path / name) for name in (CERTIFICATE, KEY, AUTHORITIES))


def _text(data: DataDir, name: str) -> str:
    text = data.read(name)
    if text is None:
        raise DataDirProblem(f"{data.path / name} is missing", hint="restore it, or join anew with igor-node join --reset")
    return text + "\n"
