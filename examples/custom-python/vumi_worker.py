"""What every application has: it connects, reads messages and events, publishes replies, and keeps the duties of
docs/wire-protocol.md. What to answer is up to a function that is given to Application.

Needs pika 1.2 or newer: `apt-get install python3-pika` or `pip install pika`."""

import base64
import datetime
import hashlib
import json
import logging
import os
import signal
import time
from functools import partial

import pika
from pika.exceptions import AMQPError

PREFETCH = 20
# Before it connects again: this, twice this, up to the last.
WAIT_FIRST, WAIT_LAST = 0.2, 5.0
# After SIGTERM a confirmation that does not come is waited for so long.
LAST_CONFIRMATION = 10
DURABLE = {"x-queue-type": "classic"}
REQUIRED = (
    "message_version", "message_type", "message_id", "timestamp", "to_addr", "from_addr", "content", "session_event",
    "in_reply_to", "transport_name", "transport_type", "transport_metadata",
)  # fmt: skip

log = logging.getLogger("worker")


class NotAMessage(Exception):
    """The body is no message that can be answered."""


class GiveUp(Exception):
    """It was told to end, and what it waits for does not come."""


def read(body):
    """The message in a body."""
    try:
        message = json.loads(body)
    except ValueError as error:
        raise NotAMessage(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise NotAMessage("the body is too deep") from None
    if not isinstance(message, dict):
        raise NotAMessage("the body is not a JSON object")
    if message.get("message_version") != "20110921":
        raise NotAMessage("message_version is not 20110921")
    missing = [field for field in REQUIRED if field not in message]
    if missing:
        raise NotAMessage("these fields are missing: " + ", ".join(missing))
    return message


def reply_to(message, content, worker, end_session=False):
    """The reply to a message. Its id is derived from the message's, so that a repeat has the same."""
    cause = "/".join(["reply", worker, message["message_id"]])
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "message_version": "20110921",
        "message_type": "user_message",
        "message_id": hashlib.sha256(cause.encode()).hexdigest()[:32],
        "timestamp": now.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "in_reply_to": message["message_id"],
        "to_addr": None if message.get("group") else message["from_addr"],
        "from_addr": message["to_addr"],
        "content": content,
        "session_event": "close" if end_session else None,
        "group": message.get("group"),
        "provider": message.get("provider"),
        "transport_name": message["transport_name"],
        "transport_type": message["transport_type"],
        "transport_metadata": message["transport_metadata"],
        "helper_metadata": message.get("helper_metadata", {}),
        "routing_metadata": message.get("routing_metadata", {}),
        "to_addr_type": None,
        "from_addr_type": None,
    }


def envelope(queue, body, reason, worker):
    """What is put into `<queue>.parked`."""
    try:
        encoding, text = "text", body.decode()
    except UnicodeDecodeError:
        encoding, text = "base64", base64.b64encode(body).decode()
    return {
        "origin": queue, "code": "message.invalid", "reason": reason, "class": "bad_input", "worker": worker,
        "attempts": 1, "time": time.time(), "message_id": None, "amqp_message_id": None,
        "encoding": encoding, "body": text,
    }  # fmt: skip


class Worker:
    """Reads queues of one connector until SIGTERM or Ctrl-C.

    `flows` says what is done with each: a function that is given the body, and is done when it returns. It may raise
    NotAMessage; then the body is set aside."""

    def __init__(self, name, flows):
        self.name = name
        self.flows = flows
        self.connector = os.environ["VUMI_TRANSPORT_NAME"]
        self.broker = pika.URLParameters(os.environ["VUMI_BROKER_URL"])
        self.stopping = False
        self.worked = False
        self.channel = None

    def run(self):
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGALRM, self.give_up)
        wait = WAIT_FIRST
        while not self.stopping:
            self.worked = False
            try:
                self.serve()
            except GiveUp:
                log.warning("ends without a confirmation; the message comes again")
                return
            except AMQPError as error:
                # What was not acknowledged is in its queue again, and comes once more.
                log.warning("the broker: %s; again in %.1f s", str(error) or type(error).__name__, wait)
                if not self.stopping:
                    time.sleep(wait)
                wait = WAIT_FIRST if self.worked else min(2 * wait, WAIT_LAST)

    def stop(self, *_):
        self.stopping = True
        signal.alarm(LAST_CONFIRMATION)

    def give_up(self, *_):
        raise GiveUp

    def serve(self):
        connection = pika.BlockingConnection(self.broker)
        try:
            self.channel = channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_qos(prefetch_count=PREFETCH)
            channel.exchange_declare("vumi", "direct", durable=True)
            for flow in ("inbound", "outbound", "event"):
                queue = f"{self.connector}.{flow}"
                channel.queue_declare(queue, durable=True, arguments=DURABLE)
                channel.queue_bind(queue, "vumi", routing_key=queue)
            for flow, handle in self.flows.items():
                channel.basic_consume(f"{self.connector}.{flow}", partial(self.take, flow, handle))
            log.info("reads %s of %s", " and ".join(self.flows), self.connector)
            while not self.stopping:
                connection.process_data_events(time_limit=1)
        finally:
            if connection.is_open:
                connection.close()

    def take(self, flow, handle, channel, method, _properties, body):
        if self.stopping:
            return  # Not acknowledged: the next one gets it.
        try:
            handle(body)
        except NotAMessage as error:
            self.park(f"{self.connector}.{flow}", body, str(error))
        # Everything that it caused is confirmed by now.
        channel.basic_ack(method.delivery_tag)
        self.worked = True

    def publish(self, flow, message):
        """Returns once the broker has it in a queue, and raises an AMQPError if it does not take it."""
        self.send("vumi", f"{self.connector}.{flow}", message)

    def park(self, queue, body, reason):
        """Sets a body aside, with the reason: `vumi parked list` shows it."""
        log.warning("set aside: %s", reason)
        self.channel.queue_declare(f"{queue}.parked", durable=True, arguments=DURABLE)
        self.send("", f"{queue}.parked", envelope(queue, body, reason, self.name))

    def send(self, exchange, key, message):
        properties = pika.BasicProperties(delivery_mode=2, message_id=message.get("message_id"))
        self.channel.basic_publish(exchange, key, json.dumps(message).encode(), properties, mandatory=True)


class Application(Worker):
    """Answers the messages of one connector.

    `answer(message)` gives the text of the reply; None for no reply. It is not asked when a session has ended."""

    def __init__(self, name, answer):
        super().__init__(name, {"inbound": self.on_message, "event": self.on_event})
        self.answer = answer

    def on_message(self, body):
        message = read(body)
        if message["session_event"] == "close":
            return
        content = self.answer(message)
        if content is not None:
            self.publish("outbound", reply_to(message, content, self.name))

    def on_event(self, body):
        try:
            event = json.loads(body)
            if event["event_type"] == "nack":
                log.warning("not sent: %s: %s", event["user_message_id"], event.get("nack_reason"))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise NotAMessage(f"the body is no event: {error}") from None
