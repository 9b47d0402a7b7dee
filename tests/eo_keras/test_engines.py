import os

import pytest

from eo_keras import engines
from eo_keras.errors import EOKerasError, SourceError


def scaled(context, unit):
    return context * unit


def process_of(context, unit):
    return os.getpid()


def refuse(context, unit):
    raise SourceError(f"unit {unit}", "it is bad", "a good one", "mend it")


def die(context, unit):
    os._exit(9)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_the_order_of_the_units(num_workers):
    assert list(engines.run_units(scaled, 3, range(40), num_workers=num_workers)) == [3 * n for n in range(40)]


def test_one_worker_is_this_process_and_more_are_not():
    assert set(engines.run_units(process_of, None, [1, 2])) == {os.getpid()}
    assert os.getpid() not in set(engines.run_units(process_of, None, [1, 2, 3], num_workers=2))


def test_an_error_crosses_the_pool_with_its_words():
    with pytest.raises(SourceError, match="unit 0: it is bad; expected a good one. Mend it"):
        list(engines.run_units(refuse, None, range(5), num_workers=2))


def test_a_killed_worker_is_our_error():
    with pytest.raises(EOKerasError, match="ended from outside"):
        list(engines.run_units(die, None, range(5), num_workers=2))
