"""Reads what a Liaison log of evidence records, from the bytes of protobuf messages alone: see proto/liaison/log/v1/log.proto.

Nothing is passed over: a field or an enumeration value that is not known here is wrong, at any depth.
"""

import hashlib
import re
import unicodedata
import uuid

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

MESSAGE_FIELDS, ALL_FIELDS = 8192, 1 << 19
KEY_RECORD_BYTES = 2048
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Wrong(Exception):
    """Why something does not hold."""


def need(condition, why):
    if not condition:
        raise Wrong(why)


def printable(text):
    """The text with what steers a terminal escaped: control characters, and those that change the direction of writing."""
    steers = lambda c: unicodedata.category(c) in ("Cc", "Cs") or c in DIRECTIONS
    return "".join(f"\\u{ord(c):04x}" if steers(c) else c for c in text)


def numbers(*values):
    return ("enum", {0, *values})


CATEGORY = numbers(*range(1, 18))
VERDICT = numbers(1, 2, 3, 4)
ERROR = numbers(*range(1, 12), *range(20, 23), *range(30, 37), *range(40, 44), 50, 51, *range(60, 66), *range(70, 73), 80, 81, 90)

# The fields of each message: number, kind, `list` where there may be several, `one` where it is one of several.
MESSAGES = {
    "Timestamp": {1: ("int64",), 2: ("int32",)},
    "Record": {
        1: ("Timestamp",),
        2: ("Opened", "one"),
        3: ("Accepted", "one"),
        4: ("HandedOver", "one"),
        5: ("Outcome", "one"),
        6: ("Refused", "one"),
        7: ("Act", "one"),
    },
    "Opened": {1: ("string",)},
    "Accepted": {
        1: ("string",),
        2: ("bytes",),
        3: ("bytes",),
        4: ("bytes",),
        5: (numbers(1, 2, 3, 4),),
        6: ("bytes",),
        7: ("bytes",),
        8: ("Decision", "list"),
        9: ("Permits", "list"),
    },
    "Permits": {1: ("RuleName", "list")},
    "Decision": {1: ("string",), 2: (VERDICT,), 3: ("RuleName",), 4: ("CategoryDecision", "list")},
    "CategoryDecision": {
        1: (CATEGORY,),
        2: (VERDICT,),
        3: ("RuleName",),
        4: (numbers(1, 2, 3, 4, 5, 6),),
        5: ("uint32",),
    },
    "RuleName": {1: ("string",), 2: ("string",)},
    "HandedOver": {
        1: ("bytes",),
        2: ("bytes",),
        3: ("string",),
        4: ("string",),
        5: ("bytes",),
        6: (CATEGORY, "list"),
    },
    "Outcome": {
        1: ("bytes",),
        2: ("bytes",),
        3: ("string",),
        4: ("string",),
        5: ("SignedAcknowledgement", "one"),
        6: ("Decision", "one"),
        7: ("Decision", "one"),
        8: ("Ended", "one"),
    },
    "Ended": {1: (numbers(1, 2, 3),), 2: (ERROR,)},
    "Refused": {1: ("string",), 2: ("bytes",), 3: ("bytes",), 4: ("RuleName",), 5: ("bytes",)},
    "Act": {1: ("string",), 2: ("string",)},
    "SignedAcknowledgement": {1: ("bytes",), 2: ("bytes",)},
    "Acknowledgement": {
        1: ("bytes",),
        2: ("bytes",),
        3: ("string",),
        4: ("bytes",),
        5: ("Timestamp",),
        6: ("StateChange",),
        7: ("bytes",),
        8: ("bytes",),
    },
    "StateChange": {1: (numbers(*range(1, 18)),), 2: (numbers(*range(1, 8)),), 3: (numbers(*range(1, 7)),)},
    "SignedKeyRecord": {1: ("bytes",), 2: ("bytes",), 3: ("bytes",)},
    "KeyRecord": {
        1: ("string",),
        2: ("uint32",),
        3: ("bytes",),
        4: (numbers(1, 2),),
        5: ("bytes",),
        6: ("Timestamp",),
        7: ("Timestamp",),
        8: ("bytes",),
    },
}


