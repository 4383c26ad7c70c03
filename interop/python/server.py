"""An independent server for our client: grpcio, the envelope, and nothing else."""

import argparse
import queue
import sys
import threading
from concurrent import futures

import grpc
import interop_pb2 as pb
import stream_pb2
from runner import unknown

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Server:
    """What all streams of a server share."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.changed = threading.Condition()
        self.noted = []
        self.opened = set()
        # Our client may send nothing beyond the protocol of the Go library to a peer that announces nothing.
        self.strange = 0
        # How many messages went out, how our client answered requests of the server's, and how many numbers were noted
        # while the headers were held: what shows that a case has tried what it means to.
        self.sent = 0
        self.answers = []
        self.before_headers = None

    def note(self, number):
        with self.changed:
            self.noted.append(number)
            self.changed.notify_all()

    def wait(self, reached):
        with self.changed:
            self.changed.wait_for(reached, timeout=60)

    def stream(self, requests, context):
        """What goes out on a stream. Like Go's, the server sends its headers with the first of it."""
        out = queue.Queue()
        sending = threading.Event()
        if not self.arguments.hold_headers:
            sending.set()
        threading.Thread(target=self.read, args=(requests, context, out, sending), daemon=True).start()
        while (message := out.get()) is not None:
            if isinstance(message, pb.Failure):
                context.set_code(CODES[message.code])
                context.set_details(message.message)
                return
            sending.wait()
            self.sent += 1
            yield message

    def read(self, requests, context, out, sending):
        try:
            for request in requests:
                # This bit tells answers to what the server asked from requests, which have no status.
                is_answer = request.message_seq_no >= 2**63
                if unknown(request) or request.message_seq_no == 0 or request.HasField("status") and not is_answer:
                    self.strange += 1
                    print(f"strange, with the unknown fields {unknown(request)}:\n{request}", file=sys.stderr)
                if is_answer:
                    self.answers.append(f"{request.message_seq_no:x} {request.method} {request.status.code}")
                elif not self.arguments.silent:
                    self.handle(request, context, out, sending)
        except grpc.RpcError:
            pass
        # The client has left, or sends no more.
        out.put(None)

    def handle(self, request, context, out, sending):
        service, _, method = request.method.rpartition(".")

        def reply(message=None, code=0, text="", details=()):
            answer = stream_pb2.Message(message_seq_no=request.message_seq_no, method=request.method)
            if code or text:
                answer.status.code = code
                answer.status.message = text
                answer.status.details.extend(details)
            elif message is not None:
                answer.payload = message.SerializeToString()
            out.put(answer.SerializeToString())

        def beside(wait, then):
            """Answers when something has happened, and lets later requests start."""

            def run():
                self.wait(wait)
                reply(then())

            threading.Thread(target=run, daemon=True).start()

        if service not in ("interop.Interop", "interop.Peer"):
            return reply(code=12, text=f"no handler for {request.method}")
        if method in ("Echo", "EchoAll", "Note", "NoteAll"):
            data = pb.Data.FromString(request.payload)
            self.note(data.number)
            if method.startswith("Echo"):
                reply(data)
        elif method == "Count":
            count = pb.CountRequest.FromString(request.payload)
            for number in range(getattr(count, "from"), getattr(count, "from") + count.replies):
                reply(pb.Data(number=number))
            if count.HasField("failure"):
                reply(code=count.failure.code, text=count.failure.message)
        elif method == "Fail":
            failure = pb.Failure.FromString(request.payload)
            reply(code=failure.code, text=failure.message, details=failure.details)
        elif method == "Hold":
            hold = pb.HoldRequest.FromString(request.payload)
            data = hold.data
            self.note(data.number)
            if hold.release:
                beside(lambda: data.number in self.opened, lambda: data)
            else:
                self.wait(lambda: data.number in self.opened)
                reply(data)
        elif method == "Open":
            with self.changed:
                self.opened.add(pb.Data.FromString(request.payload).number)
                self.changed.notify_all()
        elif method == "Inspect":
            inspect = pb.InspectRequest.FromString(request.payload)
            own = [pb.Entry(key=entry.key, value=entry.value) for entry in request.entry]

            def seen():
                connection = [
                    pb.Entry(key=key, value=value)
                    for key, value in context.invocation_metadata()
                    if isinstance(value, str)
                ]
                own_facts = {
                    "strange": self.strange,
                    "id": request.message_seq_no,
                    "sent": self.sent,
                    "before-headers": self.before_headers,
                }
                connection += [pb.Entry(key=key, value=str(value)) for key, value in own_facts.items()]
                connection += [pb.Entry(key="answer", value=answer) for answer in self.answers]
                return pb.Seen(numbers=self.noted, metadata=own, connection=connection)

            beside(lambda: len(self.noted) >= inspect.noted, seen)
        elif method == "EndStream":
            out.put(pb.Failure.FromString(request.payload))
        elif method == "SendFrames":
            for frame in pb.Frames.FromString(request.payload).frames:
                out.put(frame)
        elif method == "SendHeaders":
            if not sending.is_set():
                self.before_headers = len(self.noted)
                context.send_initial_metadata(())
            sending.set()
        else:
            reply(code=12, text=f"no handler for {request.method}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--hold-headers", action="store_true", help="send nothing before `SendHeaders` comes")
    parser.add_argument("--silent", action="store_true", help="read all, and never send anything")
    parser.add_argument("--path", default="stream.Gorums/NodeStream", help="what to serve")
    arguments = parser.parse_args()

    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=64),
        options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)],
    )
    service, _, name = arguments.path.partition("/")
    handler = grpc.stream_stream_rpc_method_handler(
        Server(arguments).stream,
        request_deserializer=stream_pb2.Message.FromString,
        response_serializer=lambda frame: frame,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {name: handler})]
    )
    port = server.add_insecure_port(arguments.listen)
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    # Whoever started it closes this when it ends, however it ends.
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
