"""From a word to a backend."""

import subprocess
import sys

import pytest

from fedavg.backends import Local, of
from fedavg.errors import ParameterError


def test_what_is_a_backend_stays_one_and_nothing_means_this_process():
    local = Local()
    assert of(local) is local
    assert isinstance(of(None), Local)
    assert isinstance(of("local"), Local)


def test_processes_by_name():
    assert type(of("processes")).__name__ == "Processes"


@pytest.mark.parametrize("word", ["", "rays", "process"])
def test_another_word_is_refused_with_those_there_are(word):
    with pytest.raises(ParameterError, match=f"backend is '{word}'.*processes.*ray"):
        of(word)


def test_no_backend_loads_ray_but_its_own():
    code = "import fedavg, fedavg.backends.processes, sys; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
