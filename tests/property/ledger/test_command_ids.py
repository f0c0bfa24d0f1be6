"""A command counts once: whatever is sent again, pruned and sent again, late, early or from another day, an id is carried out at most once.

The ledger is held against a model of a few lines: what each id was answered first, and how old an id may be.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from igor_node.ledger.apply import AHEAD_NS, COMMAND_KEPT_NS
from igor_node.ledger.commands import Command, CreateToken, Prune, Refused
from igor_node.ledger.ledger import Ledger
from igor_node.words import MILLISECOND, SECOND
from tests.unit.ledger.book import START, Book, make_id

HOUR = 3600 * SECOND
DAY = 24 * HOUR
STEPS_S = (0, MILLISECOND, SECOND, HOUR, 11 * HOUR, DAY - MILLISECOND, DAY, DAY + MILLISECOND)
ids = st.tuples(st.sampled_from([-DAY - MILLISECOND, -DAY, -HOUR, 0, HOUR, DAY, DAY + MILLISECOND, 30 * DAY]), st.integers(0, 2))
"""When an id was made, from the begin of the story, and which of that millisecond it is."""
steps = st.lists(
    st.one_of(st.tuples(st.just("send"), ids), st.tuples(st.just("wait"), st.sampled_from(STEPS_S)), st.tuples(st.just("prune"), st.just(0))),
    min_size=5,
    max_size=40,
)


class Model:
    """What must come of a command with this id: the first answer, a new one, or a refusal because of its age."""

    def __init__(self) -> None:
        self.first: dict[str, Any] = {}

    def expects(self, made_at: int, now: int) -> str:
        if made_at < now - COMMAND_KEPT_NS:
            return "too old"
        return "from the future" if made_at > now + AHEAD_NS else "taken"


class Story:
    """Steps on a ledger: ids are sent, time passes, results are pruned."""

    def __init__(self, folder: Path) -> None:
        self.book = Book(folder)
        self.model = Model()
        self.made = 0

    def go_on(self, what: str, how: Any) -> None:
        if what == "send":
            self.send(*how)
        elif what == "prune":
            self.prune()
        else:
            self.book.now += how

    def send(self, made: int, number: int) -> None:
        """A command that says how often it was carried out: each time it makes another token."""
        made_at = (START + made) // MILLISECOND * MILLISECOND
        identifier = make_id(made_at, number)
        self.made += 1
        answer = self.book.apply(CreateToken(token=f"t{self.made}", hash=f"h{self.made}", role="viewer"), id=identifier)
        expected = self.model.expects(made_at, self.book.now)
        if expected == "taken":
            assert answer == self.model.first.setdefault(identifier, answer)
        else:
            assert isinstance(answer, Refused)
            assert answer.error == {"too old": "Conflict", "from the future": "Malformed"}[expected]

    def prune(self) -> None:
        """As much as it will: it must never forget what may still be asked again."""
        self._other(Prune(runs_before=0, results_before=2**62, events_before=0))

    def _other(self, command: Command) -> None:
        self.book.apply(command, id=make_id(self.book.now, 1_000 + len(self.book.entries)))

    def check(self) -> None:
        carried_out = sum(not isinstance(answer, Refused) for answer in self.model.first.values())
        assert self.book.ledger._connection.execute("SELECT count(*) FROM tokens").fetchone() == (carried_out,)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_an_id_is_carried_out_at_most_once(story: list[tuple[str, Any]]) -> None:
    """Within a day of ledger time it gets its first answer, whatever was pruned; older it is refused, and so it is further ahead than a day."""
    with tempfile.TemporaryDirectory() as folder:
        told = Story(Path(folder))
        with closing(told.book):
            for what, how in story:
                told.go_on(what, how)
                told.check()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.integers(1, 7))
def test_batches_do_not_matter_for_ids(story: list[tuple[str, Any]], size: int) -> None:
    """The same log in one batch, or in pieces: the same answers are kept, also of an id that stands twice in one batch and around a prune."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        told = Story(Path(folder))
        with closing(told.book), closing(Ledger(Path(other) / "ledger.sqlite")) as again:
            for what, how in story:
                told.go_on(what, how)
            for start in range(0, len(told.book.entries), size):
                again.apply(told.book.entries[start : start + size])
            assert again._stand == told.book.ledger._stand
