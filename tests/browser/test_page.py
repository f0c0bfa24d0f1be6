"""The page as a person uses it: look, run with a form, follow a log, cancel, pause, search, by mouse and by keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.harness.cluster import Cluster

pytestmark = pytest.mark.browser


def open_page(page: Page, where: str) -> None:
    page.evaluate(f"location.hash = {where!r}")


def test_home_says_how_things_are(page: Page) -> None:
    """One sentence first, then tiles, the strip and what comes next."""
    expect(page.locator(".sentence")).to_contain_text("5 jobs")
    expect(page.locator(".pill").first).to_contain_text("3 voters, leader n")
    expect(page.locator("igor-home")).to_contain_text("page/ticks")


def test_jobs_are_listed_filtered_and_linked(page: Page) -> None:
    """A filter narrows the list, lives in the URL, and a job opens from its row."""
    open_page(page, "#/jobs")
    expect(page.locator("igor-jobs tbody tr")).to_have_count(5)
    page.fill("#filter", "tag:demo")
    expect(page.locator("igor-jobs tbody tr")).to_have_count(1)
    assert "tag" in page.url
    page.click("text=page/ticks")
    expect(page.locator("igor-job h1")).to_have_text("page/ticks")
    expect(page.locator("igor-job")).to_contain_text("Next fires")


def test_run_now_with_a_form_and_a_live_log(page: Page) -> None:
    """The form is made of the job's params; the run's log grows while it is watched; the state becomes succeeded without a reload."""
    open_page(page, "#/job/page%2Fgreet")
    page.click("igor-job button.primary")
    expect(page.locator("#run-now")).to_be_visible()
    expect(page.locator("#param-tone option")).to_have_count(2)
    page.fill("#param-who", "Ada")
    page.click("#run-now button.primary")
    expect(page.locator("igor-run .log")).to_contain_text("hello Ada 1", timeout=20_000)
    expect(page.locator("igor-run .log")).to_contain_text("hello Ada 3", timeout=20_000)
    expect(page.locator("igor-run [data-state=succeeded]").first).to_be_visible(timeout=20_000)


def test_a_failed_run_says_why(page: Page, cluster: Cluster) -> None:
    run = cluster.api("POST", "/v1/jobs/page%2Fbreaks/runs", {"params": {}})["id"]
    cluster.wait_run(run, "failed")
    open_page(page, f"#/run/{run}")
    expect(page.locator("igor-run [data-state=failed]").first).to_be_visible()
    expect(page.locator("igor-run .log")).to_contain_text("about to fail")
    expect(page.locator("igor-run")).to_contain_text("3")


def test_output_is_text_and_never_markup(page: Page, cluster: Cluster) -> None:
    """Colours are shown, a script tag is shown as it was written."""
    run = cluster.api("POST", "/v1/jobs/page%2Fcolours/runs", {"params": {}})["id"]
    cluster.wait_run(run, "succeeded")
    open_page(page, f"#/run/{run}")
    expect(page.locator("igor-run .log")).to_contain_text("red <script>alert(1)</script>")
    expect(page.locator("igor-run .log .ansi-red-fg")).to_have_text("red")


def test_cancel_from_the_page(page: Page, cluster: Cluster) -> None:
    """The confirmation names the run; afterwards it is cancelled."""
    run = cluster.api("POST", "/v1/jobs/page%2Fendless/runs", {"params": {}})["id"]
    cluster.wait_run(run, "running")
    open_page(page, f"#/run/{run}")
    page.click("igor-run button.danger")
    expect(page.locator("#confirm")).to_contain_text(run)
    page.fill("#reason", "enough")
    page.click("#confirm button.primary")
    expect(page.locator("igor-run [data-state=cancelled]").first).to_be_visible(timeout=20_000)


def test_pause_and_resume_from_the_page(page: Page, cluster: Cluster) -> None:
    open_page(page, "#/job/page%2Fticks")
    page.click("igor-job button:has-text('Pause')")
    page.fill("#reason", "window")
    page.click("#confirm button.primary")
    expect(page.locator("igor-job .banner")).to_contain_text("window", timeout=10_000)
    assert cluster.api("GET", "/v1/jobs/page%2Fticks")["paused"] is True
    page.click("igor-job button:has-text('Resume')")
    page.click("#confirm button.primary")
    expect(page.locator("igor-job .banner")).to_have_count(0, timeout=10_000)


def test_runs_are_filtered_by_the_server(page: Page, cluster: Cluster) -> None:
    run = cluster.api("POST", "/v1/jobs/page%2Fbreaks/runs", {"params": {}})["id"]
    cluster.wait_run(run, "failed")
    open_page(page, "#/runs?state=failed")
    expect(page.locator("igor-runs tbody tr").first).to_contain_text("page/breaks")
    expect(page.locator("igor-runs [data-state=succeeded]")).to_have_count(0)


def test_nodes_show_roles_and_leader(page: Page) -> None:
    open_page(page, "#/nodes")
    expect(page.locator("igor-nodes section.card")).to_have_count(3)
    expect(page.locator("igor-nodes [title=leader]")).to_have_count(1)
    expect(page.locator("igor-nodes")).to_contain_text("voter")


def test_keyboard_alone(page: Page) -> None:
    """g j goes to the jobs, j selects a row, Enter opens it, / searches, ? helps."""
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page.locator("igor-jobs tbody tr")).to_have_count(5)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("igor-job h1")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("breaks")
    expect(page.locator(".search li a").first).to_contain_text("page/breaks")
    page.keyboard.press("Enter")
    expect(page.locator("igor-job h1")).to_have_text("page/breaks")
    page.keyboard.press("Escape")
    page.locator("main").focus()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()


def test_a_phone_can_read_it(page: Page) -> None:
    """At 390 pixels nothing runs off the side."""
    page.set_viewport_size({"width": 390, "height": 800})
    for where, element in (("#/home", ".sentence"), ("#/jobs", "igor-jobs tbody"), ("#/runs", "igor-runs tbody"), ("#/nodes", "igor-nodes .card")):
        open_page(page, where)
        page.wait_for_selector(element)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), where


def test_both_themes(page: Page) -> None:
    """The choice changes the colours and is remembered."""
    page.select_option("#theme", "dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.select_option("#theme", "light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_without_a_session_the_page_says_what_to_do(cluster: Cluster, browser: Browser) -> None:
    context = browser.new_context()
    stranger = context.new_page()
    stranger.goto(cluster.nodes[0].address)
    expect(stranger.locator("body")).to_contain_text("igor ui")
    context.close()


def test_logging_out_closes_the_page(cluster: Cluster, browser: Browser) -> None:
    """Also in the tab that is still open, and for whoever kept the cookie."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(cluster.igor("ui", "--print").stdout.strip())
    expect(page.locator("#who")).to_contain_text("admin")
    cookies = context.cookies()
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("body")).to_contain_text("igor ui")
    context.add_cookies(cookies)
    page.goto(cluster.nodes[0].address)
    expect(page.locator("body")).to_contain_text("igor ui")
    context.close()
