#!/usr/bin/env python3
"""Opens sealed messages as trust/ENVELOPE.md says, and shares no code with Liaison.

    open_envelope.py VECTOR.json...    exit status 0 only if everything in every vector holds
    open_envelope.py --tamper VECTOR.json...
                                       the same for changed copies: exit status 0 only if each
                                       change is refused

Needs the package `cryptography`, for X-Wing a version with ML-KEM (47 or newer).
"""

import hashlib
import hmac
import json
import sys

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SUITE = 1  # AES-256-GCM, HKDF-SHA-256, SHA-256, Ed25519
DEPTH = 12


class Refused(Exception):
    """The message is not what it should be."""


def check(holds, what):
    if not holds:
        raise Refused(what)


# Protobuf: what a message's fields are, by number.


def fields(data):
    found = {}
    place = 0

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            check(place < len(data) and shift < 64, "protobuf: a varint is cut or too long")
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
        elif tag & 7 == 2:
            length = varint()
            check(place + length <= len(data), "protobuf: a field is cut")
            value = data[place : place + length]
            place += length
        else:
            raise Refused("protobuf: a wire type that no field here has")
        found.setdefault(tag >> 3, []).append(value)
    return found


def read(data, schema):
    """The fields of a message by name, absent ones with their default. `schema` maps numbers to names:
    those of numbers start with #, those of repeated fields end in *."""
    message = {}
    found = fields(data)
    for number in found:
        check(number in schema, f"a field {number} that this version does not know")
    for number, name in schema.items():
        values, kind = found.get(number, []), int if name.startswith("#") else bytes
        name, repeated = name.lstrip("#"), name.endswith("*")
        check(all(isinstance(value, kind) for value in values), f"the type of {name}")
        check(repeated or len(values) < 2, f"{name} stands twice")
        message[name.rstrip("*")] = values if repeated else (values or [kind()])[0]
    return message


ENVELOPE = {1: "manifest", 2: "signature", 3: "sender_key", 4: "facts", 5: "facts_salt",
            6: "#facts_position", 7: "tree_seed", 8: "recipients*", 9: "sections*"}
ENTRY = {1: "address", 2: "key_id", 3: "#index", 4: "salt", 5: "bases*", 6: "bases_salt",
         7: "encapsulation", 8: "wrapped_keys*"}
COPY = {1: "manifest", 2: "signature", 3: "sender_key", 4: "recipient", 5: "sections*", 6: "release"}
PROOF = {1: "address", 2: "key_id", 3: "#index", 4: "salt", 5: "bases_digest", 6: "path*",
         7: "encapsulation", 8: "wrapped_keys*"}
MANIFEST = {1: "#version", 2: "#suite", 3: "message_id", 4: "sender", 5: "sender_key_id", 6: "#kind",
            7: "#alert_kind", 8: "thread", 9: "created", 10: "expires", 11: "#urgency", 12: "handling",
            13: "#status", 14: "state_change", 15: "leaves*", 16: "recipients_root"}
SECTION = {1: "#position", 2: "header", 3: "salt", 4: "commitment", 5: "ciphertext"}
HEADER = {1: "#category", 2: "#schema_version"}
WRAPPED = {1: "#position", 2: "sealed_key"}
BASIS = {1: "#category", 2: "#basis"}
SIGNED_KEY = {1: "record", 2: "signature", 3: "predecessor_signature"}
KEY = {1: "agency", 2: "#sequence", 3: "signing_key", 4: "#kem", 5: "kem_key", 6: "not_before",
       7: "not_after", 8: "previous"}
SIGNED_RELEASE = {1: "record", 2: "signature"}
RELEASE = {1: "message_id", 2: "manifest_digest", 3: "recipient", 4: "policy_hash", 5: "scheme_hash",
           6: "decided_at", 7: "released*", 8: "withheld*"}
RELEASED = {1: "#position", 2: "#retention_days", 3: "#onward_share", 4: "#use_as_evidence"}
TIME = {1: "#seconds", 2: "#nanos"}


# Hashes, derivations, signatures.


