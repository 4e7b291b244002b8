//! A small social graph, so that the very first query returns something.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::value::Kind;
use tao_proto::v1::{AssocAddRequest, ObjectAddRequest, Value};
use tonic::transport::{Channel, Endpoint};

const USERS: [&str; 4] = ["Ann", "Bob", "Cleo", "Dan"];
/// Who follows whom, by place in `USERS`.
const FOLLOWS: [(usize, usize); 6] = [(0, 1), (2, 1), (3, 1), (1, 0), (3, 2), (0, 2)];
/// Who wrote what.
const POSTS: [(usize, &str); 3] = [(1, "Hello, graph"), (0, "First!"), (2, "A quiet day")];
/// Who likes which post, by place in `POSTS`.
const LIKES: [(usize, usize); 4] = [(0, 0), (2, 0), (3, 0), (1, 1)];

/// The ids of the sample, kept beside the database so that it is loaded once.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    users: BTreeMap<String, i64>,
    posts: Vec<i64>,
}

impl Sample {
    /// The first two users.
    pub fn users(&self) -> Option<(i64, i64)> {
        Some((*self.users.get(USERS[0])?, *self.users.get(USERS[1])?))
    }
}

/// Loads the sample, unless `file` says that it was loaded before.
pub async fn load(address: SocketAddr, file: &Path) -> Result<Sample> {
    if file.exists() {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        return serde_json::from_str(&text).with_context(|| format!("{} is not a sample's ids", file.display()));
    }
    let channel =
        Endpoint::from_shared(format!("http://{address}"))?.timeout(Duration::from_secs(10)).tcp_nodelay(true);
    let mut graph = GraphServiceClient::new(channel.connect().await?);
    let mut sample = Sample::default();
    let mut users = Vec::new();
    for name in USERS {
        let id = add(&mut graph, "user", "name", name).await?;
        sample.users.insert(name.to_owned(), id);
        users.push(id);
    }
    for (from, to) in FOLLOWS {
        link(&mut graph, users[from], "follows", users[to]).await?;
    }
    for (author, text) in POSTS {
        let post = add(&mut graph, "post", "text", text).await?;
        link(&mut graph, users[author], "authored", post).await?;
        sample.posts.push(post);
    }
    for (user, post) in LIKES {
        link(&mut graph, users[user], "likes", sample.posts[post]).await?;
    }
    std::fs::write(file, serde_json::to_vec_pretty(&sample)?)
        .with_context(|| format!("can't write {}", file.display()))?;
    Ok(sample)
}

async fn add(graph: &mut GraphServiceClient<Channel>, otype: &str, field: &str, text: &str) -> Result<i64> {
    let value = Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let data = BTreeMap::from([(field.to_owned(), value)]);
    let request = ObjectAddRequest { r#type: otype.to_owned(), data, ..Default::default() };
    match graph.object_add(request).await?.into_inner().object {
        Some(object) => Ok(object.id),
        None => bail!("an object was added without an answer"),
    }
}

async fn link(graph: &mut GraphServiceClient<Channel>, id1: i64, atype: &str, id2: i64) -> Result<()> {
    graph.assoc_add(AssocAddRequest { id1, r#type: atype.to_owned(), id2, ..Default::default() }).await?;
    Ok(())
}
