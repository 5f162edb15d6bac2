"""The order of asks, their grouping, and the promise of one outcome each."""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.ledger import Ledger
from tinyllava_edge.messages import Ask, failure
from tinyllava_edge.schedule import AskQueue, Pending, ReplyTo


def pending(ask_id: str, key: str = "camera/a", **fields: object) -> Pending:
    ask = Ask.model_validate({"id": ask_id, "camera": "a", "question": "?", **fields})
    return Pending(ask, ReplyTo("t"), key)


def ids(group: list[Pending]) -> list[str]:
    return [one.ask.id for one in group]


def test_queue_gives_priority_then_deadline_then_arrival():
    queue = AskQueue(10)
    queue.put(pending("late", deadline_ms=9000))
    queue.put(pending("none"))
    queue.put(pending("soon", deadline_ms=1000))
    queue.put(pending("urgent", priority=9))
    assert ids(queue.take_group(10, 0)) == ["urgent", "soon", "late", "none"]


def test_queue_groups_only_asks_of_one_picture_and_leaves_the_rest():
    queue = AskQueue(10)
    for ask_id, key in (("1", "a"), ("2", "b"), ("3", "a"), ("4", "a")):
        queue.put(pending(ask_id, key))
    assert ids(queue.take_group(2, 0)) == ["1", "3"]
    assert ids(queue.take_group(2, 0)) == ["2"]
    assert ids(queue.take_group(2, 0)) == ["4"]


def test_queue_is_full_at_its_capacity_and_not_before():
    queue = AskQueue(2)
    assert [queue.put(pending(str(n))) for n in range(3)] == [True, True, False]
    assert len(queue) == 2


def test_queue_hands_out_what_arrives_while_it_is_waited_for():
    queue = AskQueue(1)
    threading.Timer(0.05, queue.put, [pending("a")]).start()
    assert ids(queue.take_group(1, 5)) == ["a"]
    assert queue.take_group(1, 0.01) == []


def test_queue_gives_up_exactly_the_asks_whose_deadline_has_passed():
    queue = AskQueue(10)
    queue.put(pending("now", deadline_ms=1))
    queue.put(pending("later", deadline_ms=60_000))
    queue.put(pending("never"))
    time.sleep(0.01)
    assert ids(queue.take_expired()) == ["now"]
    assert ids(queue.take_all()) == ["later", "never"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20), st.integers(1, 5)
)
def test_queue_hands_out_every_ask_once_whatever_the_order(asks, size):
    queue = AskQueue(100)
    for number, (key, priority) in enumerate(asks):
        queue.put(pending(str(number), key, priority=priority))
    taken = []
    while group := queue.take_group(size, 0):
        assert len({one.key for one in group}) == 1
        assert len(group) <= size
        taken += ids(group)
    assert sorted(taken, key=int) == [str(number) for number in range(len(asks))]


def test_ledger_settles_an_ask_once_and_remembers_the_answer():
    ledger = Ledger(10)
    ledger.open(pending("a"))
    assert ledger.is_open("a")
    payload = ledger.close(failure("a", "deadline", "late"))
    assert payload is not None
    assert ledger.close(failure("a", "stopped", "again")) is None
    assert ledger.answer_to("a") == payload
    assert ledger.totals() == {"accepted": 1, "expired": 1}


def test_ledger_forgets_the_answers_longest_not_asked_for_when_full():
    ledger = Ledger(2)
    for ask_id in ("a", "b"):
        ledger.open(pending(ask_id))
        ledger.close(failure(ask_id, "deadline", "late"))
    ledger.answer_to("a")
    ledger.open(pending("c"))
    ledger.close(failure("c", "deadline", "late"))
    assert [ledger.answer_to(x) is not None for x in "abc"] == [True, False, True]


def test_ledger_owes_nothing_for_an_ask_that_was_taken_back():
    ledger = Ledger(2)
    one = pending("a")
    ledger.open(one)
    ledger.forget(one)
    assert ledger.all_open() == []
    assert ledger.totals() == {"accepted": 0}


def test_ledger_lets_only_one_of_two_threads_settle_an_ask():
    ledger = Ledger(1000)
    start = threading.Barrier(2)
    won: list[str] = []

    def settle(code: str) -> None:
        start.wait()
        for number in range(300):
            if ledger.close(failure(str(number), code, "")) is not None:
                won.append(str(number))

    for number in range(300):
        ledger.open(pending(str(number)))
    threads = [threading.Thread(target=settle, args=[code]) for code in ("deadline", "stopped")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won, key=int) == [str(number) for number in range(300)]
