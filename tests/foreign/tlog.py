"""Logs as C2SP and RFC 9162 have them: signed notes, checkpoints, proofs, and what proofs show together."""

import base64
import hashlib

from record import Wrong, check_signature, need

NOTE_BYTES = 128 << 10
SIGNATURES, SIGNATURE_BYTES = 64, 8 << 10
EXTENSIONS, EXTENSION_BYTES = 16, 1024
HASHES = 63


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


def hashes(lines, most):
    need(len(lines) <= most, "the proof has too many hashes")
    proof = [unbase64(line, "a hash of the proof") for line in lines]
    need(all(len(hash) == 32 for hash in proof), "a hash of the proof is not 32 bytes")
    return proof


# Signed notes and checkpoints


def check_name(name):
    """The name of a key, or of a log: see C2SP signed-note."""
    valid = 1 <= len(name.encode()) <= 255 and not any(c.isspace() or c < " " or c == "+" for c in name)
    need(valid, "a key's name has 1 to 255 bytes without spaces, control characters and '+'")


class Key:
    """A vkey: <name>+<key id>+<base64 of type 0x01 and the Ed25519 key>."""

    def __init__(self, vkey):
        parts = vkey.split("+", 2)
        need(len(parts) == 3, "a vkey has three parts")
        self.name = parts[0]
        check_name(self.name)
        material = unbase64(parts[2], "a vkey's key")
        need(len(material) == 33 and material[0] == 1, "a vkey is of an Ed25519 key")
        self.material = material
        need(self.id().hex() == parts[1], "the vkey's key id does not fit its name and key")

    def id(self):
        return sha256(self.name.encode(), b"\n", self.material)[:4]

    def of(self, name):
        """The same key, as that of another log."""
        other = Key.__new__(Key)
        other.name, other.material = name, self.material
        check_name(name)
        return other

    def __str__(self):
        return f"{self.name}+{self.id().hex()}+{base64.b64encode(self.material).decode()}"


class Checkpoint:
    """The head of a log, a signed note; `key` chooses by which key it is verified."""

    def __init__(self, note, key):
        need(len(note.encode()) <= NOTE_BYTES, "a note is longer than any")
        need(not any(c < " " and c != "\n" for c in note), "a note has no control characters")
        text, gap, signatures = note.rpartition("\n\n")
        need(gap and signatures.endswith("\n"), "a note is a text, an empty line and signatures")
        signatures = signatures[:-1].split("\n")
        need(len(signatures) <= SIGNATURES, "a note has too many signatures")
        signatures = [self.signature(line) for line in signatures]
        text += "\n"
        lines = text.split("\n")[:-1]
        need(len(lines) >= 3 and all(lines), "a checkpoint has an origin, a size, a root, and no empty line")
        self.origin, self.size, self.extensions = lines[0], decimal(lines[1], "the size"), lines[3:]
        need(len(self.origin.encode()) <= 255, "an origin has at most 255 bytes")
        self.root = unbase64(lines[2], "the root")
        need(len(self.root) == 32, "a root has 32 bytes")
        few = len(self.extensions) <= EXTENSIONS
        need(few and all(len(line.encode()) <= EXTENSION_BYTES for line in self.extensions), "there are too many extensions")
        self.key = key(self)
        own = [signature for name, id, signature in signatures if (name, id) == (self.key.name, self.key.id())]
        need(own, f"{self.origin} did not sign it with this key")
        for signature in own:
            check_signature(self.key.material[1:], signature, text.encode(), self.origin)

    @staticmethod
    def signature(line):
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014", "a signature line is a dash, a name and base64")
        check_name(parts[1])
        signature = unbase64(parts[2], "a signature")
        need(5 <= len(signature) <= 4 + SIGNATURE_BYTES, "a signature line has a key id and a signature")
        return parts[1], signature[:4], signature[4:]

    def told_key(self):
        """The key that the checkpoint names itself."""
        for line in self.extensions:
            try:
                key = Key(line)
            except Wrong:
                continue
            if key.name == self.origin:
                return key
        raise Wrong("the checkpoint names no key")


def key_among(keys):
    """Chooses the key of these that has the log's name, or the one that the checkpoint names itself where there are none."""

    def key(head):
        if not keys:
            return head.told_key()
        known = [key for key in keys if key.name == head.origin]
        need(known, f"the key of {head.origin} was not given")
        return known[0]

    return key


