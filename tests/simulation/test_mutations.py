"""Each one-line fault of the list is found; so a fault of that kind that somebody makes tomorrow will be, too."""

from __future__ import annotations

import sys

import pytest

from raft.settings import Mends
from tests.simulation import mutations
from tests.simulation.checks import Broken
from tests.simulation.faults import FAULTS, Fault
from tests.simulation.mutations import PAGE, TABLE_BEGINS, TABLE_ENDS, Outdated, all_tries, changed_source, faulty, hunt, known, table

SEEDS_IN_THE_SUITE = 40  # where what found a fault last does not find it any more: any change of consensus or simulator changes all histories


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_fault_is_found(fault: Fault):
    """By what found it last, else by any scenario or one of some seeds; `mutations --record` brings the record up to date."""
    tries = all_tries(SEEDS_IN_THE_SUITE)
    found = hunt(fault, [known()[fault.name].by, *tries[SEEDS_IN_THE_SUITE:], *tries[:SEEDS_IN_THE_SUITE]])
    assert found is not None, f"{fault.name} ({fault.what}): nothing in {len(tries)} histories and scenarios breaks"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_fault_is_found_without_knowing_how(fault: Fault):
    assert hunt(fault, all_tries(mutations.SEEDS)) is not None


def test_every_mend_is_a_fault_to_find():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) > 50
    assert {f"no_{mend}" for mend in Mends.__struct_fields__} <= set(names)


def test_a_line_that_is_gone_is_said():
    fault = Fault("gone", "nothing", "raft/gate.py", "    return a_line_that_nobody_wrote", "    return None")
    with pytest.raises(Outdated, match=r"fault gone: the line .* of raft/gate.py is no longer there"):
        changed_source(fault)
    with pytest.raises(Outdated, match=r"is there \d+ times"):
        changed_source(fault._replace(file="raft/gate.py", line="term_at(prev)", instead=""))


def test_the_page_has_the_table_of_the_record():
    page = PAGE.read_text()
    assert page.split(TABLE_BEGINS)[1].split(TABLE_ENDS)[0] == table(known())
    assert [fault.name for fault in FAULTS] == list(known()), "run python -m tests.simulation.mutations --record"


def test_nothing_is_left_of_a_fault():
    """Within, the modules are others; after it they are the ones from before."""
    raft, checks = sys.modules["raft.gate"], sys.modules["tests.simulation.checks"]
    with faulty(FAULTS[-1]):
        import tests.simulation.checks
        from raft import gate

        assert gate is not raft
        assert tests.simulation.checks.Broken is not Broken
    from raft import gate
    from tests.simulation import checks as checks_after

    assert gate is raft
    assert checks_after is checks
