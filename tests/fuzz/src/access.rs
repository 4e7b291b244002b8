//! What says who a caller is, and what it may do.

use std::sync::OnceLock;

use tao_access::Expected;
use tao_access::fuzz::{self, Verifier};
use tao_model::Schema;

/// A public key, whose other half was thrown away when [`TOKEN`] was signed with it.
const KEYS: &str = concat!(
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"fuzz","#,
    r#""x":"eGZKFQXCZYSQvnWyQD_F9Z7ppL-LKaMWfkZHhADdXj8"}]}"#
);
/// Its header and its claims, good until 2100; and the signature of both.
const TOKEN: [&str; 2] = [
    concat!(
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImZ1enoifQ",
        ".eyJpc3MiOiJpIiwiYXVkIjoidGFvIiwic3ViIjoicyIsImV4cCI6NDEwMjQ0",
        "NDgwMCwicm9sZXMiOlsiciJdfQ"
    ),
    concat!("IzK0vDTx2XM0Pc4iANZ5uLN5mVYKtZdMsRqcZ0--xwGRNfVbFnvkQPDePkf9", "8Tcc4z5Mu3Ka1vQQcWcFPZ6-Cw"),
];

/// Nothing but that one token is taken, whatever its signature looks like.
pub fn bearer(raw: &[u8]) -> bool {
    static VERIFIER: OnceLock<Option<Verifier>> = OnceLock::new();
    let expected = Expected { issuer: "i".to_owned(), audience: "tao".to_owned(), roles_claim: "roles".to_owned() };
    let verifier = VERIFIER.get_or_init(|| Verifier::new(KEYS.as_bytes(), expected));
    let takes = verifier.as_ref().is_some_and(|verifier| verifier.takes(raw));
    assert!(!takes || raw.starts_with(TOKEN[0].as_bytes()), "something else is taken for what was signed");
    takes
}

pub fn bearer_seeds() -> Vec<Vec<u8>> {
    vec![TOKEN.join(".").into_bytes(), b"eyJhbGciOiJub25lIn0.e30.".to_vec()]
}

pub fn keys(raw: &[u8]) -> bool {
    fuzz::keys(raw)
}

pub fn key_seeds() -> Vec<Vec<u8>> {
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAeGZKFQXCZYSQvnWyQD/F9Z7ppL+LKaMWfkZHhADdXj8=\n-----END PUBLIC KEY-----\n";
    vec![KEYS.as_bytes().to_vec(), pem.as_bytes().to_vec()]
}

pub fn policy(raw: &[u8]) -> bool {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    std::str::from_utf8(raw).is_ok_and(|text| fuzz::policy(text, SCHEMA.get_or_init(Schema::social)))
}

pub fn policy_seeds() -> Vec<Vec<u8>> {
    let text = "[[grant]]\nwho = [\"role:reader\", \"cert:app.example\"]\nread = [\"*\"]\n\n\
        [[grant]]\nwho = [\"jwt:writer\"]\nwrite = [\"user\", \"follows\"]\nadmin = true\n";
    vec![text.as_bytes().to_vec()]
}
