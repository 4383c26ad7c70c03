"""A client of the store that was made from its `.proto` file, by grpcio's own generator: ordinary gRPC, and nothing else."""

import argparse
import signal
import sys

import grpc
from google.protobuf import timestamp_pb2

import interop_pb2
import runner
import storage_pb2 as pb
import storage_pb2_grpc
from runner import DEADLINE, equal

HEALTH = "/grpc.health.v1.Health/"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def write(key, value, seconds):
    return pb.WriteRequest(key=key, value=value, time=timestamp_pb2.Timestamp(seconds=seconds))


def read(key):
    return pb.ReadRequest(key=key)


def fails(code, call, *args, **kwargs):
    """The error of a call that has to fail with this code."""
    try:
        call(*args, timeout=kwargs.pop("timeout", DEADLINE), **kwargs)
    except grpc.RpcError as error:
        equal(error.code(), code, f"the code, of {error.details()!r}")
        return error
    raise AssertionError(f"{code} was expected")


class Replica:
    """A replica of the store, and a stub that calls it."""

    def __init__(self, setup, *options):
        args = ["serve", "--id", "1", "--listen", "127.0.0.1:0", *options]
        self.process = runner.Process(setup.storage, *args, *setup.options("node-1"))
        self.channel = setup.channel(self.process.address)
        self.stub = storage_pb2_grpc.StorageStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.process.stop()


class Setup:
    """The programs, and the certificates of those who have some."""

    def __init__(self, arguments):
        self.storage = arguments.storage
        self.certs = arguments.certs

    def options(self, name):
        """Those of a replica."""
        if not self.certs:
            return []
        file = f"{self.certs}/{name}"
        return ["--ca", f"{self.certs}/ca.pem", "--cert", f"{file}.pem", "--key", f"{file}.key", "--cluster", "test"]

    def channel(self, address, client="client", authority="ca.pem"):
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not self.certs:
            return grpc.insecure_channel(address, options)
        secrets = {"root_certificates": self.read(authority)}
        if client:
            secrets["private_key"] = self.read(f"{client}.key")
            secrets["certificate_chain"] = self.read(f"{client}.pem")
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(**secrets), options)

    def read(self, name):
        with open(f"{self.certs}/{name}", "rb") as file:
            return file.read()


