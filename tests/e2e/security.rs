//! TLS and identities: everything that must be refused is tried on real processes while honest load goes on, and what came of it is what
//! docs/security.md says.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tao_client::{Client, ClientError, ClientOptions, ClientTls, KeyPairFiles, TlsOptions};
use tao_harness::{
    Authority, Process, TempDir, eventually, eventually_async, grpcurl, grpcurl_output, http_get, repository,
};
use tao_model::{ClusterId, Token};
use tao_proto::v1::{ObjectAddRequest, ObjectGetRequest};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::{TAO, tier};

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);
/// How HTTP/2 begins: the client's preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Files of an authority and of what it has issued.
pub struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    pub fn new(authority: &str) -> Self {
        let files = Self { folder: TempDir::new().unwrap(), authority: Authority::new(authority).unwrap() };
        files.authority.write(files.folder.path(), "ca").unwrap();
        files
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    pub fn issue(&self, name: &str, names: &[&str]) -> KeyPairFiles {
        let (cert, key) = self.authority.issue(names).unwrap().write(self.folder.path(), name).unwrap();
        KeyPairFiles { cert, key }
    }

    /// A client that trusts ours.
    pub fn client(&self, identity: Option<KeyPairFiles>, name: Option<&str>) -> ClientTls {
        let ca = PathBuf::from(self.path("ca.crt"));
        ClientTls::load(TlsOptions { ca, identity, name: name.map(str::to_owned) }).unwrap()
    }
}

/// A tier's flags for TLS towards other tiers.
pub fn tier_flags(files: &Files) -> Vec<String> {
    let flags = [("--tls-cert", "tier.crt"), ("--tls-key", "tier.key"), ("--tls-ca", "ca.crt")];
    flags.into_iter().flat_map(|(flag, file)| [flag.to_owned(), files.path(file)]).collect()
}

pub fn public_flags(files: &Files) -> Vec<String> {
    let flags =
        [("--public-tls-cert", "public.crt"), ("--public-tls-key", "public.key"), ("--public-tls-client-ca", "ca.crt")];
    flags.into_iter().flat_map(|(flag, file)| [flag.to_owned(), files.path(file)]).collect()
}

pub fn run(args: &[&str], more: &[Vec<String>]) -> (Process, String) {
    let more: Vec<&str> = more.iter().flatten().map(String::as_str).collect();
    tier(&[args, &more].concat())
}

fn session(address: &str, tls: ClientTls, deadline: Duration) -> Result<tao_client::Session, ClientError> {
    Ok(Client::connect(address, ClientOptions { tls: Some(tls), deadline, ..Default::default() })?.session())
}

/// Adds an object and reads it.
pub async fn write_and_read(session: &tao_client::Session) -> Result<(), ClientError> {
    let added = session.object_add(ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() }).await?;
    let id = added.object.map_or(0, |object| object.id);
    session.object_get(ObjectGetRequest { id, options: None }).await.map(drop)
}

/// What becomes of HTTP/2 that begins on a connection.
async fn begin(mut io: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut answer = [0; 7];
    let begun = async {
        io.write_all(PREFACE).await?;
        io.read(&mut answer).await
    };
    match begun.await {
        Ok(0) => "closed".to_owned(),
        // Settings, for which HTTP/2 has the type 4.
        Ok(_) if answer[3] == 4 => "let in".to_owned(),
        // An alert in plain text, told to somebody who does not speak TLS.
        Ok(7) if answer[0] == 21 && answer[6] == 50 => "`decode_error`".to_owned(),
        Ok(_) => format!("answered {answer:?}"),
        Err(error) => alert(&error.to_string()),
    }
}

/// An alert, as RFC 8446 spells it.
fn alert(error: &str) -> String {
    let Some((_, name)) = error.split_once("received fatal alert: ") else { return error.to_owned() };
    let mut spelled = String::new();
    let mut was_low = false;
    for letter in name.chars() {
        if letter.is_uppercase() && was_low {
            spelled.push('_');
        }
        was_low = letter.is_lowercase();
        spelled.extend(letter.to_lowercase());
    }
    format!("`{spelled}`")
}

