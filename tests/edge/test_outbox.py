"""Delivery at least once, over connections that come and go."""

from dataclasses import dataclass, field

from tinyllava_edge.outbox import Outbox, Outgoing


@dataclass
class Paper:
    published: bool = False

    def is_published(self) -> bool:
        return self.published


@dataclass(eq=False)
class Wire:
    """A connection that remembers what it was given and confirms when told to."""

    broken: bool = False
    sent: list[tuple[str, Paper]] = field(default_factory=list)

    def send(self, message: Outgoing) -> Paper | None:
        if self.broken:
            return None
        self.sent.append((message.payload.decode(), Paper()))
        return self.sent[-1][1]

    def texts(self) -> list[str]:
        return [text for text, _ in self.sent]

    def confirm(self) -> None:
        for _, paper in self.sent:
            paper.published = True


def message(text: str, topic: str = "t") -> Outgoing:
    return Outgoing(topic, text.encode())


def test_messages_wait_for_the_first_connection_and_keep_their_order():
    outbox, wire = Outbox(10), Wire()
    outbox.put(message("1"))
    outbox.put(message("2"))
    outbox.connect(wire)
    outbox.put(message("3"))
    assert wire.texts() == ["1", "2", "3"]


def test_unconfirmed_messages_are_sent_again_on_the_next_connection_and_confirmed_ones_are_not():
    outbox, first, second = Outbox(10), Wire(), Wire()
    outbox.connect(first)
    outbox.put(message("1"))
    first.confirm()
    outbox.put(message("2"))
    outbox.disconnect()
    outbox.put(message("3"))
    outbox.connect(second)
    assert second.texts() == ["2", "3"]


def test_message_is_kept_when_the_connection_breaks_while_sending():
    outbox, second = Outbox(10), Wire()
    outbox.connect(Wire(broken=True))
    assert outbox.put(message("1"))
    assert outbox.waiting() == 1
    outbox.connect(second)
    assert second.texts() == ["1"]


def test_outbox_is_full_at_its_capacity_until_something_is_confirmed():
    outbox, wire = Outbox(2), Wire()
    outbox.connect(wire)
    assert [outbox.put(message(str(n))) for n in range(3)] == [True, True, False]
    wire.confirm()
    assert outbox.put(message("4"))
    assert wire.texts() == ["0", "1", "4"]


def test_state_is_sent_on_every_connection_and_only_the_newest_of_a_topic():
    outbox, first, second = Outbox(1), Wire(), Wire()
    outbox.put_state(message("offline", "status"))
    outbox.put_state(message("online", "status"))
    outbox.put_state(message("{}", "health"))
    outbox.connect(first)
    first.confirm()
    outbox.connect(second)
    assert first.texts() == second.texts() == ["online", "{}"]
    assert outbox.put(message("states do not take the room of messages"))


def test_flush_tells_whether_everything_was_confirmed_in_time():
    outbox, wire = Outbox(2), Wire()
    outbox.connect(wire)
    outbox.put(message("1"))
    assert not outbox.flush(0.05)
    wire.confirm()
    assert outbox.flush(0.05)
