"""The page is served from any node to whoever has logged in, under a policy that lets nothing strange run."""

from __future__ import annotations

import re

from igor_node.words import Role
from tests.unit.http.world import World


async def test_the_shell(world: World) -> None:
    answer = await world.ask("GET", "/", role=Role.VIEWER)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "script-src" not in policy  # nothing wider than default-src for scripts
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_whoever_has_not_logged_in_is_told_how(world: World) -> None:
    """In a page that tells nothing of the cluster; the files are closed too."""
    answer = await world.ask("GET", "/", role=None)
    assert answer.status == 401 and "igor ui" in answer.value.decode() and "test-cluster" not in answer.value.decode()
    assert answer.headers["Content-Type"].startswith("text/html") and "default-src 'self'" in answer.headers["Content-Security-Policy"]
    (main, *_) = re.findall(r'<script[^>]+src="([^"]+)"', (await world.ask("GET", "/")).value.decode())
    for path in (main, "/favicon.ico"):
        assert (await world.ask("GET", path, role=None)).status == 401


async def test_every_file_that_the_shell_names_is_served_for_ever(world: World) -> None:
    shell = (await world.ask("GET", "/", role=Role.VIEWER)).value.decode()
    named = re.findall(r'(?:src|href)="(/ui/[^"]+)"', shell)
    assert named
    for path in named:
        answer = await world.ask("GET", path, role=Role.VIEWER)
        assert answer.status == 200, path
        assert "immutable" in answer.headers["Cache-Control"]


async def test_scripts_have_their_type(world: World) -> None:
    """Browsers refuse modules of another type."""
    shell = (await world.ask("GET", "/", role=Role.VIEWER)).value.decode()
    (main,) = re.findall(r'<script[^>]+src="([^"]+)"', shell)
    assert (await world.ask("GET", main, role=Role.VIEWER)).headers["Content-Type"].startswith("text/javascript")


async def test_an_old_address_is_answered_but_not_kept(world: World) -> None:
    """A page that was opened before an upgrade still finds its files."""
    shell = (await world.ask("GET", "/", role=Role.VIEWER)).value.decode()
    (main,) = re.findall(r'<script[^>]+src="([^"]+)"', shell)
    old = re.sub(r"/ui/[0-9a-f]+/", "/ui/00ff/", main)
    assert (await world.ask("GET", old, role=Role.VIEWER)).headers["Cache-Control"] == "no-cache"


async def test_nothing_else_of_the_machine_is_served(world: World) -> None:
    for path in ("/ui/00/../pages.py", "/ui/00/..%2fpages.py", "/ui/00/%2e%2e/pages.py", "/ui/00//etc/passwd"):
        assert (await world.ask("GET", path, role=Role.VIEWER)).status == 404