/// How a server takes a client of this TLS, or of none.
async fn knock(address: &str, tls: Option<&ClientTls>) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    match tls {
        None => begin(stream).await,
        Some(tls) => match tls.connect("localhost", stream).await {
            Ok(stream) => begin(stream).await,
            Err(error) => alert(&error.to_string()),
        },
    }
}

/// Honest clients, which come and go all the while.
pub struct Load {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<(), ClientError>>,
}

impl Load {
    /// Of clients with these options.
    pub fn start(address: &str, options: ClientOptions) -> Self {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let address = address.to_owned();
        let (counted, stopped) = (done.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let session = Client::connect(&address, options.clone())?.session();
                for _ in 0..10 {
                    write_and_read(&session).await?;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Self { done, stop, task }
    }

    /// Waits until it has done more.
    pub async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        let more = eventually_async(WITHIN, async || {
            ensure!(!self.task.is_finished(), "it has ended");
            ensure!(self.done.load(Ordering::Relaxed) > before + 20, "it stands still");
            Ok(())
        });
        more.await.unwrap();
    }

    /// Ends it; how much it has done, all of which was answered.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap().unwrap();
        self.done.load(Ordering::Relaxed)
    }
}

/// Prints what came of the attempts, and holds docs/security.md to it.
pub fn judge(rows: &[String]) {
    let text = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    rows.iter().for_each(|row| println!("{row}"));
    let missing: Vec<_> = rows.iter().filter(|row| !text.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/security.md does not say {missing:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_refused_is_refused_while_honest_load_goes_on() {
    let files = Files::new("ours");
    files.issue("tier", &["tao-tier"]);
    files.issue("public", &["localhost", "127.0.0.1"]);
    let app = files.issue("app", &["app.test"]);
    let hidden = vec!["--reflection".to_owned(), "false".to_owned()];
    let named = vec!["--public-tls-client-name".to_owned(), "app.test".to_owned()];
    let (_shard, shard) = run(&["shard", "--store", "memory:"], &[tier_flags(&files), hidden.clone()]);
    let (_leader, leader) = run(&["leader", "--shard", &shard], &[tier_flags(&files), hidden.clone()]);
    let flags = [tier_flags(&files), public_flags(&files), hidden, named];
    let (_follower, follower) = run(&["follower", "--leader", &leader], &flags);
    let ours = files.client(Some(app.clone()), None);
    let load =
        Load::start(&follower, ClientOptions { tls: Some(ours.clone()), deadline: WITHIN, ..Default::default() });
    load.goes_on().await;

    let theirs = Authority::new("theirs").unwrap();
    let foreign = |names: &[&str]| {
        let (cert, key) = theirs.issue(names).unwrap().write(files.folder.path(), "foreign").unwrap();
        KeyPairFiles { cert, key }
    };
    let expired = |names: &[&str]| {
        let (cert, key) = files.authority.issue_expired(names).unwrap().write(files.folder.path(), "expired").unwrap();
        KeyPairFiles { cert, key }
    };
    let mut rows = Vec::new();
    let ports =
        [(&follower, "localhost", "app.test"), (&leader, "tao-tier", "tao-tier"), (&shard, "tao-tier", "tao-tier")];
    for what in [
        "plain text",
        "no certificate",
        "another authority's certificate",
        "an expired certificate",
        "a certificate of another name",
        "a client's certificate",
        "a tier's certificate",
    ] {
        let mut row = format!("| {what} |");
        for (address, server, right) in ports {
            let identity = match what {
                "another authority's certificate" => Some(foreign(&[right])),
                "an expired certificate" => Some(expired(&[right])),
                "a certificate of another name" => Some(files.issue("other", &["other.test"])),
                "a client's certificate" => Some(app.clone()),
                "a tier's certificate" => Some(files.issue("another-tier", &["tao-tier"])),
                _ => None,
            };
            let tls = (what != "plain text").then(|| files.client(identity, Some(server)));
            row.push_str(&format!(" {} |", knock(address, tls.as_ref()).await));
        }
        rows.push(row);
    }

    // With the right certificate, what is not for clients is refused all the same. By a TLS that is not ours, too.
    let (ca, cert, key) = (files.path("ca.crt"), files.path("app.crt"), files.path("app.key"));
    let protos = repository().join("proto").to_string_lossy().into_owned();
    let secure = ["-max-time", "20", "-cacert", &ca, "-cert", &cert, "-key", &key];
    let ask = |args: &[&str]| {
        let output = grpcurl_output([&secure, args].concat()).unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let internal = ["-import-path", &protos, "-proto", "tao/internal/v1/tier.proto", "-d", "{}", &follower];
    let said = ask(&[&internal[..], &["tao.internal.v1.TierService/Subscribe"]].concat());
    assert!(said.contains("Code: Unimplemented"), "{said}");
    rows.push("| the internal service, asked for at the public port | UNIMPLEMENTED |".to_owned());
    let said = ask(&[&follower, "list"]);
    assert!(said.contains("does not support the reflection API"), "{said}");
    rows.push("| reflection, where it is switched off | UNIMPLEMENTED |".to_owned());
    let public = ["-import-path", &protos, "-proto", "tao/v1/service.proto", "-d", r#"{"type": "user"}"#, &follower];
    let args = [&secure, &public[..], &["tao.v1.GraphService/ObjectAdd"]].concat();
    assert!(grpcurl(args).unwrap().contains("\"sessionToken\""));

    let token = Token::new(ClusterId([9; 16])).encode();
    let stranger = session(&follower, ours.clone(), WITHIN).unwrap().with_token(&token);
    let refused = write_and_read(&stranger).await.unwrap_err();
    let code = format!("{:?}", refused.code());
    assert_eq!((code.as_str(), refused.reason()), ("FailedPrecondition", "TOKEN_OTHER_CLUSTER"));
    rows.push("| a session token of another cluster | FAILED_PRECONDITION, `TOKEN_OTHER_CLUSTER` |".to_owned());

    // Servers that are none of ours are refused by those who call them.
    let foreign_ca = theirs.write(files.folder.path(), "foreign-ca").unwrap();
    let trusts_others = TlsOptions { ca: foreign_ca, identity: Some(app.clone()), name: None };
    let trusts_others = ClientTls::load(trusts_others).unwrap();
    for (what, tls, why) in [
        ("a follower of another authority", trusts_others, "UnknownIssuer"),
        ("a follower of another name", files.client(Some(app.clone()), Some("elsewhere.test")), "not valid for name"),
    ] {
        let refused = write_and_read(&session(&follower, tls, Duration::from_secs(2)).unwrap()).await.unwrap_err();
        assert!(refused.is_not_applied() && refused.to_string().contains(why), "{what}: {refused}");
        rows.push(format!("| {what}, met by a client | UNAVAILABLE, `{why}` |"));
    }
    let (mut lost, _) = run(&["leader", "--shard", &follower], &[tier_flags(&files)]);
    let line = lost.wait_line("listening for probes and metrics", WITHIN).unwrap();
    let admin = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let says = eventually(WITHIN, || {
        let said = format!("{:#}", http_get(&admin, "/readyz").err().context("ready")?);
        ensure!(said.contains("not valid for name"), "{said}");
        Ok(())
    });
    says.unwrap();
    rows.push("| a server without a tier's name, met by a tier | not ready: `not valid for name` |".to_owned());

    load.goes_on().await;
    let done = load.end().await;
    println!("honest load: {done} writes and reads, none failed");
    judge(&rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_are_exchanged_while_a_server_runs() {
    let files = Files::new("ours");
    files.issue("public", &["localhost", "127.0.0.1"]);
    let data = TempDir::new().unwrap();
    let data = data.path().to_string_lossy().into_owned();
    let (mut dev, address) = run(&["dev", "--data", &data], &[public_flags(&files)]);
    let app = files.issue("app", &["app.test"]);
    let before = files.client(Some(app), None);
    let session_before = session(&address, before.clone(), WITHIN).unwrap();
    write_and_read(&session_before).await.unwrap();

    // A wrong file is complained about, and nothing else.
    std::fs::write(files.path("public.key"), "nothing that is a key").unwrap();
    let line = dev.wait_line("can't take new certificates", WITHIN).unwrap();
    assert!(line.contains("public.key has no private key") && !line.contains("nothing that is"), "{line}");
    assert_eq!(knock(&address, Some(&before)).await, "let in");

    let renewed = Files::new("renewed");
    let app = renewed.issue("app", &["app.test"]);
    renewed.authority.issue(&["localhost", "127.0.0.1"]).unwrap().write(files.folder.path(), "public").unwrap();
    let after = renewed.client(Some(app), None);
    std::fs::copy(renewed.path("ca.crt"), files.path("ca.crt")).unwrap();
    let taken = eventually_async(WITHIN, async || {
        let came = knock(&address, Some(&after)).await;
        ensure!(came == "let in", "{came}");
        Ok(())
    });
    taken.await.unwrap();
    write_and_read(&session(&address, after, WITHIN).unwrap()).await.unwrap();
    // Whom the server does not trust any more can't connect anew; what was connected goes on.
    let (cert, key) = (files.path("app.crt").into(), files.path("app.key").into());
    let left = TlsOptions { ca: renewed.path("ca.crt").into(), identity: Some(KeyPairFiles { cert, key }), name: None };
    assert_eq!(knock(&address, Some(&ClientTls::load(left).unwrap())).await, "`unknown_ca`");
    write_and_read(&session_before).await.unwrap();
    assert!(dev.terminate().unwrap().success());
}

#[test]
fn dev_is_open_on_loopback_only_unless_told_so() {
    let files = Files::new("ours");
    files.issue("public", &["localhost"]);
    let data = TempDir::new().unwrap();
    let data = data.path().to_string_lossy().into_owned();
    let begin = |args: &[&str], more: &[Vec<String>]| {
        let more: Vec<&str> = more.iter().flatten().map(String::as_str).collect();
        let args = [&["dev", "--data", &data, "--no-sample"], args, &more].concat();
        Process::spawn(TAO, args, &[]).unwrap()
    };
    let policy = files.path("policy.toml");
    std::fs::write(&policy, "[[grant]]\nwho = [\"jwt:x\"]\nread = [\"*\"]\n").unwrap();
    let local = ["--admin-listen", "127.0.0.1:0"];
    let open = ["--listen", "0.0.0.0:0"];
    let optional = vec!["--public-tls-clients".to_owned(), "optional".to_owned()];
    for (args, more) in [
        ([&open[..], &local].concat(), vec![]),
        ([&open[..], &local].concat(), vec![public_flags(&files), optional]),
        (vec!["--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"], vec![]),
    ] {
        let mut process = begin(&args, &more);
        assert_eq!(process.wait(WITHIN).unwrap().code(), Some(1), "{args:?}");
        let said = process.log().unwrap();
        assert!(said.contains("is not on loopback") && said.contains("--insecure-anyone-may-connect"), "{said}");
    }
    for (args, more) in [
        ([&open[..], &local, &["--insecure-anyone-may-connect"]].concat(), vec![]),
        ([&open[..], &local].concat(), vec![public_flags(&files)]),
        ([&open[..], &local, &["--access-policy", &policy]].concat(), vec![]),
    ] {
        let mut process = begin(&args, &more);
        process.wait_line("listening for gRPC tier=\"follower\"", WITHIN).unwrap();
        assert!(process.terminate().unwrap().success());
    }
}

#[test]
fn no_secret_is_shown_by_help_or_in_errors() {
    const SECRET: &str = "kept-to-ourselves";
    let store = format!("postgres://tao:{SECRET}@127.0.0.1:9/tao");
    let redis = format!("redis://:{SECRET}@127.0.0.1:9");
    let envs =
        [("TAO_STORE", store.as_str()), ("TAO_REDIS", &redis), ("TAO_REDIS_PASSWORD", SECRET), ("PGPASSWORD", SECRET)];
    let run = |args: &[&str]| {
        let output = Command::new(TAO).args(args).envs(envs).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    for args in [
        &["--help"][..],
        &["shard", "--help"],
        &["leader", "--help"],
        &["follower", "--help"],
        &["dev", "--help"],
        &["get", "--help"],
        // Both passwords of Redis are given, which is an error.
        &["follower", "--listen", "127.0.0.1:0"],
        &["shard", "--shards", "0"],
    ] {
        let said = run(args);
        assert!(!said.contains(SECRET) && said.len() > 50, "{args:?}: {said}");
    }
}
