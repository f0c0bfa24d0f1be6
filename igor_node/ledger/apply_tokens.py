"""How the ledger changes when tokens are made and revoked, and when people log in and out.

Who may make which token is the API's to judge (http/grants.py); what is judged here again is time: a token that was revoked, or has ended by the
ledger's clock, makes no other one, however long the command was on its way.
"""

from __future__ import annotations

import msgspec

from igor_node.ledger import schema
from igor_node.ledger.commands import CreateToken, Done, EndSession, LogIn, NoteTokenUses, Refused, Result, RevokeToken
from igor_node.ledger.transaction import Transaction, to_json
from igor_node.words import NAME, Role

TOKENS_LIMIT = 10_000  # good ones besides those of nodes: every node keeps them at hand
PROJECTS_LIMIT = 100  # of one token; more is a token for all
NAME_CHARACTERS = 100
LOGINS_LIMIT = 10  # of one person at once: some browsers and machines; the oldest ends
ENDED_SESSIONS_LIMIT = 100_000
USES_LIMIT = 1_000  # in one command
PEOPLE = (Role.VIEWER, Role.OPERATOR, Role.DEPLOYER, Role.ADMIN)


def create_token(tx: Transaction, command: CreateToken) -> Result:
    if command.role not in tuple(Role):
        return Refused("Invalid", f'"{command.role}" is not a role', f"expected one of {', '.join(Role)}")
    if refused := _unfit(command.projects, command.name) or _maker_has_ended(tx, command.by) or _too_many(tx):
        return refused
    if tx.one(schema.SELECT_TOKEN, command.token) is not None or tx.one(schema.SELECT_TOKEN_BY_HASH, command.hash) is not None:
        return Refused("Conflict", f"there is a token {command.token} already", "make another one")
    projects = to_json(command.projects).decode()
    tx.execute(
        schema.INSERT_TOKEN,
        (command.token, command.hash, command.role, command.name, projects, None, None, tx.actor, tx.time, command.expires_at),
    )
    tx.event("token", action="created", token=command.token, role=command.role, name=command.name)
    tx.touch("tokens")
    return Done({"token": command.token})


def note_token_uses(tx: Transaction, command: NoteTokenUses) -> Result:
    """Only forward, and never beyond the ledger's own time. It is no change that anybody waits for."""
    if len(command.uses) > USES_LIMIT:
        return Refused("Invalid", f"{len(command.uses)} uses are too many", f"expected at most {USES_LIMIT}")
    for token, at in sorted(command.uses.items()):
        tx.execute(schema.NOTE_TOKEN_USE, (min(at, tx.time), token))
    return Done({"noted": len(command.uses)})


def _unfit(projects: tuple[str, ...], name: str) -> Refused | None:
    if len(projects) > PROJECTS_LIMIT:
        return Refused("Invalid", f"a token cannot be bound to {len(projects)} projects", f"expected at most {PROJECTS_LIMIT}")
    wrong = next((project for project in projects if not NAME.fullmatch(project)), None)
    if wrong is not None:
        return Refused("Invalid", f'"{wrong[:100]}" is not a name of a project', "letters, digits, -, _ and . are; at most 100")
    return Refused("Invalid", "the name of the token is too long", f"at most {NAME_CHARACTERS} characters") if len(name) > NAME_CHARACTERS else None


def _maker_has_ended(tx: Transaction, maker: str) -> Refused | None:
    known = tx.one(schema.SELECT_TOKEN, maker) if maker else None
    if maker and (known is None or known[1] is not None or (known[2] is not None and known[2] <= tx.time)):
        return Refused("Unauthenticated", "the token that was to make this one has ended")
    return None


def _too_many(tx: Transaction) -> Refused | None:
    if tx.one(schema.COUNT_TOKENS, tx.time)[0] < TOKENS_LIMIT:
        return None
    return Refused("Conflict", f"there are {TOKENS_LIMIT} tokens that are good, more are not possible", "igor token list shows them; revoke some")


def revoke_token(tx: Transaction, command: RevokeToken) -> Result:
    known = tx.one(schema.SELECT_TOKEN, command.token)
    if known is None:
        return Refused("NotFound", f"no token has the id {command.token}", "igor token list shows them")
    if known[1] is None:
        _revoke(tx, command.token, "revoked")
    return Done({"token": command.token})


def _revoke(tx: Transaction, token: str, action: str) -> None:
    tx.execute(schema.REVOKE_TOKEN, (tx.time, token))
    tx.event("token", action=action, token=token)
    tx.touch("tokens")


# --- people


def log_in(tx: Transaction, command: LogIn) -> Result:
    """The answer tells which earlier log-ins have ended with this one."""
    if command.role and command.role not in PEOPLE:
        return Refused("Invalid", f'"{command.role}" is not a role of people', f"expected one of {', '.join(PEOPLE)}")
    if refused := _unfit(command.projects, command.name):
        return refused
    if command.role and (refused := _too_many(tx) or _is_taken(tx, command)):
        return refused
    ended = _end_earlier(tx, command)
    if not command.role:
        return Done({"token": None, "ended": ended})
    projects = to_json(command.projects).decode()
    tx.execute(
        schema.INSERT_TOKEN,
        (command.token, command.hash, command.role, command.name, projects, None, command.subject, tx.actor, tx.time, command.expires_at),
    )
    tx.event("token", action="logged in", token=command.token, role=command.role, name=command.name)
    tx.touch("tokens")
    return Done({"token": command.token, "ended": ended})


def _is_taken(tx: Transaction, command: LogIn) -> Refused | None:
    if tx.one(schema.SELECT_TOKEN, command.token) is None and tx.one(schema.SELECT_TOKEN_BY_HASH, command.hash) is None:
        return None
    return Refused("Conflict", f"there is a token {command.token} already", "log in again")


def _end_earlier(tx: Transaction, command: LogIn) -> list[str]:
    """What the provider says now is what counts: a person who was taken out of a group loses what it gave at the next log-in, everywhere."""
    earlier = tx.all(schema.SELECT_LOGINS, command.subject, tx.time)
    places = LOGINS_LIMIT - 1
    ended = [token for n, (token, role, projects) in enumerate(earlier) if n >= places or not _within(role, msgspec.json.decode(projects), command)]
    for token in ended:
        _revoke(tx, token, "ended")
    return ended


def _within(role: str, projects: list[str], now: LogIn) -> bool:
    if not now.role or PEOPLE.index(Role(role)) > PEOPLE.index(Role(now.role)):
        return False
    return not now.projects or (bool(projects) and all(project in now.projects for project in projects))


def end_session(tx: Transaction, command: EndSession) -> Result:
    if command.until > tx.time:
        if tx.one(schema.COUNT_ENDED_SESSIONS)[0] >= ENDED_SESSIONS_LIMIT:
            return Refused("Conflict", "too many sessions were ended before their time", "the session ends by itself")
        tx.execute(schema.INSERT_ENDED_SESSION, (command.session, command.until))
        tx.touch("tokens")
    return Done({"session": command.session})
