"""Workers in processes of this machine: what cannot be started says why."""

import pytest

from statesize.parallel.executor import Processes


def test_work_that_cannot_be_sent_to_a_process_says_why():
    with pytest.raises(Exception, match="pickle"), Processes(lambda: iter, 1) as workers:
        list(workers.run(["a task"]))
