//! A small social feed: Ann follows Bob, Bob posts, Ann likes it, and reads it all back through another follower.
//!
//!     cargo run -p feed -- [FIRST_FOLLOWER [SECOND_FOLLOWER]]

use std::collections::BTreeMap;
use std::env;

use anyhow::{Context, Result};
use tao_client::v1::placement::Where;
use tao_client::v1::value::Kind;
use tao_client::v1::{
    AssocAddRequest, AssocCountRequest, AssocRangeRequest, Object, ObjectAddRequest, ObjectGetRequest, Placement, Value,
};
use tao_client::{Client, ClientOptions, Session};

fn data(field: &str, text: &str) -> BTreeMap<String, Value> {
    [(field.to_owned(), Value { kind: Some(Kind::StringValue(text.to_owned())) })].into()
}

fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    match object.data.get(field).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

async fn add(session: &Session, request: ObjectAddRequest) -> Result<i64> {
    let object = session.object_add(request).await?.object;
    Ok(object.context("an answer without the object")?.id)
}

async fn add_user(session: &Session, name: &str) -> Result<i64> {
    add(session, ObjectAddRequest { r#type: "user".into(), data: data("name", name), ..Default::default() }).await
}

/// Keeps the post on its author's shard, since they are read together. The client gives each write a key of its own, so that
/// it can repeat one whose answer was lost.
async fn add_post(session: &Session, author: i64, words: &str) -> Result<i64> {
    let near = Placement { r#where: Some(Where::Near(author)) };
    let request = ObjectAddRequest {
        r#type: "post".into(),
        data: data("text", words),
        placement: Some(near),
        ..Default::default()
    };
    let post = add(session, request).await?;
    link(session, author, "authored", post).await?;
    Ok(post)
}

/// Adds an edge, and with it the inverse that the schema says; answers with how many of the kind there are now.
async fn link(session: &Session, id1: i64, kind: &str, id2: i64) -> Result<i64> {
    let request = AssocAddRequest { id1, r#type: kind.into(), id2, ..Default::default() };
    Ok(session.assoc_add(request).await?.count)
}

async fn linked(session: &Session, id1: i64, kind: &str) -> Result<Vec<Object>> {
    let request = AssocRangeRequest { id1, r#type: kind.into(), limit: 10, with_objects: true, ..Default::default() };
    Ok(session.assoc_range(request).await?.objects)
}

async fn count(session: &Session, id1: i64, kind: &str) -> Result<i64> {
    Ok(session.assoc_count(AssocCountRequest { id1, r#type: kind.into(), options: None }).await?.count)
}

async fn print_feed(session: &Session, reader: i64) -> Result<()> {
    for author in linked(session, reader, "follows").await? {
        for post in linked(session, author.id, "authored").await? {
            let likes = count(session, post.id, "liked_by").await?;
            println!("  {}: {} (likes: {likes})", text(&author, "name"), text(&post, "text"));
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut addresses = env::args().skip(1);
    let one = addresses.next().unwrap_or_else(|| "127.0.0.1:50051".into());
    let two = addresses.next().unwrap_or_else(|| one.clone());

    // A session sees what it has done and what it has seen before; the client carries its token from answer to request.
    let session = Client::connect(&one, ClientOptions::default())?.session();
    let (ann, bob) = (add_user(&session, "Ann").await?, add_user(&session, "Bob").await?);
    println!("Ann follows Bob; follows: {}", link(&session, ann, "follows", bob).await?);
    let post = add_post(&session, bob, "Hello, graph").await?;
    println!("Ann likes Bob's post; likes: {}", link(&session, ann, "likes", post).await?);

    // With a client for all followers this is the client's business: here it is seen that any follower will do.
    println!("Ann's feed, through the other follower:");
    let other = Client::connect(&two, ClientOptions::default())?.session().with_token(&session.token());
    print_feed(&other, ann).await?;

    if let Err(error) = other.object_get(ObjectGetRequest { id: 0, options: None }).await {
        println!("Refused: {error}");
    }
    Ok(())
}
