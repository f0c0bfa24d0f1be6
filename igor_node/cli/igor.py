"""`igor`: the command line of the cluster's users. A client of the API and nothing else.

A command is: parse, one call of the client, one of the renderers of `output`. Read `command.py` for what all commands share, then any command.
This module only puts them together; whatever is heavy (definitions, `rich`) is imported by the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from igor_node.cli import access, act, command, define, keep, look, operate, secret, see


@click.group(
    "igor",
    cls=command.Group,
    examples=["igor push jobs", "igor run nightly-report --follow", "igor why nightly-report@latest"],
    epilog="A node is found by --node or IGOR_NODE, else --data-dir or IGOR_DATA_DIR, else igor login, else the default data directory. "
    "Exit codes: 0 done, 1 failed, 2 usage or invalid definitions, 3 plan found changes, 4 not found, 5 conflict, 6 denied, "
    "7 no quorum or no node reachable, 8 wait timed out.",
)
@click.version_option(package_name="igor-node", prog_name="igor")
def igor() -> None:
    """Cron for a fleet, without a master: define jobs, run them, see what became of them.

    RUN is an id, the beginning of one, JOB@latest, JOB@failed or JOB@TIME. JOB is a name, or project/name where the name alone is ambiguous.
    """


for part in (
    *(define.init, define.validate, define.plan, define.push, define.schema),
    *(look.jobs, look.job, look.pause_many, look.resume_many, look.schedule, look.dst, look.upcoming),
    *(act.run, act.cancel, act.lost, act.backfill, act.backfills),
    *(see.runs, see.show, see.watch, see.logs, see.why, see.audit, see.events, see.activity),
    *(operate.nodes, operate.node, operate.status, operate.ui),
    *(keep.backup, keep.restore, keep.verify),
    *(access.login, access.logout, access.whoami, access.context, access.token, secret.secret, operate.completion),
):
    igor.add_command(part)


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(command.run(igor, "igor", arguments))


if __name__ == "__main__":
    main()
