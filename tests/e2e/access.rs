//! Tokens and grants: everything that must be refused is tried on real processes while honest load goes on, and what came of it is what
//! docs/security.md says.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tao_client::v1::{
    self, AllocateIdsRequest, AssocAddRequest, AssocChangeTypeRequest, AssocCountRequest, AssocRangeRequest, BatchItem,
    BatchRequest, ObjectAddRequest, ObjectDeleteRequest, ObjectGetRequest, ObjectMultiGetRequest, ObjectUpdateRequest,
    WatchRequest, WriteBatchItem, WriteBatchRequest, batch_item, batch_result, object_result, write_batch_item,
};
use tao_client::{BearerToken, Client, ClientError, ClientOptions, Session};
use tao_harness::tokens::{AUDIENCE, ISSUER, base64, claims, claims_with, jwk_set, message, unix_now};
use tao_harness::{Process, TempDir, TokenIssuer, eventually_async, grpcurl_output, http_ask, http_get};

use crate::cluster::{TAO, tier};
use crate::security::{Files, Load, judge, public_flags, run, write_and_read};

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

const POLICY: &str = r#"
[[grant]]
who = ["jwt:honest"]
write = ["*"]
[[grant]]
who = ["jwt:reader"]
read = ["user", "follows"]
[[grant]]
who = ["jwt:liker"]
read = ["likes"]
[[grant]]
who = ["role:writers"]
write = ["post", "likes"]
read = ["user"]
[[grant]]
who = ["role:operators"]
admin = true
"#;

/// A follower that judges its callers, with a leader and a storage shard behind it.
struct Judged {
    folder: TempDir,
    follower: Process,
    address: String,
    _behind: [Process; 2],
}

impl Judged {
    fn start(keys: &str) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.join("policy.toml"), POLICY).unwrap();
        std::fs::write(folder.join("keys.json"), keys).unwrap();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (shard, shard_address) = tier(&["shard", "--store", "memory:"]);
        let (leader, leader_address) = tier(&["leader", "--shard", &shard_address]);
        let (policy, keys) = (path("policy.toml"), path("keys.json"));
        let access = ["--access-policy", &policy, "--jwt-keys", &keys, "--audit-log", "writes"];
        let expected = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];
        let (follower, address) =
            tier(&[&["follower", "--leader", &leader_address], &access[..], &expected[..]].concat());
        Self { folder, follower, address, _behind: [leader, shard] }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    /// Where its admin port is.
    fn admin(&mut self) -> String {
        let line = self.follower.wait_line("listening for probes and metrics", WITHIN).unwrap();
        line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    }

    fn options(bearer: Option<BearerToken>) -> ClientOptions {
        ClientOptions { bearer, deadline: WITHIN, ..Default::default() }
    }

    /// Calls on a stream, or each by itself.
    fn session(&self, token: Option<&str>, pipeline: bool) -> Session {
        let bearer = token.map(|token| BearerToken::text(token).unwrap());
        let options = ClientOptions { pipeline, ..Self::options(bearer) };
        Client::connect(&self.address, options).unwrap().session()
    }
}

/// The code of a refusal, which is also its reason; OK when there was none.
fn code(result: Result<impl Sized, ClientError>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(error) => {
            let reason = error.reason().to_owned();
            let code = format!("{:?}", error.code());
            assert_eq!(code.to_uppercase(), reason.replace('_', ""), "{error}");
            assert!(error.is_not_applied() && !error.is_retryable(), "{error:?}");
            reason
        }
    }
}

/// What is there to be read and changed.
struct Graph {
    user: i64,
    post: i64,
}

