"""The map over threads: order, bounds, errors at their turn, and an end at once. No test waits for a time."""

import itertools
import threading
from contextlib import closing

import pytest

from viceversa.threads import ordered


def test_in_order_whoever_is_done_first():
    later = threading.Event()

    def task(n):
        if n == 0:
            assert later.wait(60)
        if n == 5:
            later.set()
        return n * n

    assert list(ordered(task, range(50), workers=4)) == [n * n for n in range(50)]
    assert list(ordered(task, [], workers=4)) == []


def test_bounded_however_many_jobs_there_are():
    begun = []
    with closing(ordered(begun.append, itertools.count(), workers=2)) as results:
        for n in range(100):
            next(results)
            assert len(begun) <= n + 1 + 8


def test_no_more_is_begun_than_there_is_room_for():
    """Three of 10 bytes in a room of 30; what is larger than the room goes alone."""
    fetched, fourth, beside = threading.Event(), threading.Event(), []

    def weigh(job):
        if job == 3:
            fetched.set()
        return 100 if job == 6 else 10

    def task(job):
        if job == 0:  # the fourth has been looked at, and must not begin as long as the first is there
            beside.append(fetched.wait(60) and fourth.wait(0.2))
        if job == 3:
            fourth.set()
        return job

    assert list(ordered(task, range(9), workers=8, weigh=weigh, room=30)) == list(range(9))
    assert beside == [False]


def test_an_error_comes_at_its_turn_and_ends_it():
    begun = []

    def task(n):
        begun.append(n)
        if n == 3:
            raise LookupError("three")
        return n

    results = ordered(task, itertools.count(), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="three"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert len(begun) <= 3 + 8 + 1


def test_an_error_among_the_jobs_ends_it():
    def jobs():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(ordered(lambda n: n, jobs()))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, None])
def test_who_stops_leaves_nothing_behind(stop):
    """A million jobs, of which the first is looked at only."""
    before = set(threading.enumerate())
    begun = []

    def consume():
        for _ in ordered(begun.append, range(10**6), workers=2):
            if stop is None:
                break
            raise stop

    if stop is None:
        consume()
    else:
        with pytest.raises(stop):
            consume()
    assert len(begun) <= 9 and set(threading.enumerate()) == before


def test_maps_may_stand_behind_each_other():
    before = set(threading.enumerate())
    first = ordered(lambda n: n + 1, itertools.count())
    second = ordered(lambda n: 2 * n, first)
    assert list(itertools.islice(second, 5)) == [2, 4, 6, 8, 10]
    second.close()
    first.close()
    assert set(threading.enumerate()) == before


def test_each_thread_is_prepared():
    mine = threading.local()

    def prepare():
        mine.ready = True

    assert all(ordered(lambda _: mine.ready, range(20), workers=3, initializer=prepare))
