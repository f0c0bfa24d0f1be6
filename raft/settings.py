"""Times and limits of consensus, and the switches of the mends.

Times are seconds on a monotonic clock. A `Mends` names each place where `raft/` does something else than PySyncObj 0.3.17 alone would; all are on.
Only the simulator and the tests turn one off, to show that its fault is real: `docs/consensus.md` has a line for each, under the same name.
"""

from __future__ import annotations

import msgspec

from raft.interface import ENTRY_LIMIT_BYTES


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    heartbeat_s: float = 0.1
    election_min_s: float = 0.8  # an election never begins, and no vote is given, sooner after a leader was heard
    election_max_s: float = 1.3
    retry_min_s: float = 0.15  # of an election nobody won: no leader was heard anyhow, so only votes that split have to be spread
    retry_max_s: float = 0.6
    fallback_s: float = 1.0  # a leader that no majority answers for so long steps down
    commit_notice_s: float = 0.02  # followers learn a commit index so soon, if no entry carries it earlier
    lease_share: float = 0.9  # of election_min_s: clocks may differ in speed by a tenth
    transfer_s: float = 1.0  # how long a leader that hands over takes no proposals
    append_entries: int = 2_000  # in one message; the receiver works through it in some 10 ms
    step_entries: int = 1_000  # to one peer in one go: what others wait while a peer that is far behind is served, some 10 ms
    append_bytes: int = ENTRY_LIMIT_BYTES  # in one message, but one entry always goes
    appends_in_flight: int = 8  # to one peer, unanswered: bounds what a slow peer can hold in queues to 8 MiB and a bit


class Mends(msgspec.Struct, frozen=True, kw_only=True):
    trim_appends: bool = True
    hold_commit: bool = True
    tag_replies: bool = True
    drop_strangers: bool = True
    count_votes_once: bool = True
    one_change_at_a_time: bool = True
    change_after_first_entry: bool = True
    members_from_log: bool = True
    roll_back_members: bool = True
    own_appends: bool = True
    send_at_once: bool = True
    keep_sending_position: bool = True
    count_only_synced: bool = True
    conflict_hint: bool = True
    pre_vote: bool = True
    refuse_votes: bool = True
    fall_back: bool = True
    answer_old_terms: bool = True
    lease_from_sending: bool = True
    lease_ends_with_transfer: bool = True
    read_by_round: bool = True


ALL_MENDS = Mends()
DEFAULT_SETTINGS = Settings()
