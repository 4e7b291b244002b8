//! Tokens as attackers make them, and as honest issuers do, through what a follower asks.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair};
use serde_json::{Value, json};
use tao_access::{Access, AccessOptions, Caller, Expected, JwtOptions, KeySource, Peer, Standing};
use tao_harness::tokens::{AUDIENCE, ISSUER, base64, claims, claims_with, jwk_set, message, unix_now};
use tao_harness::{TempDir, TokenIssuer};
use tao_model::{Error, Result, Schema};
use tokio::time::Instant;

const POLICY: &str = r#"
[[grant]]
who = ["jwt:alice"]
write = ["post"]
[[grant]]
who = ["role:operators"]
admin = true
"#;

/// Rules in files of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(policy: &str, keys: &str) -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        files.write("policy.toml", policy);
        files.write("keys", keys);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).unwrap();
    }

    fn options(&self) -> AccessOptions {
        let expected = Expected {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            roles_claim: "realm.roles".to_owned(),
        };
        let keys = KeySource::File(self.folder.join("keys"));
        AccessOptions { policy: self.folder.join("policy.toml"), jwt: Some(JwtOptions { keys, expected }) }
    }

    fn access(&self) -> Access {
        Access::load(self.options(), Arc::new(Schema::social())).unwrap()
    }
}

fn ask(access: &Access, token: &str) -> Result<Arc<Caller>> {
    access.caller(&Peer::new(None, None), Some(format!("Bearer {token}").as_bytes()))
}

