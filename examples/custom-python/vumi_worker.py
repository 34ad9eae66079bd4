"""What every application has: it connects, reads messages and events, publishes replies, and keeps the duties of
docs/wire-protocol.md. What to answer is up to a function that is given to Application.

Needs pika 1.2 or newer: `apt-get install python3-pika` or `pip install pika`."""

import base64
import datetime
import hashlib
import json
import logging
import math
import os
import signal
import ssl
import time
import traceback
from functools import partial

import pika
from pika.exceptions import AMQPError

PREFETCH = 20
# Before it connects again: this, twice this, up to the last.
WAIT_FIRST, WAIT_LAST = 0.2, 5.0
# After SIGTERM a confirmation that does not come is waited for so long.
LAST_CONFIRMATION = 10
# A message on which handling fails is tried so often, with this wait and twice this between, and then set aside.
ATTEMPTS, WAIT_FAILED = 3, 0.1
MAX_BODY = 1 << 20
# The most that AMQP takes for a property.
MAX_PROPERTY = 255
# AMQP over TLS.
PORT_TLS = 5671
DURABLE = {"x-queue-type": "classic"}
REQUIRED = (
    "message_version", "message_type", "message_id", "timestamp", "to_addr", "from_addr", "content", "session_event",
    "in_reply_to", "transport_name", "transport_type", "transport_metadata",
)  # fmt: skip
TEXTS = (
    "message_id", "to_addr", "from_addr", "content", "in_reply_to", "transport_name", "transport_type", "group",
    "provider", "to_addr_type", "from_addr_type",
)  # fmt: skip
SESSION_EVENTS = (None, "new", "resume", "close")

log = logging.getLogger("worker")


class NotAMessage(Exception):
    """The body is no message that can be answered."""


class GiveUp(BaseException):
    """It was told to end, and what it waits for does not come. No error of a handler: nothing that catches those catches it."""


def read(body):
    """The message in a body: its texts are text or None, its metadata objects, and it has an id."""
    message = parse(body)
    missing = [field for field in REQUIRED if field not in message]
    if missing:
        raise NotAMessage("these fields are missing: " + ", ".join(missing))
    for field in TEXTS:
        value = message.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            message[field] = json.dumps(value)  # Some programs write addresses without quotes.
        elif not (value is None or isinstance(value, str)):
            raise NotAMessage(f"{field} is neither text nor null")
    if message["session_event"] not in SESSION_EVENTS:
        raise NotAMessage("session_event is none of null, new, resume, close")
    for field in ("transport_metadata", "helper_metadata", "routing_metadata"):
        if not isinstance(message.setdefault(field, {}), dict):
            raise NotAMessage(f"{field} is no object")
    if not message["message_id"]:
        # Derived from the body, so that a repeat has the same.
        message["message_id"] = hashlib.sha256(b"body/" + body).hexdigest()[:32]
    return message