def varint(data, place):
    value = shift = 0
    while True:
        need(place < len(data) and shift < 70, "this is no protobuf message")
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            need(value < 1 << 64, "this is no protobuf message")
            return value, place


def scalar(kind, value):
    """A number as protobuf reads it: of more bits than it has room for, the low ones."""
    if kind == "int64":
        return value - (value >> 63 << 64)
    value &= 0xFFFFFFFF
    if kind == "uint32":
        return value
    value -= value >> 31 << 32
    need(kind == "int32" or value in kind[1], f"the enumeration value {value} is not known here")
    return value


def merge(name, data, into, total):
    """Reads a message into what was read of it before: a later value takes the place of an earlier one."""
    place = count = 0

    def counted():
        nonlocal count
        count += 1
        total[0] += 1
        need(count <= MESSAGE_FIELDS and total[0] <= ALL_FIELDS, f"{name} has too many fields")

    def put(number, value, how):
        if "list" in how:
            into.setdefault(number, []).append(value)
        else:
            into[number] = value

    while place < len(data):
        tag, place = varint(data, place)
        number, wire = tag >> 3, tag & 7
        need(tag < 1 << 32 and number in MESSAGES[name], f"{name} has a field {number} that is not known here")
        kind, *how = MESSAGES[name][number]
        is_number = kind in ("int64", "int32", "uint32") or isinstance(kind, tuple)
        if wire == 0 and is_number:
            counted()
            value, place = varint(data, place)
            put(number, scalar(kind, value), how)
            continue
        need(wire == 2, f"the field {number} of {name} is written otherwise")
        length, place = varint(data, place)
        need(length <= len(data) - place, "the message is cut off")
        part, place = data[place : place + length], place + length
        if is_number:
            need("list" in how, f"the field {number} of {name} is written otherwise")
            at = 0
            while at < len(part):
                counted()
                value, at = varint(part, at)
                put(number, scalar(kind, value), how)
            continue
        counted()
        if kind == "bytes":
            put(number, part, how)
        elif kind == "string":
            try:
                put(number, part.decode(), how)
            except UnicodeDecodeError:
                raise Wrong(f"the field {number} of {name} is not UTF-8") from None
        elif "list" in how:
            put(number, merge(kind, part, {}, total), how)
        else:
            if "one" in how:
                for other in [other for other in into if other != number and "one" in MESSAGES[name][other]]:
                    del into[other]
            merge(kind, part, into.setdefault(number, {}), total)
    return into


def read(name, data):
    """A message by the numbers of its fields; those that are absent are not in it."""
    return merge(name, data, {}, [0])


def moment(stamp, what):
    """Seconds and nanoseconds since 1970, of the years 1 to 9999."""
    need(stamp is not None, f"{what} is missing")
    seconds, nanos = stamp.get(1, 0), stamp.get(2, 0)
    need(-62135596800 <= seconds <= 253402300799 and 0 <= nanos < 10**9, f"{what} is no time")
    return seconds, nanos


def address(text):
    domain, gap, name = text.partition("/")
    label = lambda text, longest: len(text) <= longest and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text, re.ASCII)
    valid = gap and label(domain, 63) and "a" <= domain[0] <= "z" and label(name, 64)
    need(valid, "the record names somebody who is no agency")
    return text


# Ed25519

# y of the points of small order, by which one signature fits many messages: 0, 1, two of order 8, -1, and 0 and 1 plus
# the prime.
PRIME = 2**255 - 19
SMALL = {0, 1, PRIME - 1, PRIME, PRIME + 1} | {
    int.from_bytes(bytes.fromhex(y), "little")
    for y in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
}


def check_signature(key, signature, data, whose):
    small = int.from_bytes(key, "little") & ~(1 << 255) in SMALL
    try:
        need(not small, f"the key of {whose} fits any signature")
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except InvalidSignature:
        raise Wrong(f"the signature of {whose} does not verify") from None


def labelled(label, data):
    """What an agency signs: the label after its length, and the data."""
    return len(label).to_bytes(4, "big") + label.encode() + data


