//! Transports of the chat family: telnet.
