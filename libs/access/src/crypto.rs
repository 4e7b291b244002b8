//! Signatures, by ring: the cryptography that TLS has here, too.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as Wrong, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

/// Verifies asymmetric signatures, and nothing else: there is no HMAC here to take a public key for a secret.
static RING: CryptoProvider =
    CryptoProvider { signer_factory: no_signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Has tokens verified by ring, in this process. Another that was installed before is left.
pub fn install() {
    let _ = RING.install_default();
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let rsa = |parameters| Ok(Means::Rsa(parameters));
    let point = |by| Ok(Means::Point(by));
    let means = match algorithm {
        Algorithm::RS256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => point(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => point(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => point(&signature::ED25519),
        // Another that the library may know by now is not one that is taken here.
        _ => Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    }?;
    Ok(Box::new(Verifies { algorithm: *algorithm, means, key: key.clone() }))
}

enum Means {
    Rsa(&'static RsaParameters),
    /// A point of a curve.
    Point(&'static dyn VerificationAlgorithm),
}

struct Verifies {
    algorithm: Algorithm,
    means: Means,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Verifies {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Wrong> {
        let verified = match (self.key.kind(), &self.means) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Means::Rsa(parameters)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), Means::Rsa(parameters)) => {
                UnparsedPublicKey::new(*parameters, key).verify(message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), Means::Point(by)) => {
                UnparsedPublicKey::new(*by, key).verify(message, signature)
            }
            (DecodingKeyKind::RsaModulusExponent { .. }, Means::Point(_)) => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| Wrong::new())
    }
}

impl JwtVerifier for Verifies {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
