//! This crate's decoders for tests/fuzz: no part of its API.

use std::path::Path;

use tao_model::Schema;

use crate::crypto;
use crate::keys::Keys;
use crate::policy::Policy;
use crate::token::{Expected, verify};

/// Whether a policy is taken; what is refused has a reason.
pub fn policy(text: &str, schema: &Schema) -> bool {
    match Policy::parse(Path::new("policy.toml"), text, schema) {
        Ok(policy) => {
            let _granted = policy.grants(["role:reader"]);
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            false
        }
    }
}

/// Whether keys are taken; what is refused has a reason.
pub fn keys(content: &[u8]) -> bool {
    match Keys::parse(content) {
        Ok(_) => true,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            false
        }
    }
}

/// Verifies tokens of one set of keys.
pub struct Verifier {
    keys: Keys,
    expected: Expected,
}

impl Verifier {
    /// With these keys, if they are good.
    pub fn new(keys: &[u8], expected: Expected) -> Option<Self> {
        crypto::install();
        Some(Self { keys: Keys::parse(keys).ok()?, expected })
    }

    /// Whether a token is good.
    pub fn takes(&self, token: &[u8]) -> bool {
        verify(&self.keys, &self.expected, token).is_ok()
    }
}
