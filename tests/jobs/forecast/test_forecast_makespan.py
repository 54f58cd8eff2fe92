"""Jobs under limits, on graphs whose makespan anybody can see."""

from __future__ import annotations

import pytest

from cwdpo.base.errors import ConfigError
from cwdpo.jobs.forecast.makespan import Job, Limits, finished

DIAMOND = [Job(), Job((0,)), Job((0,)), Job((1, 2))]
TOOK = [1.0, 5.0, 2.0, 3.0]


def test_without_limits_the_longest_chain_counts() -> None:
    assert finished(DIAMOND, TOOK) == [1, 6, 3, 9]
    assert finished([], []) == []


def test_one_after_the_other() -> None:
    assert finished(DIAMOND, TOOK, Limits(nodes=1)) == [1, 6, 8, 11]


def test_independent_jobs_on_two_nodes() -> None:
    # 4 and 3 begin; 2 begins at 3, 2 at 4.
    assert finished([Job()] * 4, [4, 3, 2, 2], Limits(nodes=2)) == [4, 3, 5, 6]


def test_a_place_in_the_queue_is_taken_by_what_waits_there() -> None:
    # The second waits for the first, so that the third, which could run, is not in the queue before 10.
    jobs, took = [Job(), Job((0,)), Job()], [10.0, 1.0, 5.0]
    assert finished(jobs, took, Limits(nodes=2)) == [10, 11, 5]
    assert finished(jobs, took, Limits(queue=2)) == [10, 11, 15]


def test_a_lower_limit_takes_longer() -> None:
    jobs = [Job(), *(Job((0,)) for _ in range(6)), *(Job((number,)) for number in range(1, 7))]
    ends = [max(finished(jobs, [1.0] * 13, Limits(queue=places))) for places in (1, 2, 3, 6, 13)]
    # One more than the root: twelve on one place, then pairs and triples that keep all of theirs busy.
    assert ends == [13, 7, 5, 3, 3]
    assert max(finished(jobs, [1.0] * 13)) == 3


def test_a_job_of_two_nodes_lets_smaller_ones_pass() -> None:
    jobs = [Job(nodes=1), Job(nodes=2), Job(nodes=1), Job(nodes=0)]
    assert finished(jobs, [4, 1, 3, 2], Limits(nodes=2)) == [4, 5, 3, 2]
    with pytest.raises(ConfigError, match="--nodes 1: a job takes 2"):
        finished(jobs, [1] * 4, Limits(nodes=1))


def test_arrays_of_which_one_runs_at_a_time() -> None:
    jobs = [Job(array=0), Job(array=0), Job(array=1)]
    assert finished(jobs, [2, 2, 2], Limits(parallel=1)) == [2, 4, 2]


def test_what_others_wait_for_comes_first() -> None:
    jobs = [Job(urgency=2), Job(urgency=0), Job((1,), urgency=1)]
    assert finished(jobs, [1, 1, 1], Limits(nodes=1)) == [3, 1, 2]
