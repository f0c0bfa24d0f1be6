"""One healthy cluster of three for the tests that only look at it; tests that kill make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.cluster import Cluster


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def fresh_three() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster
