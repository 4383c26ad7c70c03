"""An independent client of our server: grpcio, the envelope, and nothing else."""

import argparse
import queue
import sys
import threading

import grpc
from google.protobuf import any_pb2, empty_pb2, wrappers_pb2

import interop_pb2 as pb
import runner
import stream_pb2
from runner import DEADLINE, equal, unknown

PATH = "/stream.Gorums/NodeStream"
SERVICE = "interop.Interop."


class Stream:
    """The one stream to a server: what is sent, and what came for each id."""

    def __init__(self, address, metadata=(), path=PATH, channel=None, compression=None):
        self.channel = channel or grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
        )
        self.requests = queue.Queue()
        self.replies = queue.Queue()
        self.early = {}
        # A peer that announces nothing.
        self.plain = not any(key == "gorums-features" for key, _ in metadata)
        method = self.channel.stream_stream(
            path,
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=stream_pb2.Message.FromString,
        )
        self.call = method(iter(self.requests.get, None), metadata=list(metadata), compression=compression)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        try:
            for message in self.call:
                self.replies.put(message)
        except grpc.RpcError:
            pass
        self.replies.put(None)

    def send(self, id, method, payload=None, entries=()):
        message = stream_pb2.Message(message_seq_no=id, method=method if "." in method else SERVICE + method)
        if payload is not None:
            message.payload = payload if isinstance(payload, bytes) else payload.SerializeToString()
        for key, value in entries:
            message.entry.add(key=key, value=value)
        self.requests.put(message)

    def reply(self, id):
        """The next message with this id."""
        if self.early.get(id):
            return self.early[id].pop(0)
        while True:
            message = self.next(f"a reply to {id}")
            if message is None:
                raise AssertionError(f"the stream ended before the reply to {id}: {self.call.code()} {self.call.details()}")
            # Nothing beyond the protocol of the Go library goes to a peer that announces nothing.
            if self.plain:
                equal(unknown(message), [], "unknown fields of a reply")
            if message.message_seq_no == id:
                return message
            self.early.setdefault(message.message_seq_no, []).append(message)

    def ask(self, id, method, payload=None, answer=pb.Data, entries=()):
        self.send(id, method, payload, entries)
        reply = self.reply(id)
        equal(reply.status.code, 0, "the status")
        return answer.FromString(reply.payload)

    def next(self, what):
        try:
            return self.replies.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError(f"{what} did not come within {DEADLINE} s") from None

    def ended(self):
        """The status that the stream ended with."""
        while (message := self.next("the end of the stream")) is not None:
            self.early.setdefault(message.message_seq_no, []).append(message)
        return self.call.code()

    def close(self):
        self.call.cancel()
        self.requests.put(None)
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def number(value, payload=b""):
    return pb.Data(number=value, bytes=payload)


