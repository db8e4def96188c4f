#!/usr/bin/env python3
"""Verifies receipts of a Liaison log of evidence, offline: docs/receipts.md says what they are.

  verify_receipt.py [--key VKEY]... [--log DIR] RECEIPT...

Exit status 0 only if every receipt holds and none contradicts another. Consistency proofs (*.tlog-consistency, as
`liaison-gateway log prove --from` writes them) may stand among the receipts: each must show that its log only grew, between
the same heads as the receipts have. With --log, an exported log (C2SP tlog-tiles:
checkpoint, tile/...), each receipt's head must be the beginning of that log, whose tiles must lead to its signed root.
Shares no code with Liaison; needs only the package `cryptography`.
"""

import argparse
import base64
import hashlib
import pathlib
import re
import sys
import uuid

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

EVENTS = {2: "opened", 3: "accepted", 4: "handed over", 5: "outcome", 6: "refused", 7: "act"}
OUTCOMES = {5: "acknowledged", 6: "forwarded", 7: "narrowed", 8: "ended"}
# Field numbers of sender, message id and recipient in each event, see proto/liaison/log/v1/log.proto.
PLACES = {"accepted": (1, 2, None), "handed over": (3, 1, 4), "outcome": (3, 1, 4), "refused": (1, 2, None)}


class Wrong(Exception):
    """Why something does not hold."""


def need(condition, why):
    if not condition:
        raise Wrong(why)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def node(left, right):
    return sha256(b"\x01", left, right)


def unbase64(text, what):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Wrong(f"{what} is not base64") from None
    need(base64.b64encode(data).decode() == text, f"{what} is not base64 as it is to be written")
    return data


def decimal(text, what):
    need(text.isascii() and text.isdigit() and (text == "0" or text[0] != "0"), f"{what} is not a number")
    need(int(text) < 1 << 63, f"{what} is too large")
    return int(text)


# Signed notes and checkpoints


class Key:
    """A vkey: <name>+<key id>+<base64 of type 0x01 and the Ed25519 key>."""

    def __init__(self, vkey):
        parts = vkey.split("+", 2)
        need(len(parts) == 3, "a vkey has three parts")
        self.text, self.name = vkey, parts[0]
        material = unbase64(parts[2], "a vkey's key")
        need(len(material) == 33 and material[0] == 1, "a vkey is of an Ed25519 key")
        self.id = sha256(self.name.encode(), b"\n", material)[:4]
        need(self.id.hex() == parts[1], "the vkey's key id does not fit its name and key")
        self.public = Ed25519PublicKey.from_public_bytes(material[1:])


class Checkpoint:
    """The head of a log, a signed note; verified by one of `keys`, or by the key that it names itself."""

    def __init__(self, note, keys):
        need(not any(ord(c) < 32 and c != "\n" for c in note), "a note has no control characters")
        text, gap, signatures = note.rpartition("\n\n")
        need(gap and signatures.endswith("\n"), "a note is a text, an empty line and signatures")
        text += "\n"
        lines = text.split("\n")[:-1]
        need(len(lines) >= 3 and all(lines), "a checkpoint has an origin, a size, a root, and no empty line")
        self.origin, self.size = lines[0], decimal(lines[1], "the size")
        self.root = unbase64(lines[2], "the root")
        need(len(self.root) == 32, "a root has 32 bytes")
        told = [line for line in lines[3:] if line.startswith(self.origin + "+")]
        known = [key for key in keys if key.name == self.origin]
        need(known or not keys, f"the key of {self.origin} was not given")
        need(known or told, "the checkpoint names no key")
        self.key = known[0] if known else Key(told[0])
        signed = False
        for line in signatures[:-1].split("\n"):
            parts = line.split(" ")
            need(len(parts) == 3 and parts[0] == "\u2014", "a signature line is a dash, a name and base64")
            signature = unbase64(parts[2], "a signature")
            need(len(signature) > 4, "a signature line has a key id and a signature")
            if parts[1] == self.key.name and signature[:4] == self.key.id:
                try:
                    self.key.public.verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise Wrong(f"the signature of {self.origin} does not verify") from None
                signed = True
        need(signed, f"{self.origin} did not sign it with this key")


# Trees and proofs (RFC 9162)


def root_by_inclusion(leaf, index, size, proof):
    need(index < size, "there is no such leaf")
    place, last, value = index, size - 1, leaf
    for beside in proof:
        need(last > 0, "the proof has too many hashes")
        if place & 1 or place == last:
            value = node(beside, value)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            value = node(value, beside)
        place, last = place >> 1, last >> 1
    need(last == 0, "the proof has too few hashes")
    return value


