//! The keys that tokens may be signed with: a JWK set, or public keys in PEM.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};

/// Each may have to be tried on a token that does not say which it is signed with.
const MAX_KEYS: usize = 32;
/// Bytes of the shortest modulus that is taken: 2048 bits.
const MIN_MODULUS: usize = 256;

/// Public keys, each bound to the algorithms of its own kind.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

/// One of them.
#[derive(Debug)]
pub struct Key {
    /// Its name; none in PEM.
    id: Option<String>,
    /// The key itself.
    pub key: DecodingKey,
    /// What may be verified with it.
    pub algorithms: Vec<Algorithm>,
}

impl Keys {
    /// Of a file or an answer; which of the two it is, is seen by how it begins.
    pub fn parse(content: &[u8]) -> Result<Self, Vec<String>> {
        let is_json = content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let keys = if is_json { Self::of_set(content) } else { Self::of_pem(content) }?;
        match keys.0.len() {
            0 => Err(vec!["there is no public key in it".to_owned()]),
            1..=MAX_KEYS => Ok(keys),
            many => Err(vec![format!("{many} keys are more than {MAX_KEYS}")]),
        }
    }

    /// Those that a token may be signed with that names this key and this algorithm.
    pub fn candidates<'a>(&'a self, id: Option<&'a str>, algorithm: Algorithm) -> impl Iterator<Item = &'a Key> {
        let is_named = move |key: &Key| match (&key.id, id) {
            (Some(known), Some(id)) => known == id,
            (None, _) | (_, None) => true,
        };
        self.0.iter().filter(move |key| is_named(key) && key.algorithms.contains(&algorithm))
    }

    /// Sets may have keys for other uses, and of kinds to come: they are passed over.
    fn of_set(content: &[u8]) -> Result<Self, Vec<String>> {
        let set: JwkSet = serde_json::from_slice(content).map_err(|error| vec![format!("no JWK set: {error}")])?;
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (n, jwk) in set.keys.iter().enumerate() {
            match of_jwk(jwk) {
                Ok(key) => keys.extend(key),
                Err(problem) => problems.push(format!("keys[{n}]: {problem}")),
            }
        }
        if problems.is_empty() { Ok(Self(keys)) } else { Err(problems) }
    }

    fn of_pem(content: &[u8]) -> Result<Self, Vec<String>> {
        let text = String::from_utf8_lossy(content);
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (n, block) in blocks(&text).enumerate() {
            match of_block(block) {
                Ok(key) => keys.push(key),
                Err(problem) => problems.push(format!("block {}: {problem}", n + 1)),
            }
        }
        if problems.is_empty() { Ok(Self(keys)) } else { Err(problems) }
    }
}

/// The blocks of a PEM file, from their first dashes to their last.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("-----BEGIN ").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find("-----END ").and_then(|end| Some(end + 9 + rest[end + 9..].find("-----")? + 5));
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn of_block(block: &str) -> Result<Key, String> {
    if block.lines().next().is_some_and(|head| head.contains("PRIVATE")) {
        return Err("a private key: give the public one".to_owned());
    }
    let pem = block.as_bytes();
    let read = DecodingKey::from_rsa_pem(pem).or_else(|_| DecodingKey::from_ec_pem(pem));
    let key = read.or_else(|_| DecodingKey::from_ed_pem(pem));
    let key = key.map_err(|_| "no public key of RSA, P-256, P-384 or Ed25519".to_owned())?;
    bound(None, key)
}

fn of_jwk(jwk: &Jwk) -> Result<Option<Key>, String> {
    if matches!(&jwk.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature) {
        return Ok(None);
    }
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {}
        AlgorithmParameters::EllipticCurve(key) if matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384) => {}
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {}
        // A secret has no place in a public set, and nothing is ever verified by one.
        AlgorithmParameters::OctetKey(_) => return Err("a secret: only public keys are taken".to_owned()),
        _ => return Ok(None),
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    let mut key = bound(jwk.common.key_id.clone(), key)?;
    if let Some(named) = jwk.common.key_algorithm {
        let named = Algorithm::try_from(named).ok();
        key.algorithms.retain(|algorithm| Some(*algorithm) == named);
        if key.algorithms.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(key))
}

/// A key with the algorithms that are its own, and no others.
fn bound(id: Option<String>, key: DecodingKey) -> Result<Key, String> {
    let long = match key.kind() {
        // ring wants the modulus without leading zeros.
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let bare = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
            let (n, e) = (bare(n), bare(e));
            let long = n.len();
            return rsa(id, DecodingKey::from_rsa_raw_components(&n, &e), long);
        }
        DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
    };
    let algorithms = match (key.family(), long) {
        (AlgorithmFamily::Rsa, _) => return rsa(id, key, long),
        // An uncompressed point: two coordinates after one byte.
        (AlgorithmFamily::Ec, 65) => vec![Algorithm::ES256],
        (AlgorithmFamily::Ec, 97) => vec![Algorithm::ES384],
        (AlgorithmFamily::Ed, 32) => vec![Algorithm::EdDSA],
        (AlgorithmFamily::Ec | AlgorithmFamily::Ed | AlgorithmFamily::Hmac, _) => {
            return Err("no key of P-256, P-384 or Ed25519".to_owned());
        }
    };
    Ok(Key { id, key, algorithms })
}

fn rsa(id: Option<String>, key: DecodingKey, modulus: usize) -> Result<Key, String> {
    if modulus < MIN_MODULUS {
        return Err("an RSA key of less than 2048 bits".to_owned());
    }
    Ok(Key { id, key, algorithms: AlgorithmFamily::Rsa.algorithms().to_vec() })
}