def u32(number):
    return number.to_bytes(4, "big")


def framed(label, *parts):
    return b"".join(u32(len(part)) + part for part in (label.encode(), *parts))


def sha256(data):
    return hashlib.sha256(data).digest()


def digest(label, *parts):
    return sha256(framed(label, *parts))


def extract(salt, secret):
    return hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()


def expand(key, info, length):
    output = block = b""
    counter = 1
    while len(output) < length:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
        counter += 1
    return output[:length]


def hkdf(secret, info):
    return expand(extract(b"", secret), info, 32)


def verify(key, label, data, signature, what):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, u32(len(label)) + label.encode() + data)
    except (InvalidSignature, ValueError) as error:
        raise Refused(f"the signature of {what}") from error


def decrypt(key, aad, sealed, what):
    try:
        return AESGCM(key).decrypt(bytes(12), sealed, aad)
    except (InvalidTag, ValueError) as error:
        raise Refused(what) from error


# HPKE (RFC 9180), base mode, export-only, KDF HKDF-SHA-256.


def labeled_extract(suite, salt, label, secret):
    return extract(salt, b"HPKE-v1" + suite + label + secret)


def labeled_expand(suite, key, label, info, length):
    return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def exchange(key, public):
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise Refused("the encapsulation is of small order") from error


def dhkem_x25519(seed, encapsulation):
    key = X25519PrivateKey.from_private_bytes(seed)
    check(len(encapsulation) == 32, "the encapsulation's length")
    shared = exchange(key, encapsulation)
    suite = b"KEM" + (0x0020).to_bytes(2, "big")
    context = encapsulation + key.public_key().public_bytes_raw()
    prk = labeled_extract(suite, b"", b"eae_prk", shared)
    return labeled_expand(suite, prk, b"shared_secret", context, 32)


def x_wing(seed, encapsulation):
    """draft-connolly-cfrg-xwing-kem: ML-KEM-768 and X25519 from one seed."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    check(len(encapsulation) == 1120, "the encapsulation's length")
    expanded = hashlib.shake_256(seed).digest(96)
    curve = X25519PrivateKey.from_private_bytes(expanded[64:])
    inner = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(encapsulation[:1088])
    outer = exchange(curve, encapsulation[1088:])
    public = curve.public_key().public_bytes_raw()
    return hashlib.sha3_256(inner + outer + encapsulation[1088:] + public + b"\\.//^\\").digest()


# By name: the KEM's number in HPKE, and how it decapsulates.
KEMS = {"x25519": (0x0020, dhkem_x25519), "x_wing": (0x647A, x_wing)}


def exported(kem, seed, encapsulation, info):
    number, decapsulate = KEMS[kem]
    suite = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (number, 0x0001, 0xFFFF))
    shared = decapsulate(seed, encapsulation)
    psk_id = labeled_extract(suite, b"", b"psk_id_hash", b"")
    context = bytes([0]) + psk_id + labeled_extract(suite, b"", b"info_hash", info)
    secret = labeled_extract(suite, shared, b"secret", b"")
    exporter = labeled_expand(suite, secret, b"exp", context, 32)
    return labeled_expand(suite, exporter, b"sec", b"wrap/v1", 32)


# The message.


def read_key_record(data, sender):
    """The sender's signing key, believed because the vector pins it."""
    signed = read(data, SIGNED_KEY)
    record = read(signed["record"], KEY)
    check(record["signing_key"] == bytes.fromhex(sender["signing_key"]), "the sender's key is another")
    check(record["agency"] == sender["address"].encode(), "the key record's agency")
    check(sha256(signed["record"]).hex() == sender["key_id"], "the key record's id")
    check(not signed["predecessor_signature"], "a first record has no predecessor")
    verify(record["signing_key"], "key-record/v1", signed["record"], signed["signature"], "the key record")
    return record, sha256(signed["record"])


def seconds(timestamp):
    return read(timestamp, TIME)["seconds"]


