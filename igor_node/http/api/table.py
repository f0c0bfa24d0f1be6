"""The table of all routes, in the order in which they are tried: fixed words before names."""

from __future__ import annotations

from igor_node.http.api import activity, audit, backfills, backup, cluster, events, jobs, logs, oidc, page, projects, runs, secrets, tokens, why
from igor_node.http.routes import Route

ROUTES: tuple[Route, ...] = (
    *logs.ROUTES,
    *cluster.ROUTES,
    *backup.ROUTES,
    *backfills.ROUTES,
    *jobs.ROUTES,
    *why.ROUTES,
    *runs.ROUTES,
    *audit.ROUTES,
    *projects.ROUTES,
    *secrets.ROUTES,
    *events.ROUTES,
    *activity.ROUTES,
    *tokens.ROUTES,
    *oidc.ROUTES,
    *page.ROUTES,
)
