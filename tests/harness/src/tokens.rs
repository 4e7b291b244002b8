//! Issuers of signed tokens, good and bad ones.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// Who their tokens say they are from.
pub const ISSUER: &str = "https://issuer.test";
/// Whom they are for.
pub const AUDIENCE: &str = "tao";

/// What an encoded public key of P-256 begins with: its algorithm (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An issuer of a test's own, with a key of P-256.
pub struct TokenIssuer {
    kid: String,
    key: EcdsaKeyPair,
}

impl TokenIssuer {
    /// With a new key of this name.
    pub fn new(kid: &str) -> Result<Self> {
        let random = SystemRandom::new();
        let wrong = |error| anyhow!("no key: {error}");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(wrong)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Ok(Self { kid: kid.to_owned(), key: key.map_err(|error| anyhow!("no key: {error}"))? })
    }

    /// Its key, as JWK sets have it.
    pub fn jwk(&self) -> Value {
        // One byte says that both coordinates follow.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": base64(x), "y": base64(y)})
    }

    /// Its key, in PEM.
    pub fn pem(&self) -> String {
        let der = [&P256, self.key.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// A token of these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": "ES256", "typ": "JWT", "kid": self.kid}), claims)
    }

    /// With a header of the test's own.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("the system has random numbers");
        format!("{message}.{}", base64(signature.as_ref()))
    }
}

/// What is signed of a token.
pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()))
}

/// As tokens are encoded.
pub fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Good claims of this subject, for an hour.
pub fn claims(subject: &str, roles: &[&str]) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "roles": roles, "exp": unix_now() + 3_600})
}

/// The same with one claim set, or none of it where the value is null.
pub fn claims_with(mut claims: Value, name: &str, value: Value) -> Value {
    if let Some(map) = claims.as_object_mut() {
        map.remove(name);
        if !value.is_null() {
            map.insert(name.to_owned(), value);
        }
    }
    claims
}

/// A JWK set.
pub fn jwk_set(issuers: &[&TokenIssuer]) -> String {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