def parse(body):
    """The JSON object in a body, if it is of the format's version."""
    if len(body) > MAX_BODY:
        raise NotAMessage(f"the body has {len(body)} bytes; the most is {MAX_BODY}")
    try:
        message = json.loads(body.decode(), parse_constant=refuse, parse_float=finite)
        if b"\\u" in body:
            json.dumps(message, ensure_ascii=False).encode()  # Half of a surrogate pair is no text.
    except ValueError:
        raise NotAMessage("the body is not JSON") from None
    except RecursionError:
        raise NotAMessage("the body is too deep") from None
    if not isinstance(message, dict):
        raise NotAMessage("the body is not a JSON object")
    if message.get("message_version") != "20110921":
        raise NotAMessage("message_version is not 20110921")
    return message


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def finite(text):
    """A number, unless it is beyond what a float holds: it would be written as Infinity, which is not JSON."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


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


def envelope(queue, body, why, worker):
    """What is put into `<queue>.parked`."""
    try:
        encoding, text = "text", body.decode()
    except UnicodeDecodeError:
        encoding, text = "base64", base64.b64encode(body).decode()
    code, kind, reason, attempts = why
    return {
        "origin": queue, "code": code, "reason": reason, "class": kind, "worker": worker,
        "attempts": attempts, "time": time.time(), "message_id": id_in(body), "amqp_message_id": None,
        "encoding": encoding, "body": text,
    }  # fmt: skip


def id_in(body):
    """The id of a message, if it has one that can be read."""
    try:
        message = parse(body)
    except NotAMessage:
        return None
    named = message.get("message_id") or message.get("event_id")
    return named if isinstance(named, str) else None


def as_property(message_id):
    """An id as a property of an AMQP message, or None where it is too long for one: other programs choose their ids."""
    return message_id if message_id and len(message_id.encode()) <= MAX_PROPERTY else None


def broker(given):
    """How to connect: by the parts, which the operator gives from the Secret of a broker, or by the URL where that is all there
    is. On the port of TLS the authority is one that this machine trusts, or that of the file in SSL_CERT_FILE."""
    host = given.get("VUMI_BROKER_HOST")
    if host is None:
        return pika.URLParameters(given["VUMI_BROKER_URL"])
    port = int(given["VUMI_BROKER_PORT"])
    credentials = pika.PlainCredentials(given["VUMI_BROKER_USERNAME"], given["VUMI_BROKER_PASSWORD"])
    tls = pika.SSLOptions(ssl.create_default_context(), host) if port == PORT_TLS else None
    return pika.ConnectionParameters(host, port, given["VUMI_BROKER_VHOST"], credentials, ssl_options=tls)


class Worker:
    """Reads queues of one connector until SIGTERM or Ctrl-C.

    `flows` says what is done with each: a function that is given the body, and is done when it returns. If it raises NotAMessage
    the body is set aside at once; after any other error it is tried again first."""

    def __init__(self, name, flows):
        self.name = name
        self.flows = flows
        self.connector = os.environ["VUMI_TRANSPORT_NAME"]
        self.broker = broker(os.environ)
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
        why = self.attempt(handle, body)
        if why:
            self.park(f"{self.connector}.{flow}", body, why)
        # Everything that it caused is confirmed by now.
        channel.basic_ack(method.delivery_tag)
        self.worked = True

    def attempt(self, handle, body):
        """Handles a body; why it must be set aside, if it must. What the broker does not take is no fault of the body."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                handle(body)
                return None
            except NotAMessage as error:
                return "message.invalid", "bad_input", str(error), attempt
            except AMQPError:
                raise
            except Exception as error:
                # Without what the error says, and without source lines: it may quote what a user wrote.
                place = "".join(traceback.format_tb(error.__traceback__)[1:])
                what = type(error).__name__
                log.error("attempt %d of %d: %s\n%s", attempt, ATTEMPTS, what, place)
                if attempt == ATTEMPTS:
                    return "bug.panic", "bug", f"handling it failed: {what}", attempt
                time.sleep(WAIT_FAILED * attempt)

    def publish(self, flow, message):
        """Returns once the broker has it in a queue, and raises an AMQPError if it does not take it."""
        self.send("vumi", f"{self.connector}.{flow}", message)

    def park(self, queue, body, why):
        """Sets a body aside, with the reason: `vumi parked list` shows it."""
        log.warning("set aside: %s: %s", why[0], why[2])
        self.channel.queue_declare(f"{queue}.parked", durable=True, arguments=DURABLE)
        self.send("", f"{queue}.parked", envelope(queue, body, why, self.name))

    def send(self, exchange, key, message):
        properties = pika.BasicProperties(delivery_mode=2, message_id=as_property(message.get("message_id")))
        body = json.dumps(message, allow_nan=False).encode()
        self.channel.basic_publish(exchange, key, body, properties, mandatory=True)


class Application(Worker):
    """Answers the messages of one connector.

    `answer(message)` gives the text of the reply; None for no reply. It is not asked when a session has ended. It may be asked
    again with the same message: after an error of its own, and after a crash."""

    def __init__(self, name, answer):
        super().__init__(name, {"inbound": self.on_message, "event": self.on_event})
        self.answer = answer

    def on_message(self, body):
        message = read(body)
        if message["session_event"] == "close":
            return
        content = self.answer(message)
        if not (content is None or isinstance(content, str)):
            raise TypeError("an answer is text or None")
        if content is not None:
            self.publish("outbound", reply_to(message, content, self.name))

    def on_event(self, body):
        event = parse(body)
        if event.get("event_type") not in ("ack", "nack", "delivery_report"):
            raise NotAMessage("event_type is none of ack, nack, delivery_report")
        if not isinstance(event.get("user_message_id"), (str, type(None))):
            raise NotAMessage("user_message_id is neither text nor null")
        if event["event_type"] == "nack":
            log.warning("not sent: %s: %s", event.get("user_message_id"), event.get("nack_reason"))
