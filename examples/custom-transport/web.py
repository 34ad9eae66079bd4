"""A transport for programs that ask over HTTP and wait for the reply. It is started as Vumi starts its workers: the broker is
given by arguments, and its settings in a file.

    curl -H 'Authorization: Bearer change-me' 'http://localhost:8080/messages?from_addr=27820000001&content=hello'

Needs vumi_worker.py of ../custom-python, and pika."""

import argparse
import datetime
import hashlib
import hmac
import json
import logging
import os
import threading
import uuid
from concurrent import futures
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from pika.exceptions import AMQPError
from vumi_worker import Worker, read

# Settings without a default, and those with one.
REQUIRED = ("transport_name", "key")
DEFAULTS = {"http_port": "8080", "to_addr": "", "footer": "", "timeout": "20"}
# How long the broker may take to confirm a message, and a caller to take a reply.
CONFIRMED_WITHIN, TAKEN_WITHIN = 10, 5
LATE = "window: nobody waits for this reply any more"
AWAY = "the broker is away, or this transport ends: ask again"


def arguments():
    """What the command line says of the broker, and the settings."""
    parser = argparse.ArgumentParser(description="A transport for programs that ask over HTTP and wait for the reply.")
    parser.add_argument("--config", metavar="FILE", help="settings, NAME: VALUE on each line")
    parser.add_argument("--set-option", metavar="NAME:VALUE", action="append", default=[], help="one more setting")
    parser.add_argument("--hostname", default="localhost")
    parser.add_argument("--port", default="5672")
    parser.add_argument("--username", default="guest")
    parser.add_argument("--password", default="guest")
    parser.add_argument("--vhost", default="/")
    given = parser.parse_args()
    try:
        settings = DEFAULTS | (written(given.config) if given.config else {})
        settings |= dict(pair(option) for option in given.set_option)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    wrong = [f"{name} is not known" for name in settings if name not in (*REQUIRED, *DEFAULTS)]
    wrong += [f"{name} is missing" for name in REQUIRED if not settings.get(name)]
    if wrong:
        parser.error("settings: " + ", ".join(wrong))
    return given, settings


def written(path):
    """The settings in a file. All are texts or numbers on a line of their own, so that no library for YAML is needed."""
    settings = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, value = pair(line)
            value = value.strip()
            if value.startswith(("|", ">", "[", "{", "&", "*", "!")):
                raise ValueError(f"{path}: {name} is no text and no number")
            if value.startswith("'"):
                value = value[1:-1].replace("''", "'")
            elif value.startswith('"'):
                value = json.loads(value)
            settings[name] = value
    return settings


def pair(text):
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"{text.strip()!r} is not of the form NAME:VALUE")
    return name, value


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")


class Request:
    """Somebody who waits for the reply to a message, and whether they have it."""

    def __init__(self, message):
        self.id = message["message_id"]
        self.reply = futures.Future()
        self.taken = futures.Future()


