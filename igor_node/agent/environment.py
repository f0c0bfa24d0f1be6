"""What a command sees (CONTRACT, "What a command sees"), and the spec its wrapper reads.

The environment is made here as a whole: nothing of the node's own reaches a command but what its owner configured. The wrapper adds what differs from
try to try (IGOR_TRY, the files to write).
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from igor_node.definitions.jobs import Retries
from igor_node.stream import Assignment
from igor_node.words import format_instant

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def basic_environment(name: str | None = None) -> dict[str, str]:
    """Who the command runs as, and where programs are. The same whether the node was started by a person or by systemd."""
    user = pwd.getpwuid(os.getuid()) if name is None else pwd.getpwnam(name)
    return {
        "PATH": PATH,
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
    }


def command_environment(assignment: Assignment, node_name: str, configured: Mapping[str, str]) -> dict[str, str]:
    """Later ones win: basic, the node's configured, the job's own; Igor's names cannot be set by a job."""
    igor = {
        "IGOR_JOB": assignment.job,
        "IGOR_PROJECT": assignment.project,
        "IGOR_RUN": assignment.run,
        "IGOR_STAGE": assignment.stage,
        "IGOR_ATTEMPT": str(assignment.n),
        "IGOR_ATTEMPT_ID": assignment.attempt,
        "IGOR_FENCE": str(assignment.fence),
        "IGOR_NODE": node_name,
        "IGOR_TRIGGER": assignment.trigger,
        "IGOR_CREATED_AT": format_instant(assignment.created_at),
        "TRACEPARENT": _traceparent(assignment),
    }
    if assignment.scheduled_at is not None:
        igor["IGOR_SCHEDULED_TIME"] = format_instant(assignment.scheduled_at)
    params = {f"IGOR_PARAM_{_variable(name)}": value for name, value in assignment.params.items()}
    return {**basic_environment(assignment.user), **configured, **assignment.env, **params, **igor}


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


def _traceparent(assignment: Assignment) -> str:
    """One trace a run, one span an attempt, the same on every node that asks."""
    trace = hashlib.sha256(assignment.run.encode()).hexdigest()[:32]
    span = hashlib.sha256(assignment.attempt.encode()).hexdigest()[:16]
    return f"00-{trace}-{span}-01"


def run_as(name: str) -> dict[str, Any] | None:
    """In numbers, which the wrapper needs; None where that is whom the node runs as. Raises KeyError where the machine does not know the name."""
    user = pwd.getpwnam(name)
    if user.pw_uid == os.geteuid():
        return None
    return {"uid": user.pw_uid, "gid": user.pw_gid, "groups": os.getgrouplist(name, user.pw_gid)}


def make_spec(
    assignment: Assignment, *, environment: dict[str, str], clock_ns: int, boot_id: str, lease_from_boot_ns: int, authorities: str = ""
) -> dict[str, Any]:
    """`wrapper.protocol.SPEC_FIELDS`, every one given: the wrapper has no defaults of its own."""
    command = assignment.command
    retries = msgspec.convert(assignment.retries, Retries)
    return {
        "attempt": assignment.attempt,
        "command": [assignment.shell, "-c", command] if isinstance(command, str) else list(command),
        "env": environment,
        "workdir": assignment.workdir,
        "umask": assignment.umask,
        "user": None if assignment.user is None else run_as(assignment.user),
        "due_at": assignment.due_at,
        "clock_ns": clock_ns,
        "boot_id": boot_id,
        "lease_ns": assignment.lease_ns,
        "lease_from_boot_ns": lease_from_boot_ns,
        "on_node_loss": assignment.on_node_loss,
        "retries": {
            "max": retries.max,
            "initial_ns": retries.backoff.initial_ns,
            "factor": retries.backoff.factor,
            "max_ns": retries.backoff.max_ns,
            "jitter": retries.backoff.jitter,
            "on": None if retries.on is None else list(retries.on),
        },
        "timeout_ns": assignment.timeout_ns,
        "total_timeout_ns": assignment.total_timeout_ns,
        "grace_ns": assignment.grace_ns,
        "success_codes": list(assignment.success_codes),
        "retry_codes": None if assignment.retry_codes is None else list(assignment.retry_codes),
        "skip_codes": list(assignment.skip_codes),
        "log_limit_bytes": assignment.log_limit_bytes,
        "renew_token": assignment.renew_token,
        "renew_addresses": list(assignment.renew_addresses),
        "authorities": authorities,
        "secrets": dict(assignment.secrets),
    }
