//! `grpc.health.v1`.

use tao_runtime::{Readiness, ServeOptions, Workers, health_service};
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::service::*;

#[tokio::test]
async fn health_follows_the_readiness_and_watchers_do_not_hold_up_the_drain() {
    let readiness = Readiness::new();
    let gate = readiness.gate("store");
    let routes = Routes::new(health_service(readiness.clone(), &["test.Service"]));
    let server = Server::start(routes, Workers::inline(), ServeOptions::default()).await;
    let mut client = HealthClient::new(server.connect().await.unwrap());
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut watch = client.watch(of("test.Service")).await.unwrap().into_inner();
    for status in [ServingStatus::NotServing, ServingStatus::Serving, ServingStatus::NotServing] {
        assert_eq!(watch.message().await.unwrap().unwrap().status(), status);
        for service in ["", "test.Service"] {
            assert_eq!(client.check(of(service)).await.unwrap().into_inner().status(), status);
        }
        match status {
            ServingStatus::Serving => gate.not_ready("gone"),
            _ => gate.ready(),
        }
    }
    assert_eq!(client.check(of("x")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.watch(of("x")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    readiness.close();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    server.shutdown.trigger();
    server.task.await.unwrap().unwrap();
}
