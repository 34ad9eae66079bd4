"""A minimal AMQP 0-9-1 client, standard library only: what a foreign worker needs and no more. One connection, one
channel, publisher confirms. Written from the specification of the protocol and docs/wire-protocol.md."""

import collections
import socket
import struct

METHOD, HEADER, BODY, HEARTBEAT, END = 1, 2, 3, 8, 0xCE
Delivery = collections.namedtuple("Delivery", "tag redelivered routing_key body")


class AmqpError(Exception):
    pass


def short(text):
    data = text.encode()
    return struct.pack(">B", len(data)) + data


def long(data):
    return struct.pack(">I", len(data)) + data


def table(fields):
    return long(b"".join(short(k) + b"S" + long(v.encode()) for k, v in fields.items()))


def read_short(data, at):
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


class Client:
    def __init__(self, port, vhost="/", user="guest", password="guest", host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), timeout=30)
        self.input = self.sock.makefile("rb")
        self.deliveries = collections.deque()
        self.confirmed, self.returned, self.published = set(), [], 0
        self.sock.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        secret = long(b"\x00" + user.encode() + b"\x00" + password.encode())
        self.method(0, 10, 11, table({}) + short("PLAIN") + secret + short("en_US"))
        channels, frame, _ = struct.unpack(">HIH", self.expect(10, 30))
        self.frame_max = frame or 131072
        self.method(0, 10, 31, struct.pack(">HIH", channels, self.frame_max, 0))
        self.method(0, 10, 40, short(vhost) + short("") + b"\x00")
        self.expect(10, 41)
        self.call(20, 10, short(""))
        self.call(85, 10, b"\x00")
        self.sock.settimeout(None)

    # Frames

    def frame(self, kind, channel, payload):
        self.sock.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([END]))

    def method(self, channel, cls, method, arguments):
        self.frame(METHOD, channel, struct.pack(">HH", cls, method) + arguments)

    def read(self, count):
        data = self.input.read(count)
        if len(data) != count:
            raise AmqpError("the broker closed the connection")
        return data

    def read_frame(self):
        while True:
            kind, _, size = struct.unpack(">BHI", self.read(7))
            payload = self.read(size)
            if self.read(1)[0] != END:
                raise AmqpError("a frame does not end where it should")
            if kind != HEARTBEAT:
                return kind, payload

    def read_content(self):
        kind, header = self.read_frame()
        if kind != HEADER:
            raise AmqpError("expected a content header")
        (size,) = struct.unpack(">Q", header[4:12])
        body = b""
        while len(body) < size:
            kind, part = self.read_frame()
            if kind != BODY:
                raise AmqpError("expected a part of a body")
            body += part
        return body

    def step(self):
        """Reads one method. Deliveries, confirms and returns are kept; any other is given back."""
        kind, payload = self.read_frame()
        if kind != METHOD:
            raise AmqpError("expected a method")
        cls, method = struct.unpack(">HH", payload[:4])
        data = payload[4:]
        if (cls, method) == (60, 60):
            _, at = read_short(data, 0)
            tag, redelivered = struct.unpack(">QB", data[at : at + 9])
            _, at = read_short(data, at + 9)
            key, _ = read_short(data, at)
            self.deliveries.append(Delivery(tag, bool(redelivered), key, self.read_content()))
        elif (cls, method) == (60, 50):
            self.returned.append(self.read_content())
        elif (cls, method) in ((60, 80), (60, 120)):
            tag, multiple = struct.unpack(">QB", data[:9])
            if method == 120:
                raise AmqpError("the broker refused a publication")
            first = 1 if multiple else tag
            self.confirmed.update(range(first, tag + 1))
        elif (cls, method) in ((10, 50), (20, 40)):
            code = struct.unpack(">H", data[:2])[0]
            raise AmqpError("closed by the broker: %d %s" % (code, read_short(data, 2)[0]))
        else:
            return cls, method, data
        return None

    def expect(self, cls, method):
        while True:
            got = self.step()
            if got and got[:2] == (cls, method):
                return got[2]

    def call(self, cls, method, arguments):
        self.method(1, cls, method, arguments)
        return self.expect(cls, method + 1)

    # What a worker does

    def declare_data_queue(self, name):
        durable, none = b"\x02", b"\x00\x00"
        self.call(40, 10, none + short("vumi") + short("direct") + durable + table({}))
        self.call(50, 10, none + short(name) + durable + table({"x-queue-type": "classic"}))
        self.call(50, 20, none + short(name) + short("vumi") + short(name) + b"\x00" + table({}))

    def consume(self, queue, prefetch=20):
        self.call(60, 10, struct.pack(">IHB", 0, prefetch, 0))
        self.call(60, 20, b"\x00\x00" + short(queue) + short("") + b"\x00" + table({}))

    def publish(self, key, body, message_id="", exchange="vumi"):
        """Persistent and mandatory; returns once the broker has it in a queue."""
        self.published += 1
        mandatory = b"\x01"
        self.method(1, 60, 40, b"\x00\x00" + short(exchange) + short(key) + mandatory)
        flags = 0x1000 | (0x0080 if message_id else 0)  # delivery-mode, message-id
        properties = b"\x02" + (short(message_id) if message_id else b"")
        self.frame(HEADER, 1, struct.pack(">HHQH", 60, 0, len(body), flags) + properties)
        room = self.frame_max - 8
        for at in range(0, len(body), room):
            self.frame(BODY, 1, body[at : at + room])
        returns = len(self.returned)
        while self.published not in self.confirmed:
            self.step()
        self.confirmed.discard(self.published)
        if len(self.returned) > returns:
            raise AmqpError("no queue took a message for " + key)

    def next(self):
        while not self.deliveries:
            self.step()
        return self.deliveries.popleft()

    def ack(self, delivery):
        self.method(1, 60, 80, struct.pack(">QB", delivery.tag, 0))
