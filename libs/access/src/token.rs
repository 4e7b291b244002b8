//! Signed bearer tokens: JSON Web Tokens (RFC 7519), taken only in the ways that RFC 8725 calls safe.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::{Error as Wrong, ErrorKind};
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::keys::Keys;

/// Bytes of a token; longer ones are not looked at.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Bytes of a subject, and of a role: they are in logs.
const MAX_NAME: usize = 256;
/// Seconds that clocks may differ by.
const LEEWAY: u64 = 30;

/// What a token must say beside its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its `iss`.
    pub issuer: String,
    /// One of its `aud`.
    pub audience: String,
    /// The claim that has its roles, or a path to it with dots.
    pub roles_claim: String,
}

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its `sub`.
    pub subject: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// For so long it is good, from now.
    pub lasts: Duration,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not looked at.
    #[error("it is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not a token, or one without an algorithm that is taken.
    #[error("it is no JSON Web Token, or its algorithm is none that is known")]
    Malformed,
    /// Signed in a way, or with a key, that is not taken.
    #[error("no key that is known here goes with its algorithm and its `kid`")]
    UnknownKey,
    /// Not signed by the key that it names.
    #[error("its signature is wrong")]
    Signature,
    /// Over.
    #[error("it has expired")]
    Expired,
    /// Not yet.
    #[error("it is not valid yet")]
    NotYet,
    /// Of somebody else.
    #[error("its `iss` is not the issuer that is trusted here")]
    Issuer,
    /// For somebody else.
    #[error("its `aud` is not this cluster")]
    Audience,
    /// Says too little, or what can't be used.
    #[error("it must have `exp`, `iss`, `aud` and `sub`, and plain names of up to {MAX_NAME} bytes")]
    Claims,
}

impl Refusal {
    /// As a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
        }
    }
}

/// Verifies a token.
pub fn verify(keys: &Keys, expected: &Expected, token: &[u8]) -> Result<Verified, Refusal> {
    if token.len() > MAX_TOKEN {
        return Err(Refusal::TooLong);
    }
    let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
    let mut refused = Refusal::UnknownKey;
    for key in keys.candidates(header.kid.as_deref(), header.alg) {
        let mut validation = Validation::new(header.alg);
        // Those of the key, and not what the token would like.
        validation.algorithms.clone_from(&key.algorithms);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&expected.issuer]);
        validation.set_audience(&[&expected.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(good) => return said(&good.claims, expected),
            Err(wrong) => refused = refusal(&wrong),
        }
        if refused != Refusal::Signature {
            break;
        }
    }
    Err(refused)
}

fn refusal(wrong: &Wrong) -> Refusal {
    match wrong.kind() {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => Refusal::NotYet,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidAlgorithm => Refusal::UnknownKey,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Refusal::Claims,
        // Of the library's own list, which grows.
        _ => Refusal::Malformed,
    }
}

fn said(claims: &Map<String, Value>, expected: &Expected) -> Result<Verified, Refusal> {
    let subject = claims.get("sub").and_then(Value::as_str).filter(|name| is_plain(name)).ok_or(Refusal::Claims)?;
    let expires = claims.get("exp").and_then(Value::as_f64).ok_or(Refusal::Claims)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let lasts = (expires + LEEWAY as f64 - now).clamp(0.0, 366.0 * 86_400.0);
    let roles = roles(claims, &expected.roles_claim);
    Ok(Verified { subject: subject.to_owned(), roles, lasts: Duration::from_secs_f64(lasts) })
}

/// Names go into logs, whose lines they must not break.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// An array of texts, or one text with spaces between them; the claim goes by its whole name, or by a path.
fn roles(claims: &Map<String, Value>, claim: &str) -> Vec<String> {
    let by_path = || {
        let mut path = claim.split('.');
        let first = claims.get(path.next()?)?;
        path.try_fold(first, |value, name| value.get(name))
    };
    let all: Vec<&str> = match claims.get(claim).or_else(by_path) {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    };
    all.into_iter().filter(|role| is_plain(role)).map(str::to_owned).collect()
}
