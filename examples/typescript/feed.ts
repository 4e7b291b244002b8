// A small social feed: Ann follows Bob, Bob posts, Ann likes it, and reads it all back through another follower.
//
//     node dist/feed.js [FIRST_FOLLOWER [SECOND_FOLLOWER]]

import { credentials, Metadata, type CallOptions, type ServiceError } from "@grpc/grpc-js";

import { type Object as GraphObject } from "./gen/tao/v1/graph.js";
import {
  AssocAddRequest,
  AssocCountRequest,
  AssocRangeRequest,
  GraphServiceClient,
  ObjectAddRequest,
  ObjectGetRequest,
} from "./gen/tao/v1/service.js";
import { type Value } from "./gen/tao/v1/value.js";

type Method<Request, Answer> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, answer: Answer) => void,
) => unknown;

/** Sees what it has done and what it has seen before, whichever follower it asks: it hands the token of each answer to the next request. */
class Session {
  constructor(
    private readonly graph: GraphServiceClient,
    private token = "",
  ) {}

  /** The same session, going on at another follower. */
  through(graph: GraphServiceClient): Session {
    return new Session(graph, this.token);
  }

  /** One call, which may take five seconds and must see what the session has seen. */
  private call<Request, Answer extends { sessionToken: string }>(
    method: Method<Request, Answer>,
    request: Request,
  ): Promise<Answer> {
    const metadata = new Metadata();
    if (this.token !== "") metadata.set("tao-session-token", this.token);
    return new Promise((resolve, reject) => {
      method.call(this.graph, request, metadata, { deadline: Date.now() + 5_000 }, (error, answer) => {
        if (error) return reject(error);
        this.token = answer.sessionToken;
        resolve(answer);
      });
    });
  }

  async addUser(name: string): Promise<bigint> {
    const request = ObjectAddRequest.fromPartial({ type: "user", data: { name: text(name) } });
    return (await this.call(this.graph.objectAdd, request)).object!.id;
  }

  /** Keeps the post on its author's shard, since they are read together. The key makes the call safe to repeat. */
  async addPost(author: bigint, words: string): Promise<bigint> {
    const request = ObjectAddRequest.fromPartial({
      type: "post",
      data: { text: text(words) },
      placement: { where: { $case: "near", value: author } },
      options: { idempotencyKey: `post-${author}-1` },
    });
    const post = (await this.call(this.graph.objectAdd, request)).object!.id;
    await this.link(author, "authored", post);
    return post;
  }

  /** Adds an edge, and with it the inverse that the schema says; resolves to how many of the kind there are now. */
  async link(id1: bigint, type: string, id2: bigint): Promise<bigint> {
    return (await this.call(this.graph.assocAdd, AssocAddRequest.fromPartial({ id1, type, id2 }))).count;
  }

  async linked(id1: bigint, type: string): Promise<GraphObject[]> {
    const request = AssocRangeRequest.fromPartial({ id1, type, limit: 10n, withObjects: true });
    return (await this.call(this.graph.assocRange, request)).objects;
  }

  async count(id1: bigint, type: string): Promise<bigint> {
    return (await this.call(this.graph.assocCount, AssocCountRequest.fromPartial({ id1, type }))).count;
  }

  async get(id: bigint): Promise<GraphObject> {
    return (await this.call(this.graph.objectGet, ObjectGetRequest.fromPartial({ id }))).object!;
  }

  async printFeed(reader: bigint): Promise<void> {
    for (const author of await this.linked(reader, "follows")) {
      for (const post of await this.linked(author.id, "authored")) {
        const likes = await this.count(post.id, "liked_by");
        console.log(`  ${textOf(author, "name")}: ${textOf(post, "text")} (likes: ${likes})`);
      }
    }
  }
}

function text(value: string): Value {
  return { kind: { $case: "stringValue", value } };
}

function textOf(object: GraphObject, field: string): string {
  const kind = object.data[field]?.kind;
  return kind?.$case === "stringValue" ? kind.value : "";
}

const [one = "127.0.0.1:50051", two = one] = process.argv.slice(2);
const first = new GraphServiceClient(one, credentials.createInsecure());
const second = new GraphServiceClient(two, credentials.createInsecure());

const session = new Session(first);
const ann = await session.addUser("Ann");
const bob = await session.addUser("Bob");
console.log(`Ann follows Bob; follows: ${await session.link(ann, "follows", bob)}`);
const post = await session.addPost(bob, "Hello, graph");
console.log(`Ann likes Bob's post; likes: ${await session.link(ann, "likes", post)}`);

console.log("Ann's feed, through the other follower:");
const other = session.through(second);
await other.printFeed(ann);

try {
  await other.get(0n);
} catch (error) {
  console.log("Refused:", (error as ServiceError).details);
}
first.close();
second.close();
