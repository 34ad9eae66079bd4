"""A listener that turns what is said into a question. It keeps nothing, so any number of it may run beside each other
where the order of a user's messages does not matter; here there is one."""

import logging
import re

from vumi_worker import Application

MIRROR = {"i": "you", "am": "are", "my": "your", "me": "you", "you": "I", "your": "my", "are": "am", "mine": "yours"}
RULES = [
    (r"\b(?:hello|hi|hey)\b", "Hello. What is on your mind?"),
    (r"\bi(?:'m| am) (.+)", "How long have you been {}?"),
    (r"\bi (?:want|need) (.+)", "What would it change for you to have {}?"),
    (r"\bi feel (.+)", "Do you often feel {}?"),
    (r"\bmy (\w+)", "Tell me more about your {}."),
    (r"\?\s*$", "What do you think yourself?"),
]


def answer(message):
    said = (message["content"] or "").strip()
    if not said:
        return "Hello. What is on your mind?"
    for pattern, response in RULES:
        found = re.search(pattern, said, re.IGNORECASE)
        if found:
            return response.format(*(mirrored(part) for part in found.groups()))
    return "Please go on."


def mirrored(text):
    words = text.rstrip(".!? ").split()
    return " ".join(MIRROR.get(word.lower(), word) for word in words)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    Application("listener", answer).run()