async fn make(session: &Session) -> Graph {
    let add = async |otype: &str| {
        let request = ObjectAddRequest { r#type: otype.to_owned(), ..Default::default() };
        session.object_add(request).await.unwrap().object.unwrap().id
    };
    let graph = Graph { user: add("user").await, post: add("post").await };
    session.assoc_add(assoc(graph.user, "likes", graph.post)).await.unwrap();
    // They are in the follower's memory, from where most calls are answered.
    session.object_get(get(graph.user)).await.unwrap();
    session.object_get(get(graph.post)).await.unwrap();
    session.assoc_count(count(graph.user, "likes")).await.unwrap();
    graph
}

fn get(id: i64) -> ObjectGetRequest {
    ObjectGetRequest { id, options: None }
}

fn count(id1: i64, atype: &str) -> AssocCountRequest {
    AssocCountRequest { id1, r#type: atype.to_owned(), ..Default::default() }
}

fn assoc(id1: i64, atype: &str, id2: i64) -> AssocAddRequest {
    AssocAddRequest { id1, r#type: atype.to_owned(), id2, ..Default::default() }
}

fn add(otype: &str) -> ObjectAddRequest {
    ObjectAddRequest { r#type: otype.to_owned(), ..Default::default() }
}

fn update(id: i64) -> ObjectUpdateRequest {
    ObjectUpdateRequest { id, add: [("n".to_owned(), 1)].into(), ..Default::default() }
}

/// Tries what its caller may not do.
async fn overstep(what: &str, session: &Session, graph: &Graph) -> String {
    let Graph { user, post } = *graph;
    match what {
        "read an object of another type" => code(session.object_get(get(post)).await),
        "read it among others" => {
            let request = ObjectMultiGetRequest { ids: vec![user, post], options: None };
            let results = session.object_multi_get(request).await.unwrap().results;
            let [Some(object_result::Result::Object(_)), Some(object_result::Result::Error(error))] =
                [&results[0].result, &results[1].result]
            else {
                panic!("{results:?}")
            };
            error.reason.clone()
        }
        "count, or list, edges of another type" => {
            let range = AssocRangeRequest { id1: user, r#type: "likes".to_owned(), ..Default::default() };
            let listed = code(session.assoc_range(range).await);
            assert_eq!(listed, code(session.assoc_count(count(user, "likes")).await));
            listed
        }
        "list edges with objects of another type" => {
            let range =
                AssocRangeRequest { id1: user, r#type: "likes".to_owned(), with_objects: true, ..Default::default() };
            code(session.assoc_range(range).await)
        }
        "add an object of a type that may only be read" => code(session.object_add(add("user")).await),
        "change an object of another type" => code(session.object_update(update(user)).await),
        "delete an object of another type" => {
            code(session.object_delete(ObjectDeleteRequest { id: user, ..Default::default() }).await)
        }
        "add an edge of another type" => code(session.assoc_add(assoc(user, "follows", user)).await),
        "turn an edge into one of another type" => {
            let request = AssocChangeTypeRequest {
                id1: user,
                r#type: "likes".to_owned(),
                id2: post,
                new_type: "follows".to_owned(),
                ..Default::default()
            };
            code(session.assoc_change_type(request).await)
        }
        "an item of a batch" => {
            let items = [batch_item::Call::ObjectUpdate(update(post)), batch_item::Call::ObjectUpdate(update(user))];
            let items = items.into_iter().map(|call| BatchItem { call: Some(call) }).collect();
            let results = session.batch(BatchRequest { items, ..Default::default() }).await.unwrap().results;
            let [Some(batch_result::Result::ObjectUpdate(_)), Some(batch_result::Result::Error(error))] =
                [&results[0].result, &results[1].result]
            else {
                panic!("{results:?}")
            };
            error.reason.clone()
        }
        "a write of an atomic batch" => {
            let writes =
                [write_batch_item::Write::ObjectUpdate(update(post)), write_batch_item::Write::ObjectAdd(add("user"))];
            let writes = writes.into_iter().map(|write| WriteBatchItem { write: Some(write) }).collect();
            let refused = session.write_batch(WriteBatchRequest { writes, ..Default::default() }).await;
            assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("writes[1]")), "{refused:?}");
            code(refused)
        }
        "watch all types, or another" => {
            let of_type = WatchRequest { object_types: vec!["page".to_owned()], ..Default::default() };
            let watched = code(session.watch(of_type).begin().await);
            assert_eq!(watched, code(session.watch(WatchRequest::default()).begin().await));
            watched
        }
        "ask for ids without a grant to write" => code(session.allocate_ids(AllocateIdsRequest::default()).await),
        "anything, without any grant" => code(session.object_get(get(user)).await),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_refused_is_refused_while_honest_load_goes_on() {
    let (ours, theirs, unknown) =
        (TokenIssuer::new("one").unwrap(), TokenIssuer::new("one").unwrap(), TokenIssuer::new("two").unwrap());
    let keys = jwk_set(&[&ours]);
    let judged = Judged::start(&keys);
    let good = || claims("honest", &[]);
    let honest = ours.sign(&good());
    let load = Load::start(&judged.address, Judged::options(Some(BearerToken::text(&honest).unwrap())));
    load.goes_on().await;
    let graph = make(&judged.session(Some(&honest), true)).await;

    let with = |name: &str, value: Value| ours.sign(&claims_with(good(), name, value));
    let now = unix_now();
    let hmac = {
        let text = message(&json!({"alg": "HS256", "kid": "one"}), &good());
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, ours.pem().as_bytes());
        format!("{text}.{}", base64(ring::hmac::sign(&key, text.as_bytes()).as_ref()))
    };
    let tokens = [
        ("no token", None),
        ("garbage", Some("garbage".to_owned())),
        ("an expired token", Some(with("exp", json!(now - 60)))),
        ("a token that is not valid yet", Some(with("nbf", json!(now + 600)))),
        ("a token without an end", Some(with("exp", Value::Null))),
        ("a token re-signed by another key", Some(theirs.sign(&good()))),
        ("a token of an unknown key", Some(unknown.sign(&good()))),
        ("`alg: none`", Some(format!("{}.", message(&json!({"alg": "none"}), &good())))),
        ("HS256 with the public key as secret", Some(hmac)),
        ("a token of another issuer", Some(with("iss", json!("https://elsewhere.test")))),
        ("a token for another audience", Some(with("aud", json!("elsewhere")))),
        ("a token of 9 KiB", Some(with("x", json!("x".repeat(7 * 1024))))),
    ];
    let mut rows = Vec::new();
    for (what, token) in &tokens {
        let mut row = format!("| {what} |");
        for pipeline in [false, true] {
            let session = judged.session(token.as_deref(), pipeline);
            row.push_str(&format!(" {} |", code(session.object_get(get(graph.user)).await)));
        }
        let watched = judged.session(token.as_deref(), false).watch(WatchRequest::default()).begin().await;
        row.push_str(&format!(" {} |", code(watched)));
        rows.push(row);
    }
    assert!(tokens.iter().flat_map(|(_, token)| token).any(|token| (8_192..12_288).contains(&token.len())));

    let reader = ours.sign(&claims("reader", &[]));
    let liker = ours.sign(&claims("liker", &[]));
    let writer = ours.sign(&claims("someone", &["writers"]));
    let stranger = ours.sign(&claims("stranger", &[]));
    for (who, token, what) in [
        ("reader", &reader, "read an object of another type"),
        ("reader", &reader, "read it among others"),
        ("reader", &reader, "count, or list, edges of another type"),
        ("reader", &reader, "add an object of a type that may only be read"),
        ("reader", &reader, "ask for ids without a grant to write"),
        ("reader", &reader, "watch all types, or another"),
        ("liker", &liker, "list edges with objects of another type"),
        ("writer", &writer, "change an object of another type"),
        ("writer", &writer, "delete an object of another type"),
        ("writer", &writer, "add an edge of another type"),
        ("writer", &writer, "turn an edge into one of another type"),
        ("writer", &writer, "an item of a batch"),
        ("writer", &writer, "a write of an atomic batch"),
        ("stranger", &stranger, "anything, without any grant"),
    ] {
        let mut row = format!("| {who}: {what} |");
        for pipeline in [false, true] {
            row.push_str(&format!(" {} |", overstep(what, &judged.session(Some(token), pipeline), &graph).await));
        }
        rows.push(row);
    }

    // What they may, they may.
    for pipeline in [false, true] {
        let (reader, writer) = (judged.session(Some(&reader), pipeline), judged.session(Some(&writer), pipeline));
        reader.object_get(get(graph.user)).await.unwrap();
        reader.assoc_count(count(graph.user, "follows")).await.unwrap();
        let own = writer.object_add(add("post")).await.unwrap().object.unwrap().id;
        writer.object_update(update(own)).await.unwrap();
        writer.assoc_add(assoc(graph.user, "likes", own)).await.unwrap();
        let range =
            AssocRangeRequest { id1: graph.user, r#type: "likes".to_owned(), with_objects: true, ..Default::default() };
        assert!(writer.assoc_range(range).await.unwrap().objects.len() > 1);
        let both = [
            write_batch_item::Write::ObjectUpdate(update(own)),
            write_batch_item::Write::ObjectDelete(ObjectDeleteRequest { id: own, ..Default::default() }),
        ];
        let writes = both.into_iter().map(|write| WriteBatchItem { write: Some(write) }).collect();
        writer.write_batch(WriteBatchRequest { writes, ..Default::default() }).await.unwrap();
        let mut watch = reader.watch(WatchRequest { object_types: vec!["user".to_owned()], ..Default::default() });
        watch.begin().await.unwrap();
    }
    load.goes_on().await;
    let done = load.end().await;
    println!("honest load: {done} writes and reads, none failed");
    let log = judged.follower.log().unwrap();
    for token in tokens.iter().flat_map(|(_, token)| token).chain([&honest, &reader, &writer]) {
        assert!(token == "garbage" || !log.contains(token.as_str()), "a token is in the log");
    }
    judge(&rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_grants_and_tokens_change_while_a_follower_runs() {
    let (first, second) = (TokenIssuer::new("one").unwrap(), TokenIssuer::new("two").unwrap());
    let mut judged = Judged::start(&jwk_set(&[&first]));
    let file = judged.folder.join("token");
    // For three seconds more, since clocks may differ by thirty.
    let brief = || first.sign(&claims_with(claims("honest", &[]), "exp", json!(unix_now() - 27)));
    judged.write("token", &brief());
    let from_file = BearerToken::file(&file).unwrap();
    let session = Client::connect(&judged.address, Judged::options(Some(from_file))).unwrap().session();
    write_and_read(&session).await.unwrap();
    let mut watch = session.watch(WatchRequest::default());
    watch.begin().await.unwrap();

    // The token ends in the midst of the stream, and there is no other yet.
    let ended = eventually_async(WITHIN, async || {
        let ended = write_and_read(&session).await;
        ensure!(ended.is_err(), "it goes on");
        Ok(ended.unwrap_err())
    });
    let ended = ended.await.unwrap();
    assert!(ended.to_string().contains("expired") && ended.reason() == "UNAUTHENTICATED", "{ended}");
    // With a new one in its file both streams go on, without an error from there on.
    judged.write("token", &first.sign(&claims("honest", &[])));
    let added = session.object_add(add("page")).await.unwrap().object.unwrap();
    let seen = async {
        loop {
            let changes = watch.next().await?;
            if changes.iter().any(|change| change.kind == Some(v1::change::Kind::ObjectPut(added.clone()))) {
                return Ok::<_, ClientError>(());
            }
        }
    };
    tokio::time::timeout(WITHIN, seen).await.unwrap().unwrap();

    // Both keys for a while, then the second alone.
    judged.write("keys.json", &jwk_set(&[&first, &second]));
    judged.follower.wait_line("took new keys of tokens", WITHIN).unwrap();
    write_and_read(&session).await.unwrap();
    judged.write("token", &second.sign(&claims("honest", &[])));
    judged.write("keys.json", &jwk_set(&[&second]));
    let renewed = eventually_async(WITHIN, async || {
        let old = judged.session(Some(&first.sign(&claims("honest", &[]))), false);
        ensure!(write_and_read(&old).await.is_err(), "the old key is still taken");
        write_and_read(&session).await?;
        Ok(())
    });
    renewed.await.unwrap();

    // Wrong grants change nothing, right ones take hold on streams that there are.
    judged.write("policy.toml", &format!("{POLICY}[[grant]]\nwho = [\"jwt:x\"]\nread = [\"ghost\"]\n"));
    let line = judged.follower.wait_line("can't take new grants", WITHIN).unwrap();
    assert!(line.contains("the schema has no type") && line.contains("policy.toml:"), "{line}");
    write_and_read(&session).await.unwrap();
    judged.write("policy.toml", "[[grant]]\nwho = [\"jwt:honest\"]\nread = [\"user\"]\n");
    let denied = eventually_async(WITHIN, async || {
        let denied = write_and_read(&session).await;
        ensure!(denied.is_err(), "it may still write");
        Ok(denied.unwrap_err())
    });
    let denied = denied.await.unwrap();
    assert_eq!(denied.to_string(), "jwt:https://issuer.test/honest may not write objects of type user");
    let watched = eventually_async(WITHIN, async || {
        let ended = tokio::time::timeout(WITHIN, watch.next()).await?;
        ensure!(ended.is_err(), "it goes on");
        Ok(ended.unwrap_err())
    });
    assert!(watched.await.unwrap().to_string().contains("may not watch all types"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_logged_and_operators_are_asked_who_they_are() {
    let ours = TokenIssuer::new("one").unwrap();
    let mut judged = Judged::start(&jwk_set(&[&ours]));
    let writer = judged.session(Some(&ours.sign(&claims("someone", &["writers"]))), true);
    let post = writer.object_add(add("post")).await.unwrap().object.unwrap().id;
    let refused = writer.object_add(add("user")).await.unwrap_err();
    assert_eq!(refused.to_string(), "jwt:https://issuer.test/someone may not write objects of type user");
    let deleted = write_batch_item::Write::ObjectDelete(ObjectDeleteRequest { id: post, ..Default::default() });
    let writes = vec![WriteBatchItem { write: Some(deleted) }];
    writer.write_batch(WriteBatchRequest { writes, ..Default::default() }).await.unwrap();
    for parts in [
        &["ObjectAdd", "\"post\"", &format!("id={post}"), "code=\"OK\""][..],
        &["ObjectAdd", "\"user\"", "code=\"PERMISSION_DENIED\""],
        &["ObjectDelete", &format!("id={post}"), "item=0", "code=\"OK\""],
    ] {
        let log = judged.follower.log().unwrap();
        let mut lines = log.lines().filter(|line| line.contains("tao::audit"));
        let is_it = |line: &str| {
            line.contains("caller=\"jwt:https://issuer.test/someone\"") && parts.iter().all(|part| line.contains(part))
        };
        assert!(lines.any(is_it), "{parts:?} in {log}");
    }

    let admin = judged.admin();
    for open in ["/livez", "/readyz", "/metrics"] {
        http_get(&admin, open).unwrap();
    }
    assert!(http_get(&admin, "/metrics").unwrap().contains("access_refusals_total{reason=\"permission\"}"));
    let operator = ours.sign(&claims("root", &["operators"]));
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let audit = |headers: &str| http_ask("POST", &admin, "/audit?samples=1", headers);
    assert!(format!("{:#}", audit("").unwrap_err()).contains("401"));
    let denied = format!("{:#}", audit(&bearer(&ours.sign(&claims("reader", &[])))).unwrap_err());
    assert!(denied.contains("403") && denied.contains("may not administer"), "{denied}");
    audit(&bearer(&operator)).unwrap();
    assert!(format!("{:#}", http_get(&admin, "/debug/pprof/profile?seconds=1").unwrap_err()).contains("401"));

    // The commands say who calls, too.
    judged.write("token", &operator);
    let file = judged.folder.join("token");
    let tao = |args: &[&str], token: bool| {
        let mut command = Command::new(TAO);
        command.args(args);
        if token {
            command.env("TAO_TOKEN_FILE", &file);
        }
        command.output().unwrap()
    };
    let url = format!("http://{admin}");
    assert!(!tao(&["audit", "--admin", &url], false).status.success());
    assert!(tao(&["audit", "--admin", &url], true).status.success());
    let add = ["add", "user", "--address", &judged.address];
    let refused = tao(&add, false);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("nobody is known to ask"));
    let added = tao(&add, true);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));

    // Reflection is for those who are known, whatever they may do.
    let header = format!("authorization: Bearer {}", ours.sign(&claims("stranger", &[])));
    let plain = ["-plaintext", "-max-time", "20"];
    let known = grpcurl_output([&plain[..], &["-H", &header, &judged.address, "list"]].concat()).unwrap();
    assert!(String::from_utf8_lossy(&known.stdout).contains("tao.v1.GraphService"), "{known:?}");
    let unknown = grpcurl_output([&plain[..], &[&judged.address, "list"]].concat()).unwrap();
    assert!(!unknown.status.success(), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_have_grants_as_well() {
    let files = Files::new("ours");
    files.issue("public", &["localhost", "127.0.0.1"]);
    let policy = files.path("policy.toml");
    std::fs::write(&policy, "[[grant]]\nwho = [\"cert:spiffe://test/app\"]\nwrite = [\"user\"]\n").unwrap();
    let data = TempDir::new().unwrap();
    let data = data.path().to_string_lossy().into_owned();
    let access = vec!["--access-policy".to_owned(), policy];
    let (_dev, address) = run(&["dev", "--data", &data], &[public_flags(&files), access]);
    let session = |name: &str, names: &[&str]| {
        let tls = Some(files.client(Some(files.issue(name, names)), None));
        Client::connect(&address, ClientOptions { tls, deadline: WITHIN, ..Default::default() }).unwrap().session()
    };
    // By any of a certificate's names.
    let app = session("app", &["app.test", "spiffe://test/app"]);
    write_and_read(&app).await.unwrap();
    let denied = app.object_add(add("post")).await.unwrap_err();
    assert_eq!(denied.to_string(), "cert:app.test may not write objects of type post");
    let other = write_and_read(&session("other", &["other.test"])).await.unwrap_err();
    assert_eq!(other.to_string(), "cert:other.test may not write objects of type user");
}