def read_manifest(message, vector):
    """The manifest, if the sender signed it and it is neither from the future nor past its end."""
    record, key_id = read_key_record(message["sender_key"], vector["sender"])
    data = message["manifest"]
    verify(record["signing_key"], "manifest/v1", data, message["signature"], "the manifest")
    manifest = read(data, MANIFEST)
    check(manifest["version"] == 1 and manifest["suite"] == SUITE, "version and suite")
    check(manifest["sender"] == vector["sender"]["address"].encode(), "the sender")
    check(manifest["sender_key_id"] == key_id, "the sender's key id")
    check(manifest["leaves"] and len(manifest["leaves"]) % 24 == 0, "the number of leaves")
    created, expires, now = seconds(manifest["created"]), seconds(manifest["expires"]), vector["now"]
    check(seconds(record["not_before"]) <= created <= seconds(record["not_after"]), "the key's validity")
    check(created <= now + 300 and now < expires <= created + 30 * 86400, "the times")
    return manifest, sha256(data)


def recipient_leaf(manifest, entry, bases_digest):
    return digest("rcpt/v1", manifest["message_id"], entry["salt"], entry["address"], entry["key_id"],
                  bases_digest)


def check_section(manifest, section):
    position = section["position"]
    leaf = digest("leaf/v1", manifest["message_id"], u32(position), section["salt"],
                  section["header"], section["commitment"], sha256(section["ciphertext"]))
    check(position < len(manifest["leaves"]) and manifest["leaves"][position] == leaf,
          f"the leaf of section {position}")
    return position


def padded_length(length):
    if length <= 256:
        return 256
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def open_section(manifest, section, key):
    position = u32(section["position"])
    check(hkdf(key, framed("commit", manifest["message_id"], position)) == section["commitment"],
          "the commitment to the section's key")
    aad = framed("section/v1", u32(SUITE), manifest["message_id"], position, manifest["sender"],
                 sha256(section["header"]))
    cipher_key = hkdf(key, framed("enc", manifest["message_id"], position))
    padded = decrypt(cipher_key, aad, section["ciphertext"], "the section does not open")
    length = int.from_bytes(padded[:4], "big")
    check(len(padded) == padded_length(4 + length) and not any(padded[4 + length :]), "the padding")
    return padded[4 : 4 + length]


def open_copy(copy, vector):
    """What the recipient reads: by position, the category, the key and the plaintext."""
    copy = read(copy, COPY)
    manifest, manifest_digest = read_manifest(copy, vector)
    me = vector["recipient"]
    proof = read(copy["recipient"], PROOF)
    check(proof["address"] == me["address"].encode() and proof["key_id"].hex() == me["key_id"], "the recipient")
    node, index = recipient_leaf(manifest, proof, proof["bases_digest"]), proof["index"]
    check(len(proof["path"]) == DEPTH and index < 1 << DEPTH, "the path")
    for height, sibling in enumerate(proof["path"]):
        pair = (sibling, node) if index >> height & 1 else (node, sibling)
        node = digest("node/v1", *pair)
    check(node == manifest["recipients_root"], "the recipient is not under the signed root")

    sections = [read(section, SECTION) for section in copy["sections"]]
    positions = [check_section(manifest, section) for section in sections]
    signed = read(copy["release"], SIGNED_RELEASE)
    verify(bytes.fromhex(vector["gateway_signing_key"]), "release-record/v1", signed["record"],
           signed["signature"], "the release record")
    release = read(signed["record"], RELEASE)
    check(release["message_id"] == manifest["message_id"], "the release record's message")
    check(release["manifest_digest"] == manifest_digest, "the release record's digest")
    check(release["recipient"] == proof["address"], "the release record's recipient")
    released = [read(section, RELEASED)["position"] for section in release["released"]]
    check(sorted(released) == sorted(set(positions)), "the released sections")

    wrapped = [read(item, WRAPPED) for item in proof["wrapped_keys"]]
    wrapped = {item["position"]: item["sealed_key"] for item in wrapped}
    check(sorted(wrapped) == sorted(positions) and len(proof["wrapped_keys"]) == len(positions), "the wrapped keys")
    opened = {}
    check(bool(sections) == bool(proof["encapsulation"]), "an encapsulation without sections")
    if sections:
        info = framed("wrap/v1", u32(SUITE), manifest_digest, manifest["message_id"],
                      manifest["sender_key_id"], proof["address"], proof["key_id"])
        secret = exported(me["kem"], bytes.fromhex(me["kem_seed"]), proof["encapsulation"], info)
    for position, section in zip(positions, sections):
        key = decrypt(hkdf(secret, framed("wrap-key", u32(position))),
                      framed("wrap-aad", manifest_digest, u32(position)), wrapped[position],
                      "a wrapped key does not open")
        header = read(section["header"], HEADER)
        check(header["category"] and header["schema_version"] == 1, "a section's header")
        opened[position] = (header["category"], key, open_section(manifest, section, key))
    return manifest, manifest_digest, opened


