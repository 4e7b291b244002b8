//! Who is let in at the public port, and as whom.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;
use tao_access::{Access, AccessOptions, Expected, JwksUrl, JwtOptions, KeySource};
use tao_model::Schema;
use tao_runtime::config::ConfigError;

/// The claim that has a token's roles, unless another is named.
const ROLES: &str = "roles";

/// Access at the public port, as file, environment or flags give it.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessArgs {
    /// Who may do what: a TOML file of grants (docs/security.md) [default: everybody may do everything]
    #[arg(id = "access_policy", long = "access-policy", env = "TAO_ACCESS_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Take signed tokens (JWT): the file of public keys they are signed with, as a JWK set or in PEM, or the https:// URL of a JWK set
    /// [default: certificates alone say who calls]
    #[arg(id = "jwt_keys", long = "jwt-keys", env = "TAO_JWT_KEYS", value_name = "FILE|URL")]
    jwt_keys: Option<String>,
    /// With a URL of keys, the authority of its server: a PEM file [default: those that the system trusts]
    #[arg(id = "jwt_keys_ca", long = "jwt-keys-ca", env = "TAO_JWT_KEYS_CA", value_name = "FILE")]
    jwt_keys_ca: Option<PathBuf>,
    /// What tokens must have as `iss`
    #[arg(id = "jwt_issuer", long = "jwt-issuer", env = "TAO_JWT_ISSUER", value_name = "TEXT")]
    jwt_issuer: Option<String>,
    /// What tokens must have as `aud`, or among it
    #[arg(id = "jwt_audience", long = "jwt-audience", env = "TAO_JWT_AUDIENCE", value_name = "TEXT")]
    jwt_audience: Option<String>,
    /// The claim that has a token's roles, or a path to it with dots [default: roles]
    #[arg(id = "jwt_roles", long = "jwt-roles", env = "TAO_JWT_ROLES", value_name = "CLAIM")]
    jwt_roles: Option<String>,
    /// What is logged of what callers do: off or writes [default: off]
    #[arg(id = "audit_log", long = "audit-log", env = "TAO_AUDIT_LOG", value_name = "WHAT")]
    audit_log: Option<String>,
}

/// The checked options.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    options: Option<AccessOptions>,
    /// Whether a line is logged for each write.
    pub logs_writes: bool,
}

impl AccessArgs {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            policy: self.policy.or(lower.policy),
            jwt_keys: self.jwt_keys.or(lower.jwt_keys),
            jwt_keys_ca: self.jwt_keys_ca.or(lower.jwt_keys_ca),
            jwt_issuer: self.jwt_issuer.or(lower.jwt_issuer),
            jwt_audience: self.jwt_audience.or(lower.jwt_audience),
            jwt_roles: self.jwt_roles.or(lower.jwt_roles),
            audit_log: self.audit_log.or(lower.audit_log),
        }
    }

    /// The error names all that is wrong, one each. Files are read later, when the schema is known.
    pub fn check(self) -> Result<AccessSettings, Vec<String>> {
        let mut problems = Vec::new();
        let logs_writes = match self.audit_log.as_deref() {
            None | Some("off") => false,
            Some("writes") => true,
            Some(other) => {
                problems.push(format!("access.audit_log: {other:?} is neither off nor writes"));
                false
            }
        };
        let is_url = self.jwt_keys.as_deref().is_some_and(|keys| keys.contains("://"));
        if self.jwt_keys_ca.is_some() && !is_url {
            problems.push("access.jwt_keys_ca: it goes with a URL as jwt_keys".to_owned());
        }
        let says_what = self.jwt_issuer.is_some() || self.jwt_audience.is_some() || self.jwt_roles.is_some();
        let jwt = match (self.jwt_keys, self.jwt_issuer, self.jwt_audience) {
            (Some(keys), Some(issuer), Some(audience)) => {
                let keys = if is_url {
                    KeySource::Url(JwksUrl { url: keys, ca: self.jwt_keys_ca })
                } else {
                    KeySource::File(keys.into())
                };
                let roles_claim = self.jwt_roles.unwrap_or_else(|| ROLES.to_owned());
                Some(JwtOptions { keys, expected: Expected { issuer, audience, roles_claim } })
            }
            (None, _, _) if !says_what => None,
            _ => {
                problems.push("access: jwt_keys, jwt_issuer and jwt_audience go together: give all three".to_owned());
                None
            }
        };
        if jwt.is_some() && self.policy.is_none() {
            problems.push("access.policy: must be given with jwt_keys, since it says who may do what".to_owned());
        }
        let options = self.policy.map(|policy| AccessOptions { policy, jwt });
        if problems.is_empty() { Ok(AccessSettings { options, logs_writes }) } else { Err(problems) }
    }
}

impl AccessSettings {
    /// Whether callers have to prove who they are.
    pub const fn is_proved(&self) -> bool {
        self.options.is_some()
    }

    /// Reads the files; the error names all that is wrong with them.
    pub fn load(self, schema: &Arc<Schema>) -> Result<Access, ConfigError> {
        let Some(options) = self.options else { return Ok(Access::open()) };
        Access::load(options, schema.clone()).map_err(|problems| ConfigError {
            problems: problems.iter().map(|problem| format!("access: {problem}")).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_said_at_once() {
        let none = AccessArgs::default().check().unwrap();
        assert!(!none.is_proved() && none.load(&Schema::social().into()).unwrap().is_open());
        let text = |text: &str| Some(text.to_owned());
        let wrong = AccessArgs {
            jwt_keys: text("keys.json"),
            jwt_keys_ca: Some("ca.crt".into()),
            jwt_issuer: text("x"),
            audit_log: text("reads"),
            ..AccessArgs::default()
        };
        let problems = wrong.clone().check().unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        let more =
            AccessArgs { jwt_audience: text("tao"), jwt_keys: text("http://keys.test"), audit_log: None, ..wrong };
        let problems = more.clone().check().unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with("access.policy"), "{problems:?}");
        let files = AccessArgs { policy: Some("absent.toml".into()), ..more };
        let error = files.check().unwrap().load(&Schema::social().into()).unwrap_err();
        assert!(error.problems.iter().any(|p| p.contains("absent.toml can't be read")), "{error}");
        assert!(error.problems.iter().any(|p| p.contains("https://")), "{error}");
    }
}
