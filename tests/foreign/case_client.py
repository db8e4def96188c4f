#!/usr/bin/env python3
"""A caseworker system in another language: stubs made from proto/ now, a referral sent over gRPC to one
agent and read at another. Needs grpcio and grpcio-tools. Exits 0 only if what arrived is what was sent."""

import argparse
import datetime
import importlib
import pathlib
import sys
import tempfile
import time

import grpc
from grpc_tools import protoc

PATIENCE_S = 60


def stubs(proto, out):
    """Compiles every contract and makes the result importable."""
    files = sorted(str(path.relative_to(proto)) for path in proto.glob("liaison/**/*.proto"))
    included = importlib.resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{proto}", f"-I{included}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(arguments + files) != 0:
        sys.exit("the contracts do not compile")
    sys.path.insert(0, str(out))
    return tuple(
        importlib.import_module(f"liaison.{name}")
        for name in ("case.v1.case_pb2", "case.v1.case_pb2_grpc", "message.v1.content_pb2", "message.v1.category_pb2")
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proto", required=True, type=pathlib.Path, help="folder of the contracts")
    for side in ("sender", "recipient"):
        parser.add_argument(f"--{side}", required=True, help="host:port of the agent's gRPC API")
        parser.add_argument(f"--{side}-token", required=True)
    parser.add_argument("--to", required=True, help="address of the recipient")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as out:
        case, case_grpc, content, category = stubs(given.proto.resolve(), pathlib.Path(out))
        Category = category.DataCategory.Code
        consent = content.Consent(
            obtained_from=content.ConsentSource.Code.individual,
            for_services=True,
            for_disclosure=True,
            scopes=[
                content.ConsentScope(
                    categories=[Category.service_request, Category.health],
                    agencies=[given.to],
                    purposes=[content.Purpose.Code.health_care],
                )
            ],
        )
        consent.obtained_at.FromDatetime(datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1))
        request = case.SendReferralRequest(
            to=[given.to],
            purpose=content.Purpose.Code.health_care,
            content=content.ReferralContent(
                service_request=content.ServiceRequest(services=[content.ServiceType.Code.health_medical]),
                health=content.Health(physical="Übelkeit — gebrochener Arm ❤"),
                consent=consent,
            ),
        )
        sender = case_grpc.CaseServiceStub(grpc.insecure_channel(given.sender))
        recipient = case_grpc.CaseServiceStub(grpc.insecure_channel(given.recipient))

        def call(method, message, token, *more):
            metadata = [("authorization", f"Bearer {token}"), ("liaison-actor", "python"), *more]
            return method(message, metadata=metadata, timeout=30)

        preview = call(sender.Preview, case.PreviewRequest(referral=request), given.sender_token)
        print("preview:", [(one.recipient, len(one.categories)) for one in preview.recipients])
        key = ("idempotency-key", "python-1")
        sent = call(sender.SendReferral, request, given.sender_token, key).referrals[0]
        again = call(sender.SendReferral, request, given.sender_token, key).referrals[0]
        assert sent.id == again.id, "the same key made two referrals"

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                received = call(recipient.GetReferral, case.GetReferralRequest(id=sent.id), given.recipient_token)
                break
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        health = received.sections["health"]
        assert health.disclosure == case.Disclosure.Code.released, health.disclosure
        assert health.content.health == request.content.health, "what arrived is not what was sent"
        assert received.sections["narrative"].disclosure == case.Disclosure.Code.not_disclosed

        try:
            call(recipient.GetReferral, case.GetReferralRequest(id=sent.id), "not-the-token")
            sys.exit("a wrong token was taken")
        except grpc.RpcError as error:
            code = dict(error.trailing_metadata()).get("liaison-code")
            assert (error.code(), code) == (grpc.StatusCode.UNAUTHENTICATED, "bad_token"), (error.code(), code)
        print("read at the other end:", received.id)


if __name__ == "__main__":
    main()