def check_envelope(envelope, vector):
    """What a gateway checks: leaves, facts, and the recipients' root from entries and seed."""
    envelope = read(envelope, ENVELOPE)
    manifest, manifest_digest = read_manifest(envelope, vector)
    positions = [check_section(manifest, read(section, SECTION)) for section in envelope["sections"]]
    if envelope["facts_salt"]:
        position = envelope["facts_position"]
        leaf = digest("facts/v1", manifest["message_id"], envelope["facts_salt"], envelope["facts"])
        check(manifest["leaves"][position] == leaf, "the leaf of the facts")
        positions.append(position)
    check(len(set(positions)) == len(positions), "two things at one position")
    leaves = {}
    for entry in envelope["recipients"]:
        entry = read(entry, ENTRY)
        bases = [read(basis, BASIS) for basis in entry["bases"]]
        numbers = b"".join(u32(basis["category"]) + u32(basis["basis"]) for basis in bases)
        bases_digest = digest("bases/v1", entry["bases_salt"], numbers)
        leaves[entry["index"]] = recipient_leaf(manifest, entry, bases_digest)
    check(len(leaves) == len(envelope["recipients"]), "two recipients with one index")

    def node(height, index):
        width = 1 << height
        if not any(index * width <= leaf < (index + 1) * width for leaf in leaves):
            return digest("empty/v1", envelope["tree_seed"], u32(height), u32(index))
        if height == 0:
            return leaves[index]
        return digest("node/v1", node(height - 1, 2 * index), node(height - 1, 2 * index + 1))

    check(node(DEPTH, 0) == manifest["recipients_root"], "the recipients' root")
    return manifest_digest


def run(vector):
    manifest, manifest_digest, opened = open_copy(bytes.fromhex(vector["copy"]), vector)
    check(check_envelope(bytes.fromhex(vector["envelope"]), vector) == manifest_digest,
          "envelope and copy are of different messages")
    expected = vector["expected"]
    check(manifest_digest.hex() == expected["manifest_digest"], "the manifest's digest")
    check(manifest["recipients_root"].hex() == expected["recipients_root"], "the recipients' root")
    wanted = {
        section["position"]: (section["category"], bytes.fromhex(section["key"]), bytes.fromhex(section["plaintext"]))
        for section in expected["sections"]
    }
    check(opened == wanted, "what was opened is not what was sealed")
    return len(opened)


def tampered(vector):
    """Changes every byte of the copy in turn; each change must be refused."""
    copy = bytes.fromhex(vector["copy"])
    for place in range(len(copy)):
        changed = copy[:place] + bytes([copy[place] ^ 0x01]) + copy[place + 1 :]
        try:
            open_copy(changed, vector)
        except Refused:
            continue
        raise Refused(f"a changed byte {place} of the copy went unseen")
    return len(copy)


def main(arguments):
    tamper = arguments[:1] == ["--tamper"]
    paths = arguments[1:] if tamper else arguments
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    failed = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            vector = json.load(file)
        try:
            if tamper:
                print(f"{path}: refused all of {tampered(vector)} changes")
            else:
                print(f"{path}: holds, {run(vector)} sections opened")
        except Refused as error:
            print(f"{path}: REFUSED: {error}")
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