/// Why it is refused.
fn why(access: &Access, token: &str) -> String {
    match ask(access, token) {
        Err(Error::Unauthenticated { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_must_be_refused_is_refused() {
    let ours = TokenIssuer::new("one").unwrap();
    let theirs = TokenIssuer::new("one").unwrap();
    let other = TokenIssuer::new("two").unwrap();
    let access = Files::new(POLICY, &jwk_set(&[&ours])).access();
    let good = || claims("alice", &[]);
    let with = |name: &str, value: Value| ours.sign(&claims_with(good(), name, value));
    assert_eq!(ask(&access, &ours.sign(&good())).unwrap().name(), "jwt:https://issuer.test/alice");
    let unsigned = |alg: &str| format!("{}.", message(&json!({"alg": alg, "kid": "one"}), &good()));
    // The public key as the secret of an HMAC: the classic confusion.
    let hmac = |secret: &[u8]| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let text = message(&json!({"alg": "HS256", "kid": "one"}), &good());
        let signature = ring::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", base64(signature.as_ref()))
    };
    let signed = ours.sign(&good());
    let altered =
        signed.replace(signed.split('.').nth(1).unwrap(), &base64(claims("root", &[]).to_string().as_bytes()));
    let critical = ours.sign_with(&json!({"alg": "ES256", "kid": "one", "crit": ["x"], "x": 1}), &good());
    let embedded = other.sign_with(&json!({"alg": "ES256", "kid": "one", "jwk": other.jwk()}), &good());
    let now = unix_now();
    for (what, token, said) in [
        ("expired", with("exp", json!(now - 60)), "expired"),
        ("without an end", with("exp", Value::Null), "must have"),
        ("of an end that is text", with("exp", json!("never")), "must have"),
        ("not yet valid", with("nbf", json!(now + 600)), "not valid yet"),
        ("of a beginning that is text", with("nbf", json!("soon")), "must have"),
        ("of another issuer", with("iss", json!("https://elsewhere.test")), "`iss`"),
        ("of no issuer", with("iss", Value::Null), "must have"),
        ("for another audience", with("aud", json!(["other", "more"])), "`aud`"),
        ("for no audience", with("aud", Value::Null), "must have"),
        ("without a subject", with("sub", Value::Null), "must have"),
        ("of a subject that breaks lines", with("sub", json!("alice\nroot")), "must have"),
        ("of a long subject", with("sub", json!("a".repeat(257))), "must have"),
        ("re-signed by another key of the same name", theirs.sign(&good()), "signature"),
        ("of an unknown key", other.sign(&good()), "no key"),
        ("with a key of its own", embedded, "signature"),
        ("altered", altered, "signature"),
        ("unsigned", unsigned("none"), "algorithm"),
        ("unsigned, spelled otherwise", unsigned("NoNe"), "algorithm"),
        ("unsigned, with an algorithm", unsigned("ES256"), "signature"),
        ("of an HMAC by the key in PEM", hmac(ours.pem().as_bytes()), "no key"),
        ("of an HMAC by the key's set", hmac(jwk_set(&[&ours]).as_bytes()), "no key"),
        ("of another algorithm than the key's", ours.sign_with(&json!({"alg": "RS256"}), &good()), "no key"),
        ("with what must be understood", critical, "no JSON Web Token"),
        ("garbage", "a.b.c".to_owned(), "no JSON Web Token"),
        ("nothing", String::new(), "no JSON Web Token"),
        ("of three dots", format!("{signed}.x"), "no JSON Web Token"),
        ("too long", with("x", json!("x".repeat(9 * 1024))), "longer than"),
    ] {
        let why = why(&access, &token);
        assert!(why.contains(said), "a token {what}: {why}");
        assert!(token.is_empty() || !why.contains(&token), "it is repeated: {why}");
    }
    let basic = access.caller(&Peer::new(None, None), Some(b"Basic dXNlcjpwYXNz")).unwrap_err();
    assert!(!basic.to_string().contains("dXNl"), "{basic}");
    let nobody = access.caller(&Peer::new(None, None), None).unwrap_err();
    assert_eq!(nobody.reason(), "UNAUTHENTICATED");
}

#[test]
fn clocks_may_differ_a_little() {
    let ours = TokenIssuer::new("one").unwrap();
    let access = Files::new(POLICY, &jwk_set(&[&ours])).access();
    let now = unix_now();
    let with = |name: &str, value: Value| ours.sign(&claims_with(claims("alice", &[]), name, value));
    assert!(ask(&access, &with("exp", json!(now - 10))).is_ok());
    assert!(ask(&access, &with("nbf", json!(now + 10))).is_ok());
    assert!(ask(&access, &with("exp", json!(now as f64 + 0.5))).is_ok());
    assert!(ask(&access, &with("exp", json!(9_007_199_254_740_991_u64))).is_ok());
}

/// A key pair of RSA as PKCS #8, and its public half in PEM.
fn rsa(bits: u32) -> (Vec<u8>, String) {
    let folder = TempDir::new().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}"), "-out", "key.pem"]);
    let der = run(&["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER"]);
    let pem = String::from_utf8(run(&["pkey", "-in", "key.pem", "-pubout"])).unwrap();
    (der, pem)
}

fn rsa_token(key: &RsaKeyPair, alg: &str, by: &'static dyn RsaEncoding) -> String {
    let text = message(&json!({"alg": alg}), &claims("alice", &[]));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(by, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", base64(&signature))
}

#[test]
fn keys_of_every_kind_are_taken_and_each_for_its_own_algorithms() {
    let (der, pem) = rsa(2048);
    let key = RsaKeyPair::from_pkcs8(&der).unwrap();
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
    let in_set = |more: Value| {
        let mut jwk = json!({"kty": "RSA", "n": base64(&[&[0][..], &n].concat()), "e": base64(&e)});
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"keys": [jwk]}).to_string()
    };
    let pkcs1 = rsa_token(&key, "RS256", &RSA_PKCS1_SHA256);
    let pss = rsa_token(&key, "PS512", &RSA_PSS_SHA512);
    for keys in [pem.clone(), in_set(json!({}))] {
        let access = Files::new(POLICY, &keys).access();
        assert!(ask(&access, &pkcs1).is_ok() && ask(&access, &pss).is_ok());
        assert!(why(&access, &rsa_token(&key, "RS256", &RSA_PSS_SHA512)).contains("signature"));
    }
    let only_pss = Files::new(POLICY, &in_set(json!({"alg": "PS512"}))).access();
    assert!(ask(&only_pss, &pss).is_ok());
    assert!(why(&only_pss, &pkcs1).contains("no key"));

    let ed =
        Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()).unwrap();
    let text = message(&json!({"alg": "EdDSA"}), &claims("alice", &[]));
    let by_ed = format!("{text}.{}", base64(ed.sign(text.as_bytes()).as_ref()));
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": base64(ed.public_key().as_ref())});
    let ours = TokenIssuer::new("one").unwrap();
    let unknown = json!({"kty": "LATER", "kid": "x"});
    let secret_for_others = json!({"kty": "RSA", "use": "enc", "n": base64(&n), "e": base64(&e)});
    let mixed = json!({"keys": [jwk, ours.jwk(), unknown, secret_for_others]}).to_string();
    let access = Files::new(POLICY, &mixed).access();
    assert!(ask(&access, &by_ed).is_ok() && ask(&access, &ours.sign(&claims("alice", &[]))).is_ok());
    assert!(why(&access, &pkcs1).contains("no key"), "a key for encryption verifies nothing");
    // Several in PEM, which have no names.
    let access = Files::new(POLICY, &[pem, ours.pem(), TokenIssuer::new("x").unwrap().pem()].concat()).access();
    assert!(ask(&access, &pkcs1).is_ok() && ask(&access, &ours.sign(&claims("alice", &[]))).is_ok());
}