def cases(server):
    def start():
        return runner.Process(server, "serve")

    found = {}

    def case(function):
        name = "py-client/" + function.__name__

        def run():
            with start() as process, Stream(process.address, [("from", "connection")]) as stream:
                function(stream, process.address)

        found[name] = run
        return function

    @case
    def rpc(stream, _):
        equal(stream.ask(1, "Echo", number(7, b"abc")), number(7, b"abc"))
        stream.send(2, "Echo", number(8))
        reply = stream.reply(2)
        equal((reply.message_seq_no, reply.method), (2, SERVICE + "Echo"), "id and method")
        equal(len(reply.entry), 0, "metadata of a reply")

    @case
    def three_servers_and_one_id(stream, _):
        with start() as second, start() as third, Stream(second.address) as two, Stream(third.address) as three:
            streams = [stream, two, three]
            for each in streams:
                each.send(5, "EchoAll", number(9))
            for each in streams:
                each.send(6, "NoteAll", number(10))
            for each in streams:
                each.send(7, "Count", pb.CountRequest(**{"from": 1}, replies=2))
            for each in streams:
                equal(pb.Data.FromString(each.reply(5).payload), number(9))
                equal([pb.Data.FromString(each.reply(7).payload).number for _ in range(2)], [1, 2])
                equal(list(each.ask(8, "Inspect", pb.InspectRequest(), pb.Seen).numbers), [9, 10])
                equal(each.early.get(6, []), [], "answers to a multicast")

    @case
    def one_way_messages_are_noted_and_not_answered(stream, _):
        stream.send(1, "Note", number(1))
        stream.send(2, "NoteAll", number(2))
        seen = stream.ask(3, "Inspect", pb.InspectRequest(noted=2), pb.Seen)
        equal(list(seen.numbers), [1, 2])
        equal(stream.early, {}, "answers to one-way messages")

    @case
    def streamed_replies(stream, _):
        stream.send(1, "Count", pb.CountRequest(**{"from": 10}, replies=3))
        got = [pb.Data.FromString(stream.reply(1).payload).number for _ in range(3)]
        equal(got, [10, 11, 12])
        failure = pb.Failure(code=9, message="no more")
        stream.send(2, "Count", pb.CountRequest(**{"from": 5}, replies=1, failure=failure))
        equal(pb.Data.FromString(stream.reply(2).payload).number, 5)
        status = stream.reply(2).status
        equal((status.code, status.message), (9, "no more"))
        # A peer that announces nothing is not told that a streamed reply ended well.
        equal(stream.ask(3, "Echo", number(1)).number, 1)
        equal(stream.early, {}, "messages after the last reply")

    @case
    def a_peer_that_announces_it_gets_the_end_of_streamed_replies(_, address):
        # Which also shows that these tests can see such a field.
        with Stream(address, [("gorums-features", "stream-end")]) as announces:
            announces.send(1, "Count", pb.CountRequest(**{"from": 1}, replies=1))
            equal([unknown(announces.reply(1)) for _ in range(2)], [[], [15]])

    @case
    def mixed_calls_start_in_order(stream, _):
        for value in range(1, 1001):
            method = ["Echo", "EchoAll", "Note", "NoteAll", "Hold"][value % 5]
            data = number(value)
            stream.send(value, method, pb.HoldRequest(data=data, release=True) if method == "Hold" else data)
        for value in range(4, 1001, 5):
            stream.send(2000 + value, "Open", number(value))
        seen = stream.ask(5000, "Inspect", pb.InspectRequest(noted=1000), pb.Seen)
        equal(list(seen.numbers), list(range(1, 1001)))
        for value in range(1, 1001):
            if value % 5 in (0, 1, 4):
                equal(stream.reply(value).status.code, 0)

    @case
    def a_released_handler_lets_later_ones_start(stream, _):
        stream.send(1, "Hold", pb.HoldRequest(data=number(1), release=True))
        equal(stream.ask(2, "Echo", number(2)).number, 2)
        equal(stream.early, {}, "the reply of the handler that waits")
        stream.send(3, "Open", number(1))
        equal(pb.Data.FromString(stream.reply(1).payload).number, 1)

    @case
    def a_handler_that_does_not_release_keeps_its_turn(stream, address):
        stream.send(1, "Hold", pb.HoldRequest(data=number(1)))
        stream.send(2, "Echo", number(2))
        with Stream(address) as other:
            # The other client has a turn of its own.
            equal(list(other.ask(1, "Inspect", pb.InspectRequest(noted=1), pb.Seen).numbers), [1])
            equal(other.ask(2, "Echo", number(3)).number, 3)
            other.send(3, "Open", number(1))
            equal(other.ask(4, "Echo", number(4)).number, 4)
        equal(pb.Data.FromString(stream.reply(2).payload).number, 2)
        equal([message.message_seq_no for message in stream.early.get(1, [])], [1], "replies before the second's")
        equal(list(stream.ask(3, "Inspect", pb.InspectRequest(), pb.Seen).numbers)[:2], [1, 3])

    @case
    def metadata_of_message_and_connection(_, address):
        entries = [("trace", "a"), ("größe", "€ 5"), ("trace", "b"), ("Upper", ""), ("long", "x" * 5000)]
        with Stream(address, [("from", "one"), ("other", "x=y"), ("from", "two")]) as stream:
            seen = stream.ask(1, "Inspect", pb.InspectRequest(), pb.Seen, entries)
            expected = [(key.lower() if key.isascii() else key, value) for key, value in entries]
            equal([(e.key, e.value) for e in seen.metadata], expected)
            equal([e.value for e in seen.connection if e.key == "from"], ["one", "two"])
            equal([e.value for e in seen.connection if e.key == "other"], ["x=y"])
            equal(list(stream.ask(2, "Inspect", pb.InspectRequest(), pb.Seen).metadata), [], "of another request")

    @case
    def errors_travel_whole(stream, _):
        detail = any_pb2.Any()
        detail.Pack(wrappers_pb2.StringValue(value="why"))
        failure = pb.Failure(code=5, message="no größe", details=[detail, detail])
        stream.send(1, "Fail", failure)
        status = stream.reply(1).status
        equal((status.code, status.message, list(status.details)), (5, "no größe", [detail, detail]))
        equal(stream.ask(2, "Echo", number(1)).number, 1)
        for code in range(1, 17):
            stream.send(code + 10, "Fail", pb.Failure(code=code))
            equal((stream.reply(code + 10).status.code), code)

    @case
    def empty_and_1mb_payloads(stream, _):
        equal(stream.ask(1, "Echo"), number(0))
        large = number(1, bytes(range(256)) * 4096)
        equal(stream.ask(2, "Echo", large), large)

    @case
    def unknown_methods(stream, _):
        for id, method in enumerate(["interop.Interop.None", "/interop.Interop/Echo", "x.y"], 1):
            stream.send(id, method, number(1))
            equal(stream.reply(id).status.code, 12, method)
        equal(stream.ask(9, "Echo", number(1)).number, 1)

    @case
    def a_payload_that_is_no_message(stream, _):
        stream.send(1, "Echo", b"\xff\xff\xff")
        equal(stream.reply(1).status.code, 3)
        equal(stream.ask(2, "Echo", number(1)).number, 1)

    @case
    def a_stream_of_one_way_messages_gets_headers_and_no_message(stream, _):
        headers = []
        waiting = threading.Thread(target=lambda: headers.append(stream.call.initial_metadata()), daemon=True)
        waiting.start()
        waiting.join(DEADLINE)
        equal(len(headers), 1, "heads that came before any reply")
        for value in range(100):
            stream.send(value, "Note", number(value))
        stream.requests.put(None)
        equal(stream.ended(), grpc.StatusCode.OK)
        equal(stream.early, {}, "messages")

    @case
    def ids_at_their_limits_and_twice(stream, _):
        # Without a node id of its own, a client's ids may also have the bit of those that the server gives.
        for id in [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 7, 7]:
            equal(stream.ask(id, "Echo", number(id)).number, id)
        for value in [1, 2]:
            stream.send(8, "Hold", pb.HoldRequest(data=number(value), release=True))
        for value in [2, 1]:
            stream.send(9, "Open", number(value))
            equal(pb.Data.FromString(stream.reply(8).payload).number, value, "the reply to one of two with one id")

    @case
    def half_close_drains(stream, _):
        stream.send(1, "Hold", pb.HoldRequest(data=number(1), release=True))
        for value in range(2, 100):
            stream.send(value, "Echo", number(value))
        stream.send(100, "Open", number(1))
        stream.requests.put(None)
        equal(stream.ended(), grpc.StatusCode.OK)
        equal(sorted(stream.early), list(range(1, 100)))

    @case
    def an_oversized_message(stream, _):
        stream.send(1, "Echo", number(1, b"x" * (5 << 20)))
        equal(stream.reply(1).status.code, 8)
        equal(stream.ask(2, "Echo", number(2)).number, 2)
        # One that cannot be answered is not lost in silence.
        stream.send(3, "Note", number(3, b"x" * (5 << 20)))
        equal(stream.ended(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    @case
    def what_is_no_envelope_ends_its_stream_only(stream, address):
        for broken in [b"\xff" * 20, b"\x0a\x01", b"\x0d1234"]:
            with Stream(address) as other:
                other.requests.put(broken)
                equal(other.ended(), grpc.StatusCode.INTERNAL, repr(broken))
        equal(stream.ask(1, "Echo", number(1)).number, 1)

    @case
    def a_compressed_message_is_refused(stream, address):
        with Stream(address, compression=grpc.Compression.Gzip) as other:
            other.send(1, "Echo", number(1, bytes(10_000)))
            equal(other.ended(), grpc.StatusCode.UNIMPLEMENTED)
        equal(stream.ask(1, "Echo", number(1)).number, 1)

    @case
    def ordinary_calls(stream, address):
        with grpc.insecure_channel(address) as channel:

            def method(name, answer=pb.Data, kind=channel.unary_unary):
                serialize = lambda message: message.SerializeToString()
                return kind(f"/interop.Interop/{name}", request_serializer=serialize, response_deserializer=answer.FromString)

            def fails(code, call, *args, **kwargs):
                try:
                    call(*args, timeout=kwargs.pop("timeout", DEADLINE), **kwargs)
                except grpc.RpcError as error:
                    equal(error.code(), code)
                    return error.details()
                raise AssertionError(f"{code} was expected")

            echo = method("Echo")
            equal(echo(number(7, b"abc"), timeout=DEADLINE), number(7, b"abc"))
            equal(method("EchoAll")(number(8), timeout=DEADLINE), number(8))
            large = number(1, bytes(range(256)) * 4096)
            equal(echo(large, timeout=DEADLINE), large)
            for reply in [echo.future(number(value), timeout=DEADLINE) for value in range(500)]:
                reply.result()
            count = method("Count", kind=channel.unary_stream)
            replies = count(pb.CountRequest(**{"from": 10}, replies=100), timeout=DEADLINE)
            equal([reply.number for reply in replies], list(range(10, 110)))
            failure = pb.Failure(code=9, message="no größe")
            equal(fails(grpc.StatusCode.FAILED_PRECONDITION, method("Fail"), failure), "no größe")
            broken = count(pb.CountRequest(**{"from": 5}, replies=1, failure=failure), timeout=DEADLINE)
            equal(next(broken).number, 5)
            equal(fails(grpc.StatusCode.FAILED_PRECONDITION, lambda timeout: next(broken)), "no größe")
            method("Note", empty_pb2.Empty)(number(1000), timeout=DEADLINE)
            fails(grpc.StatusCode.UNIMPLEMENTED, method("Other"), number(1))
            fails(grpc.StatusCode.UNIMPLEMENTED, echo, large, compression=grpc.Compression.Gzip)
            fails(grpc.StatusCode.RESOURCE_EXHAUSTED, echo, number(1, b"x" * (5 << 20)))
            hold = method("Hold")
            fails(grpc.StatusCode.DEADLINE_EXCEEDED, hold, pb.HoldRequest(data=number(4)), timeout=0.2)
            seen = method("Inspect", pb.Seen)(pb.InspectRequest(cancelled=1), metadata=[("from", "call")], timeout=DEADLINE)
            equal(list(seen.cancelled), [4])
            equal([entry.value for entry in seen.metadata if entry.key == "from"], ["call"])
            equal(1000 in seen.numbers, True, "the message that was noted")
        # A stream of Gorums is served beside them.
        equal(stream.ask(1, "Echo", number(1)).number, 1)

    @case
    def another_path(stream, address):
        with Stream(address, path="/stream.Gorums/Other") as other:
            equal(other.ended(), grpc.StatusCode.UNIMPLEMENTED)
        equal(stream.ask(1, "Echo", number(1)).number, 1)

    @case
    def a_second_stream_on_the_connection(stream, address):
        equal(stream.ask(1, "Echo", number(1)).number, 1)
        second = Stream(address, channel=stream.channel)
        equal(second.ended(), grpc.StatusCode.UNIMPLEMENTED)
        equal(stream.ask(2, "Echo", number(2)).number, 2)

    @case
    def a_client_that_leaves_is_told_to_its_handlers(stream, address):
        with Stream(address) as leaves:
            leaves.send(1, "Hold", pb.HoldRequest(data=number(4), release=True))
            equal(leaves.ask(2, "Echo", number(5)).number, 5)
        seen = stream.ask(1, "Inspect", pb.InspectRequest(cancelled=1), pb.Seen)
        equal(list(seen.cancelled), [4])

    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the program gorums-interop")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("parts", nargs="*", help="run the cases with one of these in their name")
    arguments = parser.parse_args()
    return runner.main(cases(arguments.server), arguments)


if __name__ == "__main__":
    sys.exit(main())
