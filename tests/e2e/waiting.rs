//! Servers that start before what they need, and the passwords that they need for it.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tao_harness::{Postgres, Process, Redis, TempDir, eventually};
use tao_proto::v1::*;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::cluster::{TAO, connect, ready, tier};

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);
const SECRET: &str = "s3cret-and-l0ng";

/// A server with variables of its own, and the addresses of its admin port and of gRPC.
fn server(args: &[&str], envs: &[(&str, &str)]) -> (Process, String, String) {
    let args = [args, &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]].concat();
    let mut process = Process::spawn(TAO, &args, envs).unwrap();
    let mut address = |line: &str| {
        let line = process.wait_line(line, WITHIN).unwrap();
        line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let (admin, grpc) = (address("listening for probes and metrics"), address("listening for gRPC"));
    (process, admin, grpc)
}

fn readyz(admin: &str) -> anyhow::Result<String> {
    let mut stream = std::net::TcpStream::connect(admin)?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Waits until an admin port's readiness contains a text.
fn says(admin: &str, what: &str) -> String {
    let probe = || {
        let text = readyz(admin)?;
        ensure!(text.contains(what), "{text}");
        Ok(text)
    };
    eventually(WITHIN, probe).context("readiness").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_shard_waits_for_its_database() {
    let mut postgres = Postgres::start().unwrap();
    let url = postgres.create_protected("tao", SECRET, "tao").unwrap();
    postgres.stop_immediate().unwrap();
    let envs = [("TAO_STORE", url.as_str()), ("PGPASSWORD", SECRET)];
    let (shard, admin, address) = server(&["shard"], &envs);
    let what = format!("waiting for PostgreSQL at 127.0.0.1:{}: ", postgres.port());
    let text = says(&admin, &what);
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("store: ") && text.contains("refused"), "{text}");
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(health, HealthCheckResponse { status: ServingStatus::NotServing.into() });
    // The tiers in front are told, and come back.
    let (_leader, leader) = tier(&["leader", "--shard", &address]);
    let (_follower, follower) = tier(&["follower", "--leader", &leader]);

    // One that is told to end while it waits does so, and that is no failure.
    let (mut other, other_admin, _) = server(&["shard"], &envs);
    says(&other_admin, &what);
    assert!(other.terminate().unwrap().success());

    postgres.start_again().unwrap();
    ready(&follower).await;
    assert!(says(&admin, "ready").starts_with("HTTP/1.1 200 "));
    let request = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    connect(&follower).await.object_add(request).await.expect("a write");
    for log in [shard.log().unwrap(), other.log().unwrap()] {
        assert!(log.contains(&what) && !log.contains(SECRET), "{log}");
    }
}

#[test]
fn a_storage_shard_that_may_not_log_in_says_so_and_ends() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_protected("tao", SECRET, "tao").unwrap();
    let wrong = "wr0ng-and-l0ng";
    let files = TempDir::new().unwrap();
    let file = files.join("pgpass");
    std::fs::write(&file, format!("*:*:*:tao:{wrong}\n")).unwrap();
    let file = file.to_string_lossy().into_owned();
    let in_url = url.replace("tao@", &format!("tao:{wrong}@"));
    for envs in [
        [("TAO_STORE", url.as_str()), ("PGPASSWORD", wrong)],
        [("TAO_STORE", url.as_str()), ("PGPASSFILE", file.as_str())],
        [("TAO_STORE", in_url.as_str()), ("NO_COLOR", "1")],
    ] {
        let args = ["shard", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut shard = Process::spawn(TAO, args, &envs).unwrap();
        assert_eq!(shard.wait(WITHIN).unwrap().code(), Some(1));
        let log = shard.log_tail();
        assert!(log.contains("password authentication failed") && !log.contains(wrong), "{log}");
    }
    // The same file with the right one.
    std::fs::write(&file, format!("*:*:*:tao:{SECRET}\n")).unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).unwrap();
    let (_shard, admin, _) = server(&["shard"], &[("TAO_STORE", &url), ("PGPASSFILE", &file)]);
    says(&admin, "ready\n");
}

#[test]
fn a_redis_password_comes_apart_from_its_url() {
    let redis = Redis::start_with(&[("requirepass", SECRET)]).unwrap();
    let url = redis.url();
    let follower = |password: &str| {
        let envs = [("TAO_REDIS", url.as_str()), ("TAO_REDIS_PASSWORD", password), ("TAO_LOG", "info,tao_cache=debug")];
        server(&["follower", "--leader", "127.0.0.1:1"], &envs).0
    };
    let mut right = follower(SECRET);
    right.wait_line("connected to Redis", WITHIN).unwrap();
    let mut wrong = follower("wr0ng-and-l0ng");
    wrong.wait_line("Redis can't be reached", WITHIN).unwrap();
    for log in [right.log().unwrap(), wrong.log().unwrap()] {
        assert!(!log.contains(SECRET) && !log.contains("wr0ng"), "{log}");
    }
    assert!(!wrong.log().unwrap().contains("connected to Redis"));
}
