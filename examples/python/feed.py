"""A small social feed: Ann follows Bob, Bob posts, Ann likes it, and reads it all back through another follower.

    python feed.py [FIRST_FOLLOWER [SECOND_FOLLOWER]]
"""

import sys
from pathlib import Path

import grpc

# Generated code imports by the protos' paths, from the folder that it was generated into.
sys.path.insert(0, str(Path(__file__).parent / "gen"))

from tao.v1 import graph_pb2, options_pb2, service_pb2, service_pb2_grpc, value_pb2  # noqa: E402


class Session:
    """Sees what it has done and what it has seen before, whichever follower it asks: it hands the token of each answer to
    the next request."""

    def __init__(self, graph: service_pb2_grpc.GraphServiceStub, token: str = "") -> None:
        self.graph = graph
        self.token = token

    def through(self, graph: service_pb2_grpc.GraphServiceStub) -> "Session":
        """The same session, going on at another follower."""
        return Session(graph, self.token)

    def call(self, method: grpc.UnaryUnaryMultiCallable, request):
        """One call, which may take five seconds and must see what the session has seen."""
        metadata = [("tao-session-token", self.token)] if self.token else []
        answer = method(request, timeout=5, metadata=metadata)
        self.token = answer.session_token
        return answer

    def add_user(self, name: str) -> int:
        request = service_pb2.ObjectAddRequest(type="user", data={"name": text(name)})
        return self.call(self.graph.ObjectAdd, request).object.id

    def add_post(self, author: int, words: str) -> int:
        """Keeps the post on its author's shard, since they are read together. The key makes the call safe to repeat."""
        request = service_pb2.ObjectAddRequest(
            type="post",
            data={"text": text(words)},
            placement=service_pb2.Placement(near=author),
            options=options_pb2.WriteOptions(idempotency_key=f"post-{author}-1"),
        )
        post = self.call(self.graph.ObjectAdd, request).object.id
        self.link(author, "authored", post)
        return post

    def link(self, id1: int, kind: str, id2: int) -> int:
        """Adds an edge, and with it the inverse that the schema says; returns how many of the kind there are now."""
        return self.call(self.graph.AssocAdd, service_pb2.AssocAddRequest(id1=id1, type=kind, id2=id2)).count

    def linked(self, id1: int, kind: str) -> list[graph_pb2.Object]:
        request = service_pb2.AssocRangeRequest(id1=id1, type=kind, limit=10, with_objects=True)
        return list(self.call(self.graph.AssocRange, request).objects)

    def count(self, id1: int, kind: str) -> int:
        return self.call(self.graph.AssocCount, service_pb2.AssocCountRequest(id1=id1, type=kind)).count

    def print_feed(self, reader: int) -> None:
        for author in self.linked(reader, "follows"):
            for post in self.linked(author.id, "authored"):
                name, words = author.data["name"].string_value, post.data["text"].string_value
                print(f"  {name}: {words} (likes: {self.count(post.id, 'liked_by')})")


def text(value: str) -> value_pb2.Value:
    return value_pb2.Value(string_value=value)


def main() -> None:
    addresses = [*sys.argv[1:], "127.0.0.1:50051"]
    with grpc.insecure_channel(addresses[0]) as one, grpc.insecure_channel(addresses[min(1, len(addresses) - 1)]) as two:
        first, second = service_pb2_grpc.GraphServiceStub(one), service_pb2_grpc.GraphServiceStub(two)

        session = Session(first)
        ann, bob = session.add_user("Ann"), session.add_user("Bob")
        print(f"Ann follows Bob; follows: {session.link(ann, 'follows', bob)}")
        post = session.add_post(bob, "Hello, graph")
        print(f"Ann likes Bob's post; likes: {session.link(ann, 'likes', post)}")

        print("Ann's feed, through the other follower:")
        other = session.through(second)
        other.print_feed(ann)

        try:
            other.call(second.ObjectGet, service_pb2.ObjectGetRequest(id=0))
        except grpc.RpcError as error:
            print("Refused:", error.details())


if __name__ == "__main__":
    main()
