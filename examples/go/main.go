// A small social feed: Ann follows Bob, Bob posts, Ann likes it, and reads it all back through another follower.
//
//	go run . [FIRST_FOLLOWER [SECOND_FOLLOWER]]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	taov1 "feed/gen/tao/v1"
)

// A session sees what it has done and what it has seen before, whichever follower it asks: it hands the token of each
// answer to the next request.
type session struct {
	graph taov1.GraphServiceClient
	token string
}

// through goes on with the same session at another follower.
func (s *session) through(graph taov1.GraphServiceClient) *session {
	return &session{graph: graph, token: s.token}
}

// A request's context: it may take five seconds, and must see what the session has seen.
func (s *session) context() (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if s.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "tao-session-token", s.token)
	}
	return context.WithTimeout(ctx, 5*time.Second)
}

type answer interface{ GetSessionToken() string }

// call makes one call of the session. (A method can't have type parameters.)
func call[Request any, Answer answer](
	s *session, method func(context.Context, Request, ...grpc.CallOption) (Answer, error), request Request,
) Answer {
	ctx, cancel := s.context()
	defer cancel()
	got, err := method(ctx, request)
	if err != nil {
		log.Fatal(err)
	}
	s.token = got.GetSessionToken()
	return got
}

func text(value string) *taov1.Value {
	return &taov1.Value{Kind: &taov1.Value_StringValue{StringValue: value}}
}

func (s *session) addUser(name string) int64 {
	return call(s, s.graph.ObjectAdd, &taov1.ObjectAddRequest{
		Type: "user", Data: map[string]*taov1.Value{"name": text(name)},
	}).Object.Id
}

// The post is kept on its author's shard: they are read together. The key makes the call safe to repeat.
func (s *session) addPost(author int64, words string) int64 {
	post := call(s, s.graph.ObjectAdd, &taov1.ObjectAddRequest{
		Type: "post", Data: map[string]*taov1.Value{"text": text(words)},
		Placement: &taov1.Placement{Where: &taov1.Placement_Near{Near: author}},
		Options:   &taov1.WriteOptions{IdempotencyKey: fmt.Sprintf("post-%d-1", author)},
	}).Object.Id
	s.link(author, "authored", post)
	return post
}

// link adds an edge, and with it the inverse that the schema says; the answer is how many of the kind there are now.
func (s *session) link(id1 int64, kind string, id2 int64) int64 {
	return call(s, s.graph.AssocAdd, &taov1.AssocAddRequest{Id1: id1, Type: kind, Id2: id2}).Count
}

func (s *session) linked(id1 int64, kind string) []*taov1.Object {
	return call(s, s.graph.AssocRange, &taov1.AssocRangeRequest{Id1: id1, Type: kind, Limit: 10, WithObjects: true}).Objects
}

func (s *session) count(id1 int64, kind string) int64 {
	return call(s, s.graph.AssocCount, &taov1.AssocCountRequest{Id1: id1, Type: kind}).Count
}

func (s *session) printFeed(reader int64) {
	for _, author := range s.linked(reader, "follows") {
		for _, post := range s.linked(author.Id, "authored") {
			fmt.Printf("  %s: %s (likes: %d)\n", author.Data["name"].GetStringValue(), post.Data["text"].GetStringValue(),
				s.count(post.Id, "liked_by"))
		}
	}
}

func connect(address string) taov1.GraphServiceClient {
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	return taov1.NewGraphServiceClient(channel)
}

func main() {
	addresses := append(os.Args[1:], "127.0.0.1:50051")
	first, second := connect(addresses[0]), connect(addresses[min(1, len(addresses)-1)])

	s := &session{graph: first}
	ann, bob := s.addUser("Ann"), s.addUser("Bob")
	fmt.Printf("Ann follows Bob; follows: %d\n", s.link(ann, "follows", bob))
	post := s.addPost(bob, "Hello, graph")
	fmt.Printf("Ann likes Bob's post; likes: %d\n", s.link(ann, "likes", post))

	fmt.Println("Ann's feed, through the other follower:")
	other := s.through(second)
	other.printFeed(ann)

	ctx, cancel := other.context()
	defer cancel()
	_, err := second.ObjectGet(ctx, &taov1.ObjectGetRequest{Id: 0})
	fmt.Println("Refused:", status.Convert(err).Message())
}
