"""What a node needs to run one attempt, made from the ledger's row: the command with its values put in, environment, limits, and the renewal token.

The same row gives the same assignment in every term, so any leader can send it again. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from igor_node.definitions.values import render_stage, run_values
from igor_node.leader.renewal import renewal_token
from igor_node.ledger.query_attempts import OpenAttempt
from igor_node.stream import Assignment
from igor_node.words import Instant


def assignment(row: OpenAttempt, key: bytes, addresses: Sequence[str]) -> Assignment:
    """Raises words.Invalid where a value that the command names does not exist: such a run is refused when it is made."""
    job, stage = row.spec, row.stage_spec
    scheduled_at = None if row.scheduled_at is None else Instant(row.scheduled_at)
    values = run_values(job, run=row.run, scheduled_at=scheduled_at, created_at=Instant(row.created_at), given=row.params)
    command, env = render_stage(stage, values, job.shell)
    return Assignment(
        attempt=row.attempt,
        run=row.run,
        job=job.name,
        project=job.project,
        stage=row.stage,
        n=row.n,
        fence=row.fence,
        trigger=row.trigger,
        due_at=row.due_at,
        scheduled_at=row.scheduled_at,
        created_at=row.created_at,
        command=command,
        shell=job.shell,
        env=env,
        params=values.params,
        lease_ns=row.lease_ns,
        on_node_loss=row.on_node_loss,
        retries=msgspec.to_builtins(stage.retries),
        timeout_ns=stage.timeout_ns,
        total_timeout_ns=stage.total_timeout_ns,
        grace_ns=stage.grace_ns,
        success_codes=stage.success_codes,
        retry_codes=stage.retry_codes,
        skip_codes=stage.skip_codes,
        workdir=stage.workdir,
        umask=job.umask,
        user=stage.user,
        log_limit_bytes=job.log_limit_bytes,
        secrets=stage.secrets,
        renew_token=renewal_token(key, row.attempt),
        renew_addresses=tuple(addresses),
    )
