//! TCP_NODELAY, without which a call can wait 40 ms, as the client's own sockets say.

use tao_client::{Client, ClientOptions};
use tao_harness::tcp_ends;

use crate::scripted::{Scripted, get};

#[tokio::test]
async fn calls_leave_at_once() {
    let serving = Scripted::default().serve();
    let client = Client::connect(&serving.address, ClientOptions::default()).unwrap();
    client.session().object_get(get(1)).await.unwrap();
    let ends = tcp_ends(std::process::id()).unwrap();
    let ours: Vec<_> = ends.iter().filter(|end| end.peer.to_string() == serving.address).collect();
    assert!(!ours.is_empty() && ours.iter().all(|end| end.nodelay), "{ends:?}");
}
