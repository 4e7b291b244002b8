//! Keys that an issuer serves over HTTPS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tao_access::{Access, AccessOptions, Expected, JwksUrl, JwtOptions, KeySource, Peer};
use tao_harness::tokens::{AUDIENCE, ISSUER, claims, jwk_set};
use tao_harness::{Authority, TempDir, TokenIssuer, eventually_async};
use tao_model::Schema;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Generous, since other suites run at the same time, and keys are fetched every ten seconds at most.
const WITHIN: Duration = Duration::from_secs(60);

/// An answer, status line and all, for each request. The address.
async fn serve(authority: &Authority, answer: Arc<Mutex<String>>) -> String {
    let issued = authority.issue(&["localhost"]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let answer = answer.lock().unwrap().clone();
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}/keys")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_are_fetched_and_fetched_again_when_a_token_names_another() {
    let (first, second) = (TokenIssuer::new("one").unwrap(), TokenIssuer::new("two").unwrap());
    let authority = Authority::new("issuer").unwrap();
    let answer = Arc::new(Mutex::new("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()));
    let url = serve(&authority, answer.clone()).await;
    let folder = TempDir::new().unwrap();
    let policy = folder.join("policy.toml");
    std::fs::write(&policy, "[[grant]]\nwho = [\"jwt:alice\"]\nread = [\"*\"]\n").unwrap();
    let ca = Some(authority.write(folder.path(), "ca").unwrap());
    let expected =
        Expected { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), roles_claim: "roles".to_owned() };
    let jwt = Some(JwtOptions { keys: KeySource::Url(JwksUrl { url, ca }), expected });
    let access = Access::load(AccessOptions { policy, jwt }, Arc::new(Schema::social())).unwrap();
    let ask = |issuer: &TokenIssuer| {
        let token = format!("Bearer {}", issuer.sign(&claims("alice", &[])));
        access.caller(&Peer::new(None, None), Some(token.as_bytes()))
    };
    let _following = access.follow();
    assert!(!access.has_keys() && ask(&first).unwrap_err().is_retryable(), "nobody is refused for good meanwhile");
    *answer.lock().unwrap() = ok(&jwk_set(&[&first]));
    tokio::time::timeout(WITHIN, access.keys_come()).await.unwrap();
    assert!(access.has_keys() && ask(&first).is_ok());

    *answer.lock().unwrap() = ok(&jwk_set(&[&first, &second]));
    let taken = eventually_async(WITHIN, async || {
        ensure!(ask(&second).is_ok(), "its key is not known yet");
        Ok(())
    });
    taken.await.unwrap();
    // What can't be used changes nothing.
    *answer.lock().unwrap() = ok("{\"keys\": []}");
    assert!(ask(&TokenIssuer::new("three").unwrap()).is_err() && ask(&first).is_ok());
}