def cases(setup):
    found = {}
    group = "py-stub-tls" if setup.certs else "py-stub"

    def case(function):
        found[f"{group}/{function.__name__}"] = function
        return function

    @case
    def a_stub_writes_and_reads():
        with Replica(setup) as replica:
            stub = replica.stub
            equal(stub.ReadRPC(read("k"), timeout=DEADLINE), pb.ReadResponse())
            equal(stub.WriteRPC(write("k", "größe", 1), timeout=DEADLINE), pb.WriteResponse(new=True))
            equal(stub.WriteQC(write("k", "older", 1), timeout=DEADLINE), pb.WriteResponse(new=False))
            answer = pb.ReadResponse(OK=True, value="größe", time=timestamp_pb2.Timestamp(seconds=1))
            equal(stub.ReadRPC(read("k"), timeout=DEADLINE), answer)
            equal(stub.ReadQC(read("k"), timeout=DEADLINE), answer)
            # It has an empty answer, before it is done.
            stub.WriteUnicast(write("k", "later", 2), timeout=DEADLINE)
            while stub.ReadRPC(read("k"), timeout=DEADLINE).value != "later":
                pass

    @case
    def many_calls_at_once():
        with Replica(setup) as replica:
            stub = replica.stub
            writes = [stub.WriteRPC.future(write(f"k{n}", f"v{n}", 1), timeout=DEADLINE) for n in range(500)]
            equal([each.result().new for each in writes], [True] * 500)
            reads = [stub.ReadRPC.future(read(f"k{n}"), timeout=DEADLINE) for n in range(500)]
            equal([each.result().value for each in reads], [f"v{n}" for n in range(500)])
            large = "x" * (1 << 20)
            stub.WriteRPC(write("large", large, 1), timeout=DEADLINE)
            equal(stub.ReadRPC(read("large"), timeout=DEADLINE).value == large, True, "whether a large value came back")

    @case
    def a_stream_of_replies_ends():
        with Replica(setup) as replica:
            replica.stub.WriteRPC(write("k", "v", 1), timeout=DEADLINE)
            replies = list(replica.stub.ReadCorrectable(read("k"), timeout=DEADLINE))
            equal([reply.value for reply in replies][-1:], ["v"])

    @case
    def errors_have_their_codes():
        with Replica(setup) as replica:
            other = replica.channel.unary_unary(
                "/proto.Storage/Drop", pb.ReadRequest.SerializeToString, pb.ReadResponse.FromString
            )
            fails(grpc.StatusCode.UNIMPLEMENTED, other, read("k"))
            broken = replica.channel.unary_unary("/proto.Storage/ReadRPC", lambda data: data, pb.ReadResponse.FromString)
            fails(grpc.StatusCode.INVALID_ARGUMENT, broken, b"\x0a\x05k")
            fails(grpc.StatusCode.RESOURCE_EXHAUSTED, replica.stub.WriteRPC, write("k", "x" * (5 << 20), 1))
            fails(grpc.StatusCode.UNIMPLEMENTED, replica.stub.WriteRPC, write("k", "x" * 10_000, 1), compression=grpc.Compression.Gzip)
            equal(replica.stub.ReadRPC(read("k"), timeout=DEADLINE).OK, False)

    @case
    def health_is_told_until_the_replica_shuts_down():
        # The messages of the health service have one field each, which these have as well.
        with Replica(setup) as replica:
            check = replica.channel.unary_unary(HEALTH + "Check", pb.ReadRequest.SerializeToString, interop_pb2.Data.FromString)
            for service in ["", "proto.Storage"]:
                equal(check(read(service), timeout=DEADLINE).number, SERVING, repr(service))
            fails(grpc.StatusCode.NOT_FOUND, check, read("proto.Nothing"))
            watch = replica.channel.unary_stream(HEALTH + "Watch", pb.ReadRequest.SerializeToString, interop_pb2.Data.FromString)
            unknown = watch(read("proto.Nothing"), timeout=DEADLINE)
            equal(next(unknown).number, SERVICE_UNKNOWN)
            watches = [watch(read(service), timeout=DEADLINE) for service in ["", "proto.Storage"]]
            equal([next(each).number for each in watches], [SERVING] * 2)
            replica.process.process.send_signal(signal.SIGTERM)
            # The last thing that is told, and the stream ends well.
            equal([[told.number for told in each] for each in watches], [[NOT_SERVING]] * 2)
            equal([each.code() for each in watches], [grpc.StatusCode.OK] * 2)
            equal(replica.process.process.wait(DEADLINE), 0, "the exit code of the replica")
            fails(grpc.StatusCode.UNAVAILABLE, check, read(""))

    if setup.certs:

        @case
        def nobody_calls_without_a_certificate_of_the_authority():
            with Replica(setup) as replica:
                for client in [None, "foreign/client"]:
                    with setup.channel(replica.process.address, client) as channel:
                        stub = storage_pb2_grpc.StorageStub(channel)
                        fails(grpc.StatusCode.UNAVAILABLE, stub.ReadRPC, read("k"))
                with grpc.insecure_channel(replica.process.address) as channel:
                    stub = storage_pb2_grpc.StorageStub(channel)
                    fails(grpc.StatusCode.UNAVAILABLE, stub.ReadRPC, read("k"))
                equal(replica.stub.ReadRPC(read("k"), timeout=DEADLINE).OK, False)

        @case
        def a_replica_of_another_authority_is_not_taken():
            with Replica(setup) as replica:
                with setup.channel(replica.process.address, authority="foreign/ca.pem") as channel:
                    stub = storage_pb2_grpc.StorageStub(channel)
                    fails(grpc.StatusCode.UNAVAILABLE, stub.ReadRPC, read("k"))
                equal(replica.stub.ReadRPC(read("k"), timeout=DEADLINE).OK, False)

    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True, help="the program of our replicas")
    parser.add_argument("--certs", help="over mutual TLS, with the certificates in this folder")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("parts", nargs="*", help="run the cases with one of these in their name")
    arguments = parser.parse_args()
    return runner.main(cases(Setup(arguments)), arguments)


if __name__ == "__main__":
    sys.exit(main())
