//! Tiers of other versions.

use std::time::Duration;

use tao_proto::internal::tier_service_client::TierServiceClient;
use tao_rpc::{PROTOCOL, ServerLimits};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::support::*;

fn metadata(protocol: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    if !protocol.is_empty() {
        metadata.insert("tao-protocol", protocol.parse().unwrap());
        metadata.insert("tao-version", "9.9.9".parse().unwrap());
    }
    metadata
}

#[tokio::test]
async fn a_server_takes_neighbours_and_refuses_strangers() {
    let server = Server::start(Handler::echo(), ServerLimits::default()).await;
    let mut client = TierServiceClient::connect(format!("http://{}", server.address)).await.unwrap();
    let (before, after) = ((PROTOCOL - 1).to_string(), (PROTOCOL + 1).to_string());
    for protocol in ["", &before, &PROTOCOL.to_string(), &after] {
        let exchange = Request::from_parts(metadata(protocol), tonic::Extensions::new(), futures::stream::empty());
        let answer = client.exchange(exchange).await.expect(protocol);
        assert_eq!(answer.metadata().get("tao-protocol").unwrap().to_str().unwrap(), PROTOCOL.to_string());
        let subscribe = Request::from_parts(metadata(protocol), tonic::Extensions::new(), listener("me"));
        let answer = client.subscribe(subscribe).await.expect(protocol);
        assert_eq!(answer.metadata().get("tao-protocol").unwrap().to_str().unwrap(), PROTOCOL.to_string());
    }
    let far = (PROTOCOL + 2).to_string();
    let exchange = Request::from_parts(metadata(&far), tonic::Extensions::new(), futures::stream::empty());
    let subscribe = Request::from_parts(metadata(&far), tonic::Extensions::new(), listener("me"));
    for status in [client.exchange(exchange).await.unwrap_err(), client.subscribe(subscribe).await.unwrap_err()] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        let names_both = [format!("tao 9.9.9 speaks protocol {far}"), format!("speaks protocol {PROTOCOL}")];
        assert!(names_both.iter().all(|name| status.message().contains(name)), "{status:?}");
    }
}

#[tokio::test]
async fn a_client_takes_silent_servers_and_refuses_strangers() {
    let mut silent = RawServer::start().await;
    let one = client(silent.address);
    one.wait_connected(Duration::from_secs(30)).await.expect("an older one");
    drop(silent.stream().await);

    let far = (PROTOCOL + 2).to_string();
    let stranger = RawServer::answering(metadata(&far)).await;
    let error = client(stranger.address).wait_connected(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("tao 9.9.9 speaks protocol {far}")), "{error}");
    let error = client(stranger.address).subscribe(listener("me")).await.err().expect("refused");
    assert!(error.to_string().contains(&format!("tao 9.9.9 speaks protocol {far}")), "{error}");
}