#[test]
fn keys_that_can_not_be_used_are_refused_at_the_start() {
    let (_, weak) = rsa(1024);
    let secret = json!({"keys": [{"kty": "oct", "k": base64(b"secret")}]}).to_string();
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n";
    for (keys, said) in [
        (weak.as_str(), "2048 bits"),
        (&secret, "secret"),
        (private, "private key"),
        ("", "no public key"),
        ("{\"keys\": []}", "no public key"),
        ("{", "no JWK set"),
    ] {
        let wrong = Access::load(Files::new("", keys).options(), Arc::new(Schema::social())).unwrap_err();
        assert!(wrong[0].0.contains(said) && !wrong[0].0.contains("MC4CAQ"), "{wrong:?}");
    }
    let mut options = Files::new("", "").options();
    options.policy = PathBuf::from("absent");
    let wrong = Access::load(options, Arc::new(Schema::social())).unwrap_err();
    assert_eq!(wrong.len(), 2, "both files are complained about: {wrong:?}");
}

#[test]
fn roles_are_a_claim_of_the_token() {
    let ours = TokenIssuer::new("one").unwrap();
    let access = Files::new(POLICY, &jwk_set(&[&ours])).access();
    let admin = |claim: &str, value: Value| {
        let token = ours.sign(&claims_with(claims("bob", &[]), claim, value));
        ask(&access, &token).unwrap().may_administer()
    };
    assert!(admin("realm", json!({"roles": ["x", "operators"]})).is_ok());
    assert!(admin("realm.roles", json!("x operators")).is_ok());
    assert!(admin("realm", json!({"roles": [["operators"], 7]})).is_err());
    let denied = admin("roles", json!(["operators"])).unwrap_err();
    assert!(denied.to_string().starts_with("jwt:https://issuer.test/bob may not"), "{denied}");
}

#[tokio::test(start_paused = true)]
async fn callers_of_streams_are_judged_again() {
    let (first, second) = (TokenIssuer::new("one").unwrap(), TokenIssuer::new("two").unwrap());
    let files = Files::new(POLICY, &jwk_set(&[&first, &second]));
    let access = files.access();
    let token = format!("Bearer {}", first.sign(&claims_with(claims("alice", &[]), "exp", json!(unix_now() + 100))));
    let begin = || Standing::begin(&access, Arc::new(Peer::new(None, None)), Some(token.as_bytes()));
    let mut standing = begin().unwrap();
    let schema = Schema::social();
    let post = schema.object_named("post").unwrap().number;
    assert!(standing.now(Instant::now()).unwrap().may_write_object(&schema, post).is_ok());

    // Other grants.
    files.write("policy.toml", "[[grant]]\nwho = [\"jwt:alice\"]\nread = [\"post\"]\n");
    access.look();
    let renewed = standing.renewed().await.unwrap();
    assert!(renewed.may_write_object(&schema, post).is_err() && renewed.may_read_object(&schema, "post").is_ok());
    // A file that is wrong changes nothing.
    files.write("policy.toml", "[[grant]]\nwho = [\"jwt:alice\"]\nread = [\"pots\"]\n");
    access.look();
    assert!(standing.now(Instant::now()).unwrap().may_read_object(&schema, "post").is_ok());
    // It ends.
    let later = Instant::now() + Duration::from_secs(140);
    assert!(standing.now(later).is_ok(), "by the wall clock, which has not been moved, it is good");

    // Its key is gone, and comes back.
    files.write("keys", &jwk_set(&[&second]));
    access.look();
    let gone = standing.renewed().await.unwrap_err();
    assert!(gone.to_string().contains("no key"), "{gone}");
    assert_eq!(standing.now(Instant::now()).unwrap_err(), gone);
    assert!(begin().is_err());
    files.write("keys", &jwk_set(&[&second, &first]));
    access.look();
    assert!(standing.now(Instant::now()).is_ok() && begin().is_ok());
}
