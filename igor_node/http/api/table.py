"""The table of all routes, in the order in which they are tried: fixed words before names."""

from __future__ import annotations

from igor_node.http.api import activity, backup, cluster, events, jobs, logs, oidc, page, projects, runs, secrets, tokens
from igor_node.http.routes import Route

ROUTES: tuple[Route, ...] = (
    *logs.ROUTES,
    *cluster.ROUTES,
    *backup.ROUTES,
    *jobs.ROUTES,
    *runs.ROUTES,
    *projects.ROUTES,
    *secrets.ROUTES,
    *events.ROUTES,
    *activity.ROUTES,
    *tokens.ROUTES,
    *oidc.ROUTES,
    *page.ROUTES,
)