def check_consistency(old, old_root, new, new_root, proof):
    """That the tree of `old` leaves is the beginning of the tree of `new` (RFC 9162, 2.1.4.2)."""
    need(old <= new, "the log went back")
    if old in (0, new):
        need(not proof, "there is nothing to prove")
        need(old_root == (new_root if old else sha256()), "the roots are not those of the same tree")
        return
    if old & (old - 1) == 0:
        proof = [old_root] + proof
    need(proof, "the proof has too few hashes")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = proof[0]
    for beside in proof[1:]:
        need(last > 0, "the proof has too many hashes")
        if place & 1 or place == last:
            first, second = node(beside, first), node(beside, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node(second, beside)
        place, last = place >> 1, last >> 1
    need(last == 0, "the proof has too few hashes")
    need(first == old_root, "the earlier root is not in the later one: the log has two histories")
    need(second == new_root, "the proof does not lead to the root that was signed")


def split(size):
    return 1 << (size - 1).bit_length() - 1


def root_of(hashes):
    """The root over leaf hashes."""
    if not hashes:
        return sha256()
    if len(hashes) == 1:
        return hashes[0]
    left = split(len(hashes))
    return node(root_of(hashes[:left]), root_of(hashes[left:]))


class Tiles:
    """An exported log: its leaf hashes are those of the tiles of level 0, and must lead to the signed root."""

    def __init__(self, folder, keys):
        self.folder = pathlib.Path(folder)
        self.head = Checkpoint((self.folder / "checkpoint").read_text(), keys)
        self.leaves = []
        for number in range((self.head.size + 255) // 256):
            width = min(256, self.head.size - 256 * number)
            content = self.read(f"tile/0/{self.path(number)}", width, 32 * width)
            self.leaves += [content[i : i + 32] for i in range(0, 32 * width, 32)]
            self.check_entries(number, width)
        need(root_of(self.leaves) == self.head.root, "the exported tiles do not lead to the checkpoint's root")

    @staticmethod
    def path(number):
        groups = [f"{number % 1000:03}"]
        while number := number // 1000:
            groups.insert(0, f"x{number % 1000:03}")
        return "/".join(groups)

    def read(self, path, width, length):
        """A tile of this width, from the file of that width or of a wider one."""
        whole, partial = self.folder / path, self.folder / f"{path}.p" / str(width)
        file = whole if whole.is_file() else partial
        need(file.is_file(), f"the exported log lacks {path}")
        content = file.read_bytes()
        need(length is None or len(content) >= length, f"{path} is cut off")
        return content

    def check_entries(self, number, width):
        """Each entry, where entries were exported, is what its leaf commits to."""
        if not (self.folder / "tile" / "entries").is_dir():
            return
        rest = self.read(f"tile/entries/{self.path(number)}", width, None)
        for leaf in self.leaves[256 * number : 256 * number + width]:
            need(len(rest) >= 2, "an entry bundle is cut off")
            length = int.from_bytes(rest[:2])
            entry, rest = rest[2 : 2 + length], rest[2 + length :]
            need(sha256(b"\x00", entry) == leaf, "an exported entry is not that of its leaf")

    def goes_on_from(self, checkpoint):
        need(checkpoint.origin == self.head.origin, "the exported log is another one")
        need(checkpoint.size <= self.head.size, "the exported log is shorter than the receipt's head: it went back")
        same = root_of(self.leaves[: checkpoint.size]) == checkpoint.root
        need(same, "the exported log does not go on from the receipt's head: the log has two histories")


# Receipts


class Receipt:
    """A C2SP tlog-proof whose `extra` is the salt and the record."""

    def __init__(self, data, keys):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Wrong("a receipt is UTF-8") from None
        head, gap, note = text.partition("\n\n")
        need(gap, "a receipt has an empty line before its checkpoint")
        lines = head.split("\n")
        need(lines[0] == "c2sp.org/tlog-proof@v1", "the first line is not that of a receipt")
        need(len(lines) >= 3 and lines[1].startswith("extra ") and lines[2].startswith("index "), "no extra or index")
        extra = unbase64(lines[1][6:], "the extra line")
        need(len(extra) >= 32, "the extra line has no salt")
        salt, self.record = extra[:32], extra[32:]
        self.index = decimal(lines[2][6:], "the index")
        proof = [unbase64(line, "a hash of the proof") for line in lines[3:]]
        need(all(len(hash) == 32 for hash in proof), "a hash of the proof is not 32 bytes")
        self.head = Checkpoint(note, keys)
        length = lambda data: len(data).to_bytes(4)
        label = b"log-entry/v1"
        entry = sha256(length(label), label, length(salt), salt, length(self.record), self.record)
        self.leaf = sha256(b"\x00", entry)
        root = root_by_inclusion(self.leaf, self.index, self.head.size, proof)
        need(root == self.head.root, "the proof does not lead to the root that was signed")

    def told(self):
        """What the record says, as far as a few lines can read protobuf."""
        at, events = 0, {}
        for number, value in fields(self.record):
            if number == 1:
                at = dict(fields(value)).get(1, 0)
            else:
                events[number] = value
        need(len(events) == 1 and set(events) <= set(EVENTS), "the record is not one known event")
        (number, value), = events.items()
        event, told = EVENTS[number], dict(fields(value))
        name = event
        if event == "outcome":
            name = next((OUTCOMES[field] for field in told if field in OUTCOMES), "an unknown outcome")
        words = [name, f"at {at} s"]
        if event in PLACES:
            sender, message, recipient = PLACES[event]
            words.append(f"message {uuid.UUID(bytes=told[message])} from {address(told[sender])}")
            if recipient:
                words.append(f"to {address(told[recipient])}")
        return ", ".join(words)


def address(data):
    need(re.fullmatch(rb"[a-z0-9-]+/[a-z0-9-]+", data), "the record names somebody who is no agency")
    return data.decode()


class Continuation:
    """That a log only grew since an earlier head."""

    HEADER = "liaison/tlog-consistency@v1"

    def __init__(self, data, keys):
        head, gap, note = data.decode().partition("\n\n")
        need(gap, "a consistency proof has an empty line before its checkpoint")
        lines = head.split("\n")
        old = lines[1].split(" ") if len(lines) > 1 else []
        need(lines[0] == self.HEADER and len(old) == 3 and old[0] == "old", "this is no consistency proof")
        self.old, self.old_root = decimal(old[1], "the earlier size"), unbase64(old[2], "the earlier root")
        proof = [unbase64(line, "a hash of the proof") for line in lines[2:]]
        need(all(len(hash) == 32 for hash in proof + [self.old_root]), "a hash is not 32 bytes")
        self.head = Checkpoint(note, keys)
        check_consistency(self.old, self.old_root, self.head.size, self.head.root, proof)


def varint(data, place):
    value = shift = 0
    while True:
        need(place < len(data) and shift < 64, "the record is no protobuf message")
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def fields(data):
    """The fields of a protobuf message, in their order: varints as numbers, the rest as bytes."""
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        if tag & 7 == 0:
            value, place = varint(data, place)
        else:
            need(tag & 7 == 2, "the record is no protobuf message that is known here")
            length, place = varint(data, place)
            value, place = data[place : place + length], place + length
            need(place <= len(data), "the record is cut off")
        yield tag >> 3, value


def main():
    parser = argparse.ArgumentParser(description="Verifies receipts of a Liaison log of evidence, offline.")
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT")
    parser.add_argument("--key", action="append", default=[], metavar="VKEY", help="the key of a log; by default each receipt's own word")
    parser.add_argument("--log", metavar="DIR", help="an exported log that must go on from every receipt's head")
    arguments = parser.parse_args()
    try:
        keys = [Key(key) for key in arguments.key]
        log = Tiles(arguments.log, keys) if arguments.log else None
    except (Wrong, OSError, ValueError) as why:
        print(f"does not hold: {why}", file=sys.stderr)
        return 1
    failed, known, roots, leaves = 0, {}, {}, {}
    if log:
        known[log.head.origin] = log.head.key.text
        roots[log.head.origin, log.head.size] = log.head.root
    for path in arguments.receipts:
        try:
            data = pathlib.Path(path).read_bytes()
            grown = data.startswith(Continuation.HEADER.encode())
            shown = Continuation(data, keys) if grown else Receipt(data, keys)
            head = shown.head
            if grown:
                told = f"{head.origin} only grew from {shown.old} leaves"
                other = (roots, (head.origin, shown.old), shown.old_root, "root of the same size")
            else:
                told = f"{shown.told()}; {head.origin}, leaf {shown.index}"
                other = (leaves, (head.origin, shown.index), shown.leaf, "leaf at the same index")
            for seen, place, value, what in [
                (known, head.origin, head.key.text, "key"),
                (roots, (head.origin, head.size), head.root, "root of the same size"),
                other,
            ]:
                need(seen.setdefault(place, value) == value, f"another one of {head.origin} has another {what}")
            if log:
                log.goes_on_from(head)
            print(f"{path}: holds: {told}, of {head.size}, root {head.root.hex()}, key {head.key.text}")
        except (Wrong, OSError, ValueError, KeyError, TypeError) as why:
            failed += 1
            print(f"{path}: does not hold: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
