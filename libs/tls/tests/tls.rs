//! Two ends of one connection: who is let in, who is refused and what it is told, and files that change meanwhile.

use std::io;
use std::path::PathBuf;

use tao_harness::{Authority, TempDir, eventually_async};
use tao_tls::{ClientCheck, ClientOptions, ClientTls, KeyPairFiles, PeerIdentity, ServerOptions, ServerTls, TlsError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

/// The files of a test: an authority, and what it has issued.
struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new("ours").unwrap());
        authority.write(folder.path(), "ca").unwrap();
        Self { folder, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn issue(&self, name: &str, names: &[&str]) -> KeyPairFiles {
        let (cert, key) = self.authority.issue(names).unwrap().write(self.folder.path(), name).unwrap();
        KeyPairFiles { cert, key }
    }

    fn server(&self, names: &[&str], is_required: bool) -> ServerTls {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let clients = Some(ClientCheck { ca: self.path("ca.crt"), names, is_required });
        ServerTls::load(ServerOptions { identity: self.issue("server", &["graph.test"]), clients }).unwrap()
    }

    fn client(&self, identity: Option<KeyPairFiles>) -> ClientTls {
        ClientTls::load(ClientOptions { ca: self.path("ca.crt"), identity, name: None }).unwrap()
    }
}

/// What the client gets to read of the server's `hello`, or its error; and whom the server took it for, or its error.
async fn meet(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (io::Result<String>, io::Result<Option<PeerIdentity>>) {
    let (near, far) = duplex(64 * 1024);
    let serving = async {
        let mut stream = server.accept(far).await?;
        let identity = ServerTls::identity(&stream);
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        Ok(identity)
    };
    let calling = async {
        let mut stream = client.connect(host, near).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    tokio::join!(calling, serving)
}

fn text<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn who_has_proved_its_name_is_known_by_it() {
    let files = Files::new();
    let server = files.server(&["app.test", "other.test"], true);
    let client = files.client(Some(files.issue("app", &["app.test", "spiffe://test/app"])));
    let (read, identity) = meet(&server, &client, "graph.test").await;
    assert_eq!(read.unwrap(), "hello");
    let identity = identity.unwrap().unwrap();
    assert_eq!((identity.dns, identity.uris), (vec!["app.test".to_owned()], vec!["spiffe://test/app".to_owned()]));
    // A full name is the same one.
    assert_eq!(meet(&server, &client, "graph.test.").await.0.unwrap(), "hello");
    assert!(server.is_mutual());
}

#[tokio::test]
async fn others_are_refused_and_told_why() {
    let files = Files::new();
    let server = files.server(&["app.test"], true);
    let theirs = Authority::new("theirs").unwrap().issue(&["app.test"]).unwrap();
    let (cert, key) = theirs.write(files.folder.path(), "theirs").unwrap();
    let (old_cert, old_key) =
        files.authority.issue_expired(&["app.test"]).unwrap().write(files.folder.path(), "old").unwrap();
    for (identity, alert) in [
        (None, "CertificateRequired"),
        (Some(KeyPairFiles { cert, key }), "UnknownCA"),
        (Some(KeyPairFiles { cert: old_cert, key: old_key }), "CertificateExpired"),
        (Some(files.issue("other", &["other.test"])), "AccessDenied"),
    ] {
        let (read, served) = meet(&server, &files.client(identity), "graph.test").await;
        let said = text(read);
        assert!(said.contains(alert), "{alert}: {said}");
        assert!(served.is_err());
    }
    // Where certificates are optional, a wrong one is still refused.
    let lenient = files.server(&["app.test"], false);
    assert!(!lenient.is_mutual());
    assert_eq!(meet(&lenient, &files.client(None), "graph.test").await.1.unwrap(), None);
    let other = files.client(Some(files.issue("other", &["other.test"])));
    assert!(text(meet(&lenient, &other, "graph.test").await.0).contains("AccessDenied"));
}

#[tokio::test]
async fn a_client_refuses_servers_too() {
    let files = Files::new();
    let server = files.server(&[], false);
    let client = files.client(None);
    assert!(text(meet(&server, &client, "else.test").await.0).contains("not valid for name"));
    let named = ClientOptions { ca: files.path("ca.crt"), identity: None, name: Some("graph.test".to_owned()) };
    assert_eq!(meet(&server, &ClientTls::load(named).unwrap(), "else.test").await.0.unwrap(), "hello");
    let ca = Authority::new("theirs").unwrap().write(files.folder.path(), "theirs-ca").unwrap();
    let stranger = ClientTls::load(ClientOptions { ca, identity: None, name: None }).unwrap();
    assert!(text(meet(&server, &stranger, "graph.test").await.0).contains("UnknownIssuer"));
}

#[tokio::test]
async fn changed_files_are_taken_for_new_connections() {
    let files = Files::new();
    let server = files.server(&[], true);
    let client = files.client(Some(files.issue("app", &["app.test"])));
    let _following = (server.follow_files(), client.follow_files());
    assert_eq!(meet(&server, &client, "graph.test").await.0.unwrap(), "hello");

    // Another authority, and all that it issues.
    let renewed = Authority::new("renewed").unwrap();
    renewed.issue(&["graph.test"]).unwrap().write(files.folder.path(), "server").unwrap();
    renewed.issue(&["app.test"]).unwrap().write(files.folder.path(), "app").unwrap();
    let app = KeyPairFiles { cert: files.path("app.crt"), key: files.path("app.key") };
    renewed.write(files.folder.path(), "ca").unwrap();
    let fresh = files.client(Some(app));
    let taken = eventually_async(std::time::Duration::from_secs(30), async || {
        Ok(meet(&server, &fresh, "graph.test").await.0.map(drop)?)
    });
    taken.await.unwrap();
    let taken = eventually_async(std::time::Duration::from_secs(30), async || {
        Ok(meet(&server, &client, "graph.test").await.0.map(drop)?)
    });
    taken.await.unwrap();
}

#[test]
fn everything_that_is_wrong_with_files_is_said_at_once_and_no_secret_with_it() {
    let files = Files::new();
    let identity = files.issue("server", &["graph.test"]);
    let other = files.issue("other", &["graph.test"]);
    std::fs::write(files.path("empty"), "SECRET").unwrap();
    let wrong = ServerOptions {
        identity: KeyPairFiles { cert: files.path("absent"), key: files.path("gone") },
        clients: Some(ClientCheck { ca: files.path("nowhere"), names: Vec::new(), is_required: true }),
    };
    assert_eq!(ServerTls::load(wrong).unwrap_err().len(), 3);
    let wrong = ServerOptions {
        identity: KeyPairFiles { cert: files.path("empty"), key: files.path("empty") },
        clients: Some(ClientCheck { ca: files.path("empty"), names: Vec::new(), is_required: true }),
    };
    let problems = ServerTls::load(wrong).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(!format!("{problems:?}").contains("SECRET"), "{problems:?}");
    let mixed = ServerOptions { identity: KeyPairFiles { key: other.key, ..identity.clone() }, clients: None };
    let problems = ServerTls::load(mixed).unwrap_err();
    assert!(matches!(&problems[..], [TlsError::Unusable { .. }]), "{problems:?}");
    let names = vec!["not a name".to_owned()];
    let named =
        ServerOptions { identity, clients: Some(ClientCheck { ca: files.path("ca.crt"), names, is_required: true }) };
    let problems = ServerTls::load(named).unwrap_err();
    assert!(matches!(&problems[..], [TlsError::Name(_)]), "{problems:?}");
}
