"""What an HTTP round trip costs in Python: a transport and an echo application on asyncio and pika, in one process.

It gives what our workers give, and nothing more: Vumi's messages on durable queues, persistent and mandatory, publisher
confirms that are awaited and in flight for many messages at once, an acknowledgement only when everything that a message
caused is confirmed, an ack event for each reply, and no more than 100 unacknowledged messages for each consumer.

    http_round_trip.py AMQP_URL HTTP_PORT
"""

import asyncio
import json
import sys
import urllib.parse
import uuid
from datetime import datetime, timezone

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

NAME = "python"
PREFETCH = 100
PERSISTENT = pika.BasicProperties(delivery_mode=2)


class Publisher:
    """Publishes on a channel of its own; each publication is a future that its confirm ends."""

    def __init__(self, channel):
        self.channel, self.tag, self.open = channel, 0, {}
        channel.confirm_delivery(self.confirmed)

    def confirmed(self, frame):
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self.open if tag <= method.delivery_tag]
        for tag in tags:
            done = self.open.pop(tag)
            if isinstance(method, pika.spec.Basic.Ack):
                done.set_result(None)
            else:
                done.set_exception(RuntimeError("refused by the broker"))

    def publish(self, flow, message):
        self.tag += 1
        done = self.open[self.tag] = asyncio.get_running_loop().create_future()
        body = json.dumps(message)
        self.channel.basic_publish("vumi", f"{NAME}.{flow}", body, PERSISTENT, mandatory=True)
        return done


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")


def user_message(content, to_addr, from_addr, in_reply_to=None):
    return {
        "message_version": "20110921",
        "message_type": "user_message",
        "message_id": uuid.uuid4().hex,
        "timestamp": now(),
        "content": content,
        "to_addr": to_addr,
        "from_addr": from_addr,
        "in_reply_to": in_reply_to,
        "session_event": None,
        "group": None,
        "provider": None,
        "transport_name": NAME,
        "transport_type": "http_api",
        "transport_metadata": {},
        "helper_metadata": {},
        "routing_metadata": {},
    }


class Transport:
    def __init__(self, publisher):
        self.publisher, self.waiting = publisher, {}

    async def handle(self, body):
        """An outbound message: answers the request that waits for it, and says so."""
        message = json.loads(body)
        waits = self.waiting.pop(message["in_reply_to"], None)
        if waits is not None:
            waits.set_result(message["content"])
        event = {
            "message_version": "20110921",
            "message_type": "event",
            "event_type": "ack",
            "event_id": uuid.uuid4().hex,
            "user_message_id": message["message_id"],
            "sent_message_id": message["message_id"],
            "timestamp": now(),
            "transport_name": NAME,
            "transport_metadata": {},
            "helper_metadata": {},
            "routing_metadata": {},
        }
        await self.publisher.publish("event", event)

    async def serve(self, reader, writer):
        """One HTTP connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                last = b"connection: close" in head.lower()
                target = head.split(b" ", 2)[1].decode()
                url = urllib.parse.urlsplit(target)
                if url.path == "/health":
                    answer = "{}"
                else:
                    given = dict(urllib.parse.parse_qsl(url.query))
                    answer = await self.ask(given)
                body = answer.encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
                if last:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def ask(self, given):
        message = user_message(given["content"], "1", given["from_addr"])
        reply = asyncio.get_running_loop().create_future()
        self.waiting[message["message_id"]] = reply
        await self.publisher.publish("inbound", message)
        return await asyncio.wait_for(reply, 240)


class Echo:
    def __init__(self, publisher):
        self.publisher = publisher

    async def handle(self, body):
        """An inbound message: answers with its content."""
        message = json.loads(body)
        to_addr, from_addr = message["from_addr"], message["to_addr"]
        reply = user_message(message["content"], to_addr, from_addr, message["message_id"])
        await self.publisher.publish("outbound", reply)

    async def event(self, body):
        """An event: nothing follows."""
        json.loads(body)


async def called(start):
    """What a pika call passes to its callback."""
    done = asyncio.get_running_loop().create_future()
    start(lambda *given: done.set_result(given[-1] if given else None))
    return await done


async def consume(connection, flow, handle):
    channel = await called(lambda then: connection.channel(on_open_callback=then))
    queue = f"{NAME}.{flow}"
    arguments = {"x-queue-type": "classic"}
    await called(lambda then: channel.queue_declare(queue, durable=True, arguments=arguments, callback=then))
    await called(lambda then: channel.queue_bind(queue, "vumi", queue, callback=then))
    await called(lambda then: channel.basic_qos(prefetch_count=PREFETCH, callback=then))
    running = set()

    async def work(tag, body):
        await handle(body)
        channel.basic_ack(tag)

    def deliver(_channel, method, _properties, body):
        task = asyncio.ensure_future(work(method.delivery_tag, body))
        running.add(task)
        task.add_done_callback(running.discard)

    channel.basic_consume(queue, deliver)


async def main(url, port):
    loop = asyncio.get_running_loop()
    opened = loop.create_future()
    connection = AsyncioConnection(
        pika.URLParameters(url),
        on_open_callback=opened.set_result,
        on_open_error_callback=lambda _, error: opened.set_exception(RuntimeError(str(error))),
        custom_ioloop=loop,
    )
    await opened
    declaring = await called(lambda then: connection.channel(on_open_callback=then))
    await called(lambda then: declaring.exchange_declare("vumi", "direct", durable=True, callback=then))
    publishers = []
    for _ in range(2):
        channel = await called(lambda then: connection.channel(on_open_callback=then))
        publishers.append(Publisher(channel))
    transport, echo = Transport(publishers[0]), Echo(publishers[1])
    await consume(connection, "inbound", echo.handle)
    await consume(connection, "event", echo.event)
    await consume(connection, "outbound", transport.handle)
    server = await asyncio.start_server(transport.serve, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
