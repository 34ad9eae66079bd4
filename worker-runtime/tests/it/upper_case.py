"""An application in Python, written from docs/wire-protocol.md: answers in upper case, and tells standard output about
its events. Usage: upper_case.py PORT VHOST CONNECTOR"""

import datetime
import hashlib
import json
import sys

from amqp_client import Client


def reply_to(message):
    cause = "upper_case " + message["message_id"]
    now = datetime.datetime.now(datetime.timezone.utc)
    content = message["content"]
    return {
        "message_version": "20110921",
        "message_type": "user_message",
        "message_id": hashlib.sha256(cause.encode()).hexdigest()[:32],
        "timestamp": now.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "to_addr": message["from_addr"],
        "from_addr": message["to_addr"],
        "in_reply_to": message["message_id"],
        "content": content.upper() if content else "HELLO",
        "session_event": None,
        "group": message["group"],
        "provider": message["provider"],
        "transport_name": message["transport_name"],
        "transport_type": message["transport_type"],
        "transport_metadata": message["transport_metadata"],
        "helper_metadata": message["helper_metadata"],
        "routing_metadata": message["routing_metadata"],
        "to_addr_type": None,
        "from_addr_type": None,
    }


def main():
    port, vhost, connector = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    client = Client(port, vhost)
    for flow in ("inbound", "outbound", "event"):
        client.declare_data_queue(connector + "." + flow)
    client.consume(connector + ".inbound")
    client.consume(connector + ".event")
    print("ready", flush=True)
    while True:
        delivery = client.next()
        message = json.loads(delivery.body)
        if delivery.routing_key == connector + ".event":
            line = {k: message.get(k) for k in ("event_type", "user_message_id", "sent_message_id")}
            print(json.dumps(line), flush=True)
        elif message["session_event"] != "close":
            reply = reply_to(message)
            body = json.dumps(reply).encode()
            client.publish(connector + ".outbound", body, reply["message_id"])
            print(json.dumps({"replied": reply["message_id"]}), flush=True)
        client.ack(delivery)


if __name__ == "__main__":
    main()
