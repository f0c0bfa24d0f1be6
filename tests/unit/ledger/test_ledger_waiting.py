"""What placement gets to see: who may start, and apart from them some of those who wait behind others of their own job."""

from __future__ import annotations

from igor_node.definitions.jobs import Stage
from igor_node.ledger import waiting as module
from igor_node.ledger.waiting import waiting
from igor_node.words import SECOND
from tests.unit.ledger.book import Book, job


def look(book: Book, limit: int = 1_000, blocked_per_job: int = 100) -> module.Waiting:
    return book.read(lambda c: waiting(c, book.now + 5 * SECOND, limit, blocked_per_job=blocked_per_job))


def may_start(found: module.Waiting) -> list[str]:
    return [one.run for one in found.stages if one.blocked is None]


def test_blocked_runs_take_nobodys_place(book: Book) -> None:
    """However long the line of one job is, a look of a few stages reaches those that may start behind it."""
    book.push(job("long", max_queued=100), job("late"))
    line = [book.create("shop/long") for _ in range(50)]
    book.now += SECOND
    late = book.create("shop/late")
    assert may_start(look(book, limit=2, blocked_per_job=0)) == [line[0], late]
    assert len(look(book, limit=2, blocked_per_job=0).stages) == 2


def test_the_head_of_a_line_is_as_long_as_the_job_has_room(book: Book) -> None:
    """Less those that are going."""
    book.node()
    book.push(job("wide", overlap="allow", max_parallel=3, max_queued=100))
    line = [book.create("shop/wide") for _ in range(6)]
    assert book.place(line[0]) == ""
    found = look(book)
    assert may_start(found) == line[1:3]
    assert [one.run for one in found.stages if one.blocked] == line[3:]
    assert {book.place(one) for one in may_start(found)} == {""}
    assert may_start(look(book)) == []
    assert "as many as max_parallel allows" in book.place(line[3])


def test_blocked_runs_know_whom_they_wait_for_some_of_each_job(book: Book) -> None:
    """The same words as the ledger's own refusal."""
    book.node()
    book.push(job("a", max_queued=100), job("b", max_queued=100))
    first = book.create("shop/a")
    others = [book.create("shop/a") for _ in range(20)]
    for _ in range(20):
        book.create("shop/b")
    assert book.place(first) == ""
    held = [one for one in look(book, blocked_per_job=3).stages if one.blocked]
    assert sorted(one.job for one in held) == ["shop/a"] * 3 + ["shop/b"] * 3
    assert held[0].blocked == f"run {first} of the same job has not ended (overlap: queue)"
    assert held[0].blocked == book.place(others[0])


def test_later_stages_and_runs_made_with_now_wait_for_nobody(book: Book) -> None:
    """A run that has begun goes on, and one beside the line starts, though the line is long."""
    book.node()
    book.push(job(max_queued=100, stages=[Stage(name="a", command="true"), Stage(name="b", command="true")]))
    line = [book.create() for _ in range(30)]
    beside = book.create(beside=True)
    assert book.place(line[0], "a") == ""
    found = look(book, limit=10, blocked_per_job=0)
    assert sorted((one.run, one.stage) for one in found.stages) == sorted([(line[0], "b"), (beside, "a"), (beside, "b")])


def test_a_line_that_is_long_is_not_read(book: Book) -> None:
    """Statements, not time: a new run and a placement read the counts and the head, however many wait."""
    book.node()
    book.push(job("wide", overlap="allow", max_parallel=1_000, max_queued=1_000))
    line = [book.create("shop/wide") for _ in range(300)]
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    book.ledger._connection.set_progress_handler(count, 10)  # of the steps of SQLite's machine
    book.create("shop/wide")
    assert book.place(line[0]) == ""
    book.ledger._connection.set_progress_handler(None, 0)
    assert steps < 150
