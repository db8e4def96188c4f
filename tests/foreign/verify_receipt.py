#!/usr/bin/env python3
"""Verifies receipts of a Liaison log of evidence, offline: docs/receipts.md says what they are.

  verify_receipt.py [--key VKEY]... [--log DIR] RECEIPT...

Exit status 0 only if every receipt holds and none contradicts another, 1 if not, 2 if it is called wrongly; a line for each
receipt says whether it holds, or why not. Consistency
proofs (*.tlog-consistency, as `liaison-gateway log prove --from` writes them) may stand among the receipts. With --log, an
exported log (C2SP tlog-tiles: checkpoint, tile/...), each receipt's head must be the beginning of that log, whose tiles must
lead to its signed root. Shares no code with Liaison; needs only the package `cryptography`.
"""

import argparse
import pathlib
import sys

from record import Wrong, check_acknowledgement, need, printable, told
from tlog import HASHES, Checkpoint, Histories, Key, consistency, decimal, hashes, inclusion, key_among, node, sha256, unbase64

RECORD_BYTES, KEY_BYTES = 16 << 20, 8 << 10
FILE_BYTES = 32 << 20
# Logs of a domain are numbered from 1.
NUMBERS = range(1, 1 << 32)


def content(path):
    """What a file holds, unless it is longer than any receipt, or any file of an exported log."""
    with open(path, "rb") as file:
        data = file.read(FILE_BYTES + 1)
    need(len(data) <= FILE_BYTES, "it is longer than any receipt")
    return data


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
        self.head = Checkpoint(content(self.folder / "checkpoint").decode(), key_among(keys))
        self.leaves = []
        for number in range((self.head.size + 255) // 256):
            width = min(256, self.head.size - 256 * number)
            tile = self.read(f"tile/0/{self.path(number)}", width, 32 * width)
            self.leaves += [tile[i : i + 32] for i in range(0, 32 * width, 32)]
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
        data = content(file)
        need(length is None or len(data) >= length, f"{path} is cut off")
        return data

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


class Proof:
    """A C2SP tlog-proof."""

    HEADER = "c2sp.org/tlog-proof@v1"

    def __init__(self, text):
        head, gap, self.note = text.partition("\n\n")
        need(gap, "a receipt has an empty line before its checkpoint")
        lines = head.split("\n")
        need(lines[0] == self.HEADER, "the first line is not that of a receipt")
        need(len(lines) >= 3 and lines[1].startswith("extra ") and lines[2].startswith("index "), "no extra or index")
        self.extra = unbase64(lines[1][6:], "the extra line")
        self.index = decimal(lines[2][6:], "the index")
        self.hashes = hashes(lines[3:], HASHES)


class Receipt:
    """A tlog-proof whose `extra` is the salt and the record; that of an acknowledgement has another behind it, whose `extra`
    is the key record of who signed it, in the log of keys of the same domain."""

    def __init__(self, data, keys):
        first, gap, second = data.decode().partition(f"\n{Proof.HEADER}\n")
        proof = Proof(first + "\n" if gap else first)
        need(len(proof.extra) >= 32, "the extra line has no salt")
        salt, record = proof.extra[:32], proof.extra[32:]
        need(len(record) <= RECORD_BYTES, "the record is longer than any")
        self.head = Checkpoint(proof.note, key_among(keys))
        length = lambda data: len(data).to_bytes(4, "big")
        label = b"log-entry/v1"
        entry = sha256(length(label), label, length(salt), salt, length(record), record)
        shown = inclusion(sha256(b"\x00", entry), proof.index, self.head, proof.hashes)
        self.shown = [(self.head, shown)]
        words, acknowledged = told(record)
        if gap:
            need(acknowledged, "the receipt has the key of a signature, and its record holds none")
            words += ", " + self.signer(Proof(f"{Proof.HEADER}\n{second}"), acknowledged)
        else:
            need(not acknowledged, "the receipt lacks the key that signed its acknowledgement")
        self.told = f"{words}; {self.head.origin}, leaf {proof.index}"

    def signer(self, proof, acknowledged):
        need(len(proof.extra) <= KEY_BYTES, "the key record is longer than any")
        domain = self.head.origin.partition("/")[0]

        def key(head):
            number = head.origin.removeprefix(f"{domain}/keys/")
            need(number != head.origin, f"the signer's key is not in the log of keys of {domain}")
            need(decimal(number, "the number of the log of keys") in NUMBERS, "no log of keys has this number")
            return self.head.key.of(head.origin)

        head = Checkpoint(proof.note, key)
        self.shown.append((head, inclusion(sha256(b"\x00", proof.extra), proof.index, head, proof.hashes)))
        return check_acknowledgement(acknowledged, proof.extra)


class Continuation:
    """That a log only grew since an earlier head."""

    HEADER = "liaison/tlog-consistency@v1"

    def __init__(self, data, keys):
        head, gap, note = data.decode().partition("\n\n")
        need(gap, "a consistency proof has an empty line before its checkpoint")
        lines = head.split("\n")
        old = lines[1].split(" ") if len(lines) > 1 else []
        need(lines[0] == self.HEADER and len(old) == 3 and old[0] == "old", "this is no consistency proof")
        old, old_root = decimal(old[1], "the earlier size"), unbase64(old[2], "the earlier root")
        need(len(old_root) == 32, "a root has 32 bytes")
        # The old tree's own part, and a hash for each level.
        proof = hashes(lines[2:], HASHES + 1)
        self.head = Checkpoint(note, key_among(keys))
        self.shown = [(self.head, consistency(old, old_root, self.head, proof))]
        self.told = f"{self.head.origin} only grew from {old} leaves"


def verify(path, keys):
    data = content(path)
    return (Continuation if data.startswith(Continuation.HEADER.encode()) else Receipt)(data, keys)


def vkey(text):
    try:
        return Key(text)
    except Wrong as why:
        raise argparse.ArgumentTypeError(f"{why}; copy it anew as the domain tells it") from None


def say(line, file=None):
    print(printable(line), file=file)


def main():
    parser = argparse.ArgumentParser(description="Verifies receipts of a Liaison log of evidence, offline.")
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT")
    parser.add_argument("--key", action="append", default=[], type=vkey, metavar="VKEY", help="the key of a log; by default each receipt's own word")
    parser.add_argument("--log", metavar="DIR", help="an exported log that must go on from every receipt's head")
    arguments = parser.parse_args()
    histories, keys = Histories(), arguments.key
    try:
        log = Tiles(arguments.log, keys) if arguments.log else None
        if log:
            histories.add(arguments.log, log.head, {(0, log.head.size): log.head.root})
    except (Wrong, OSError, ValueError) as why:
        say(f"{arguments.log}: does not hold: {why}", sys.stderr)
        return 1
    verdicts = []
    for path in arguments.receipts:
        try:
            shown = verify(path, keys)
            for head, subtrees in shown.shown:
                histories.add(path, head, subtrees)
            if log:
                log.goes_on_from(shown.head)
            verdicts.append((path, shown, None))
        except (Wrong, OSError, ValueError) as why:
            verdicts.append((path, None, why))
    failed = False
    word = "" if keys else " (by its own word: compare it with what the domain tells)"
    for path, shown, why in verdicts:
        try:
            for head, subtrees in shown.shown if shown else []:
                histories.check(head, subtrees)
        except Wrong as wrong:
            why = wrong
        if why is None:
            head = shown.head
            say(f"{path}: holds: {shown.told}, of {head.size}, root {head.root.hex()}, key {head.key}{word}")
        else:
            failed = True
            say(f"{path}: does not hold: {why}", sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