# Trees and proofs (RFC 9162). What a proof shows are the hashes of subtrees: {(first leaf, the one behind the last): hash}.


class Way:
    """The way from a node up to the root of a tree of `size` leaves."""

    def __init__(self, place, size):
        self.place, self.last, self.level, self.size = place, size - 1, 0, size

    def up(self):
        self.place, self.last, self.level = self.place >> 1, self.last >> 1, self.level + 1

    def leaves(self, beside=0):
        """The leaves below the node, or below the one beside it."""
        first = self.place + beside << self.level
        return first, min(first + (1 << self.level), self.size)

    def sibling(self):
        """On which side the next hash of a proof stands: -1 for the left one."""
        need(self.last > 0, "the proof has too many hashes")
        if self.place & 1 or self.place == self.last:
            # A last node without a sibling is its own parent.
            while not self.place & 1 and self.place:
                self.up()
            return -1
        return 1


def inclusion(leaf, index, head, proof):
    """That the leaf is there (RFC 9162, 2.1.3.2); what is shown."""
    need(index < head.size, "there is no such leaf")
    way, value = Way(index, head.size), leaf
    shown = {way.leaves(): leaf}
    for beside in proof:
        side = way.sibling()
        shown[way.leaves(side)] = beside
        value = node(beside, value) if side < 0 else node(value, beside)
        way.up()
        shown[way.leaves()] = value
    need(way.last == 0, "the proof has too few hashes")
    need(value == head.root, "the proof does not lead to the root that was signed")
    return shown


def consistency(old, old_root, head, proof):
    """That the tree of `old` leaves is the beginning of the one under the head (RFC 9162, 2.1.4.2); what is shown."""
    new, new_root = head.size, head.root
    need(old <= new, "the log went back")
    need(old or old_root == sha256(), "the earlier root is not that of the empty tree")
    if old in (0, new):
        need(not proof, "there is nothing to prove")
        need(old != new or old_root == new_root, "the roots are not those of the same tree")
        return {(0, new): new_root}
    if old & (old - 1) == 0:
        proof = [old_root] + proof
    need(proof, "the proof has too few hashes")
    way = Way(old - 1, new)
    while way.place & 1:
        way.up()
    first = second = proof[0]
    shown = {way.leaves(): first}
    for beside in proof[1:]:
        side = way.sibling()
        shown[way.leaves(side)] = beside
        if side < 0:
            first, second = node(beside, first), node(beside, second)
            shown[way.leaves(side)[0], old] = first
        else:
            second = node(second, beside)
        way.up()
        shown[way.leaves()] = second
    need(way.last == 0, "the proof has too few hashes")
    need(first == old_root, "the earlier root is not in the later one: the log has two histories")
    need(second == new_root, "the proof does not lead to the root that was signed")
    return shown


class Histories:
    """What files have shown so far: one key signs all logs of a domain, and each subtree of a log has one hash for ever."""

    def __init__(self):
        self.keys, self.hashes = {}, {}

    def add(self, file, head, shown):
        """Adds all that a proof in a file shows, or, where it contradicts those before, nothing."""
        domain = head.origin.partition("/")[0]
        key, before = self.keys.setdefault(domain, (head.key.material, file))
        need(
            key == head.key.material,
            f"{head.origin} is signed by another key than {before}: one key signs all logs of {domain}, ask the domain which",
        )
        for leaves, value in shown.items():
            self.same(head.origin, leaves, self.hashes.get((head.origin, *leaves), value), value)
        self.hashes.update({(head.origin, *leaves): value for leaves, value in shown.items()})

    def check(self, head, shown):
        """Compares subtrees at the right edge of a tree, which a larger one does not have, with the complete ones that they
        are made of, where those are known."""
        for leaves, value in shown.items():
            parts, (first, end) = [], leaves
            while first < end:
                width = 1 << (end - first).bit_length() - 1
                parts.append(self.hashes.get((head.origin, first, first + width)))
                first += width
            if parts and None not in parts:
                known = parts.pop()
                while parts:
                    known = node(parts.pop(), known)
                self.same(head.origin, leaves, known, value)

    @staticmethod
    def same(origin, leaves, known, value):
        first, end = leaves
        need(known == value, f"another one of {origin} has other leaves from {first} up to {end}: it has two histories")
