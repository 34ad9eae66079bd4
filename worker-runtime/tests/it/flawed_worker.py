"""Workers with one flaw each, on top of those of examples/custom-python, for the test that `vumi conformance` finds them.
Usage: flawed_worker.py application|transport FLAW; the flaw `none` has none."""

import contextlib
import hashlib
import json
import os
import sys
import uuid

sys.path.insert(0, os.environ["VUMI_EXAMPLE"])
import pika  # noqa: E402
import vumi_worker as good  # noqa: E402

ROLE, FLAW = sys.argv[1], sys.argv[2]


class Flawed(good.Worker):
    def take(self, flow, handle, channel, method, properties, body):
        if FLAW == "acks-first":
            channel.basic_ack(method.delivery_tag)
            why = self.attempt(handle, body)
            if why:
                self.park(f"{self.connector}.{flow}", body, why)
            return
        if FLAW == "dies-of-garbage":
            handle(body)
        if FLAW in ("dies-of-errors", "trusts-fields"):
            with contextlib.suppress(good.NotAMessage):
                handle(body)
        if FLAW == "drops-failures" and self.attempt(handle, body):
            return channel.basic_ack(method.delivery_tag)
        if FLAW == "skips-repeats" and method.redelivered:
            return channel.basic_ack(method.delivery_tag)
        if FLAW == "forgets-the-third" and self.third():
            return channel.basic_ack(method.delivery_tag)
        super().take(flow, handle, channel, method, properties, body)

    def third(self):
        self.count = getattr(self, "count", 0) + 1
        return self.count % 3 == 0

    def park(self, queue, body, why):
        if FLAW != "drops-garbage":
            super().park(queue, body, why)

    def send(self, exchange, key, message):
        mode = 1 if FLAW == "transient" else 2
        named = message.get("message_id")
        if FLAW != "long-properties":
            named = good.as_property(named)
        properties = pika.BasicProperties(delivery_mode=mode, message_id=named)
        body = json.dumps(message).encode()
        self.channel.basic_publish(exchange, key, body, properties, mandatory=FLAW != "not-mandatory")

    def stop(self, *_):
        if FLAW != "does-not-stop":
            super().stop()

    def serve(self):
        if FLAW == "no-confirms":
            pika.adapters.blocking_connection.BlockingChannel.confirm_delivery = lambda _self: None
        if FLAW == "no-prefetch":
            pika.adapters.blocking_connection.BlockingChannel.basic_qos = lambda _self, prefetch_count: None
        if FLAW == "does-not-bind":
            pika.adapters.blocking_connection.BlockingChannel.queue_bind = lambda *_args, **_more: None
        try:
            super().serve()
        except good.AMQPError:
            if FLAW == "stays-away":
                signal_pause()
            raise


def signal_pause():
    import signal

    while True:
        signal.pause()


class Application(Flawed, good.Application):
    def publish(self, flow, message):
        if FLAW == "forgets-in-reply-to":
            message["in_reply_to"] = None
        if FLAW == "random-ids":
            message["message_id"] = uuid.uuid4().hex
        if FLAW == "leaves-out-fields":
            del message["session_event"]
        if FLAW == "loses-transport-metadata":
            message["transport_metadata"] = {}
        if FLAW == "loses-helper-metadata":
            message["helper_metadata"] = {}
        super().publish(flow, message)

    def on_message(self, body):
        if FLAW == "trusts-fields":
            message = json.loads(body)
            reply = self.answer(message) + " " + (message["content"] or "").strip()
            return self.publish("outbound", good.reply_to(message, reply, self.name))
        if FLAW == "answers-the-end":
            return self.publish("outbound", good.reply_to(good.read(body), "bye", self.name))
        super().on_message(body)


class Transport(Flawed):
    """Takes everything that is to be sent, and says so."""

    def __init__(self):
        super().__init__("nowhere", {"outbound": self.on_outbound})

    def on_outbound(self, body):
        message = json.loads(body) if FLAW == "trusts-fields" else good.read(body)
        if message["content"] == "fail":
            raise ZeroDivisionError
        kinds = ["ack", "ack"] if FLAW == "acks-twice" else ["ack"]
        for n, kind in enumerate(kinds if FLAW != "tells-nothing" else []):
            self.publish("event", self.event(message, kind, n))

    def event(self, message, kind, n):
        cause = f"{message['message_id']} {kind} {n}"
        event_id = uuid.uuid4().hex if FLAW == "random-ids" else hashlib.sha256(cause.encode()).hexdigest()[:32]
        return {
            "message_version": "20110921",
            "message_type": "event",
            "event_id": event_id,
            "event_type": kind,
            "timestamp": "2024-03-05 14:07:09.000000",
            "user_message_id": "somebody-else" if FLAW == "names-another" else message["message_id"],
            "sent_message_id": None if FLAW == "names-no-peer-id" else message["message_id"][:8],
            "transport_name": self.connector,
            "helper_metadata": {},
        }


def answer(message):
    if message["content"] == "fail":
        raise ZeroDivisionError
    return message["content"] or "hello"


if FLAW == "writes-infinity":
    good.finite = float

if __name__ == "__main__":
    worker = Application("flawed", answer) if ROLE == "application" else Transport()
    worker.run()
