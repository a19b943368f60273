"""A client and a broker that do anything in any order: what the client's tables say is what the broker knows."""

from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.amqp.events import ChannelClosed, Confirmed, Delivered, Returned
from common.amqp.frames import split
from common.amqp.methods import decode_method
from common.amqp.spec import HEADER_FRAME, METHOD_FRAME
from tests.property.amqp.broker import content, deliver, method, opened, with_channel


class Conversation(RuleBasedStateMachine):
    """The broker's side is a model: publishes that it has not answered, and deliveries that are not settled."""

    deliveries = Bundle("deliveries")

    @initialize()
    def begin(self) -> None:
        self.connection = opened(frame_max=4096)
        self.reopen()

    def reopen(self) -> None:
        self.channel = with_channel(self.connection, confirms=True)
        self.published: dict[int, int] = {}
        self.properties: dict[int, bytes] = {}
        self.unsettled: dict[int, None] = {}
        self.settled_by_client: set[int] = set()
        self.tag = self.number = 0
        self.generation = getattr(self, "generation", 0) + 1

    # -- the client

    @rule(size=st.sampled_from([0, 1, 5000]), mandatory=st.booleans())
    def publish(self, size: int, mandatory: bool) -> None:
        self.number += 1
        token = self.generation * 1000 + self.number
        given = self.channel.publish(b"x" * size, exchange="", routing_key="q", mandatory=mandatory, token=token)
        assert given == self.number
        self.published[given] = token

    @rule(delivery=deliveries)
    def ack(self, delivery: tuple[int, int]) -> None:
        self.settle(delivery, self.channel.ack)

    @rule(delivery=deliveries, requeue=st.booleans())
    def reject(self, delivery: tuple[int, int], requeue: bool) -> None:
        self.settle(delivery, lambda tag: self.channel.reject(tag, requeue=requeue))

    def settle(self, delivery: tuple[int, int], settle: Any) -> None:
        generation, tag = delivery
        if generation != self.generation or tag in self.settled_by_client:
            return
        settle(tag)
        self.settled_by_client.add(tag)

    @rule()
    def reject_all(self) -> None:
        if self.tag:
            self.channel.reject_up_to(self.tag, requeue=True)
            self.settled_by_client |= set(range(1, self.tag + 1))

    # -- the broker

    @rule()
    def broker_reads(self) -> None:
        """Settlements reach the broker's table; a tag that it does not know would be an error there."""
        for kind, channel, payload in split(self.connection.data_to_send(0.0), 4096):
            assert channel == self.channel.number
            if kind == HEADER_FRAME:
                self.properties[len(self.properties) + 1] = payload[12:]
            if kind != METHOD_FRAME:
                continue
            _, found = decode_method(payload)
            if found.name in {"basic.ack", "basic.nack", "basic.reject"}:
                tag = found["delivery_tag"]
                assert tag in self.unsettled, f"{found.name} of {tag}, which the broker does not know"
                tags = [each for each in self.unsettled if each <= tag] if found.arguments.get("multiple") else [tag]
                for each in tags:
                    assert each in self.settled_by_client, "settled what nobody settled"
                    del self.unsettled[each]

    @rule(target=deliveries, size=st.sampled_from([0, 3, 9000]))
    def broker_delivers(self, size: int) -> tuple[int, int]:
        self.tag += 1
        self.unsettled[self.tag] = None
        (event,) = self.connection.receive_data(deliver(self.channel.number, self.tag, b"y" * size, piece=4000), 0.0)
        assert isinstance(event, Delivered)
        assert len(event.content.body) == size
        return self.generation, self.tag

    @precondition(lambda self: self.published)
    @rule(data=st.data(), multiple=st.booleans(), is_ack=st.booleans())
    def broker_confirms(self, data: st.DataObject, multiple: bool, is_ack: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.published)))
        tags = [each for each in self.published if each <= tag] if multiple else [tag]
        name = "basic.ack" if is_ack else "basic.nack"
        events = self.connection.receive_data(method(self.channel.number, name, delivery_tag=tag, multiple=multiple), 0.0)
        assert events == [Confirmed(self.channel.number, [self.published.pop(each) for each in tags], is_ack)]

    @rule(data=st.data())
    def broker_returns(self, data: st.DataObject) -> None:
        self.broker_reads()
        mandatory = [each for each in self.published if self.properties.get(each, b"\0\0") != b"\0\0"]
        if not mandatory:
            return
        number = data.draw(st.sampled_from(mandatory))
        head = method(self.channel.number, "basic.return", reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
        (event,) = self.connection.receive_data(head + content(self.channel.number, b"", properties=self.properties[number]), 0.0)
        assert isinstance(event, Returned)
        assert event.token == self.published.pop(number)
        assert self.connection.receive_data(method(self.channel.number, "basic.ack", delivery_tag=number), 0.0) == []

    @rule()
    def broker_closes_the_channel(self) -> None:
        (event,) = self.connection.receive_data(method(self.channel.number, "channel.close", reply_code=404), 0.0)
        assert isinstance(event, ChannelClosed)
        assert sorted(event.unconfirmed) == sorted(self.published.values())
        self.connection.data_to_send(0.0)
        self.reopen()

    @invariant()
    def both_know_the_same(self) -> None:
        if hasattr(self, "channel"):
            assert len(self.channel.unconfirmed) == len(self.published)
            assert len(self.channel.unsettled) == len([tag for tag in range(1, self.tag + 1) if tag not in self.settled_by_client])


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestConversation = Conversation.TestCase