class Web(Worker):
    """Publishes what is asked, and gives replies to those who asked. The main thread has the connection to the broker; each
    request has a thread of its own."""

    def __init__(self, settings):
        super().__init__("web", {"outbound": self.on_outbound})
        self.settings = settings
        # By the ids of their messages.
        self.requests = {}
        self.ending = False

    def run(self):
        server = ThreadingHTTPServer(("", int(self.settings["http_port"])), partial(Handler, self))
        # They end before the process does: a thread that runs while the interpreter ends may crash it.
        server.daemon_threads = False
        threading.Thread(target=server.serve_forever).start()
        try:
            super().run()
        finally:
            server.shutdown()
            server.server_close()

    def stop(self, *_):
        """Who waits still gets the reply. Who comes now is refused; most callers were led elsewhere before this."""
        self.ending = True
        self.end_if_idle()

    def end_if_idle(self):
        if self.ending and not self.requests:
            super().stop()

    def takes_requests(self):
        return not self.ending and self.channel is not None and self.channel.is_open

    def ask(self, user, content):
        """Publishes what a user says. For the thread of a request, which calls `done` afterwards."""
        message = self.inbound(user, content)
        # A reply may be here before the confirmation.
        request = self.requests[message["message_id"]] = Request(message)
        published = futures.Future()

        def publish():
            try:
                self.publish("inbound", message)
                published.set_result(None)
            except AMQPError as error:
                published.set_exception(error)

        try:
            self.channel.connection.add_callback_threadsafe(publish)
            published.result(CONFIRMED_WITHIN)
        except (AMQPError, futures.TimeoutError):
            self.done(request)
            raise
        return request

    def done(self, request):
        del self.requests[request.id]
        self.end_if_idle()

    def inbound(self, user, content):
        return {
            "message_version": "20110921",
            "message_type": "user_message",
            "message_id": uuid.uuid4().hex,
            "timestamp": now(),
            "in_reply_to": None,
            "to_addr": self.settings["to_addr"],
            "from_addr": user,
            "content": content,
            "session_event": None,
            "group": None,
            "provider": None,
            "transport_name": self.connector,
            "transport_type": "http_api",
            "transport_metadata": {},
            "helper_metadata": {},
            "routing_metadata": {},
            "to_addr_type": None,
            "from_addr_type": None,
        }

    def on_outbound(self, body):
        message = read(body)
        refused = self.give(message)
        kind = "nack" if refused else "ack"
        # Derived, so that a repeat has the same id.
        cause = "/".join([kind, self.connector, message["message_id"]])
        event = {
            "message_version": "20110921",
            "message_type": "event",
            "event_id": hashlib.sha256(cause.encode()).hexdigest()[:32],
            "timestamp": now(),
            "event_type": kind,
            "user_message_id": message["message_id"],
            "sent_message_id": None if refused else message["message_id"],
            "nack_reason": refused,
            "transport_name": self.connector,
            "transport_metadata": message["transport_metadata"],
        }
        self.publish("event", event)

    def give(self, message):
        """Gives a reply to who asked for it; why not, if they do not have it then."""
        request = self.requests.get(message["in_reply_to"])
        if request is None:
            return LATE
        try:
            request.reply.set_result(message["content"] or "")
            request.taken.result(TAKEN_WITHIN)
        except (OSError, futures.InvalidStateError, futures.TimeoutError):
            return LATE
        return None


class Handler(BaseHTTPRequestHandler):
    """A request over HTTP."""

    timeout = TAKEN_WITHIN

    def __init__(self, web, *arguments):
        self.web = web
        super().__init__(*arguments)

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path not in ("/health", "/messages"):
            self.say(404, "there are /messages and /health")
        elif url.path == "/messages" and not self.has_key():
            self.say(401, "the key is another one")
        elif not self.web.takes_requests():
            self.say(503, AWAY)
        elif url.path == "/health":
            self.say(200, "ok")
        else:
            self.ask(dict(parse_qsl(url.query)))

    def has_key(self):
        wanted = "Bearer " + self.web.settings["key"]
        return hmac.compare_digest(self.headers.get("Authorization", "").encode(), wanted.encode())

    def ask(self, query):
        if not query.keys() >= {"from_addr", "content"}:
            self.say(400, "from_addr and content are needed")
            return
        try:
            request = self.web.ask(query["from_addr"], query["content"])
        except (AMQPError, futures.TimeoutError):
            self.say(503, AWAY)
            return
        try:
            self.answer(request)
        finally:
            self.web.done(request)

    def answer(self, request):
        try:
            reply = request.reply.result(float(self.web.settings["timeout"]))
        except futures.TimeoutError:
            if request.reply.cancel():
                self.say(504, "nobody has replied in time")
                return
            reply = request.reply.result()
        try:
            self.say(200, "\n".join(filter(None, [reply, self.web.settings["footer"]])))
            request.taken.set_result(None)
        except OSError as error:
            request.taken.set_exception(error)

    def say(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: the address of a request has what a user wrote."""


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    given, settings = arguments()
    # Where vumi_worker looks for them.
    os.environ.update(
        VUMI_TRANSPORT_NAME=settings["transport_name"],
        VUMI_BROKER_HOST=given.hostname,
        VUMI_BROKER_PORT=given.port,
        VUMI_BROKER_USERNAME=given.username,
        VUMI_BROKER_PASSWORD=given.password,
        VUMI_BROKER_VHOST=given.vhost,
    )
    Web(settings).run()