# Key records and acknowledgements


def can_be_sealed_to(kem, key):
    if kem == 2:
        try:
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
        except ValueError:
            return False
        return True
    # ML-KEM-768: 768 coefficients of 12 bits below the modulus, and a seed; then X25519.
    if kem != 1 or len(key) != 1216:
        return False
    pairs = (int.from_bytes(key[place : place + 3], "little") for place in range(0, 1152, 3))
    return all(pair & 0xFFF < 3329 and pair >> 12 < 3329 for pair in pairs)


def proven_key(entry):
    """The id, the agency and the signing key of a key record that its own key signed."""
    signed = read("SignedKeyRecord", entry)
    data = signed.get(1, b"")
    need(len(data) <= KEY_RECORD_BYTES, "the key record is too long")
    record = read("KeyRecord", data)
    is_first, before = not record.get(2), record.get(8, b"")
    need(len(before) == (0 if is_first else 32), "the key record's predecessor is ill-formed")
    need(len(signed.get(3, b"")) == (0 if is_first else 64), "the key record's predecessor is ill-formed")
    need(can_be_sealed_to(record.get(4, 0), record.get(5, b"")), "nobody can seal to the key record's key")
    agency, key = address(record.get(1, "")), record.get(3, b"")
    need(len(key) == 32, "the key record's signing key is ill-formed")
    begins, ends = moment(record.get(6), "the key's first moment"), moment(record.get(7), "the key's last moment")
    need(begins < ends, "the key record ends before it begins")
    check_signature(key, signed.get(2, b""), labelled("key-record/v1", data), agency)
    return hashlib.sha256(data).digest(), agency, key


def check_acknowledgement(outcome, entry):
    """That the recipient signed the acknowledgement of an outcome with the key of a key record; whose it is."""
    key_id, agency, key = proven_key(entry)
    signed = outcome[5]
    data = signed.get(1, b"")
    check_signature(key, signed.get(2, b""), labelled("acknowledgement/v1", data), agency)
    word = read("Acknowledgement", data)
    recipient = outcome.get(4, "")
    need(agency == recipient and word.get(3, "") == recipient, "the acknowledgement is another agency's")
    need(word.get(4, b"") == key_id, "the acknowledgement names another key")
    same = [word.get(number, b"") == outcome.get(number, b"") for number in (1, 2)]
    need(all(same), "the acknowledgement is about another message")
    return f"signed by {agency} with the key {key_id.hex()}"


# Records

EVENTS = {2: "opened", 3: "accepted", 4: "handed over", 5: "outcome", 6: "refused", 7: "act"}
OUTCOMES = {5: "acknowledged", 6: "forwarded", 7: "narrowed", 8: "ended"}
# Field numbers of sender, message id and recipient in each event about a message.
PLACES = {"accepted": (1, 2, None), "handed over": (3, 1, 4), "outcome": (3, 1, 4), "refused": (1, 2, None)}


def told(data):
    """What a record says in words, and the outcome that holds an acknowledgement, if it does."""
    record = read("Record", data)
    seconds, _ = moment(record.get(1), "the record's time")
    events = [number for number in record if number in EVENTS]
    need(events, "the record tells no event")
    (number,) = events
    name, event = EVENTS[number], record[number]
    words, acknowledged = [name], None
    if name == "outcome":
        outcomes = [number for number in event if number in OUTCOMES]
        need(outcomes, "the record does not tell what became of the copy")
        words = [OUTCOMES[outcomes[0]]]
        need(8 not in event or event[8].get(1), "the record does not tell how the copy ended")
        acknowledged = event if 5 in event else None
    words.append(f"at {seconds} s")
    if name in PLACES:
        sender, message, recipient = PLACES[name]
        need(len(event.get(message, b"")) == 16, "the record names no message")
        words.append(f"message {uuid.UUID(bytes=event[message])} from {address(event.get(sender, ''))}")
        if recipient:
            words.append(f"to {address(event.get(recipient, ''))}")
    return ", ".join(words), acknowledged
