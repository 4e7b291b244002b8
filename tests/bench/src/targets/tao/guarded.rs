//! Public doors that are not open to all.

use anyhow::Result;
use tao_client::TlsOptions;
use tao_harness::tokens::{AUDIENCE, ISSUER, claims, jwk_set};
use tao_harness::{Authority, TempDir, TokenIssuer};

use crate::targets::channels::Credentials;

/// A follower's flags, their files, and what its clients come with.
#[derive(Debug)]
pub struct Guarded {
    /// Of the follower.
    pub flags: Vec<String>,
    /// Of its clients.
    pub credentials: Credentials,
    _folder: TempDir,
}

impl Guarded {
    /// Speaks TLS, and does not ask clients who they are.
    pub fn tls() -> Result<Self> {
        let (folder, authority) = (TempDir::new()?, Authority::new("bench")?);
        let (cert, key) = authority.issue(&["localhost", "127.0.0.1"])?.write(folder.path(), "public")?;
        let ca = authority.write(folder.path(), "ca")?;
        let flags = [("--public-tls-cert", cert), ("--public-tls-key", key)];
        let flags = flags.into_iter().flat_map(|(flag, file)| [flag.to_owned(), file.display().to_string()]).collect();
        let tls = Some(TlsOptions { ca, identity: None, name: None });
        Ok(Self { flags, credentials: Credentials { tls, bearer: None }, _folder: folder })
    }

    /// Takes tokens, whose subject may read and write some types, so that every call is judged by its own.
    pub fn jwt() -> Result<Self> {
        let (folder, issuer) = (TempDir::new()?, TokenIssuer::new("bench")?);
        let file = |name: &str, text: &str| -> Result<String> {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let keys = file("keys.json", &jwk_set(&[&issuer]))?;
        let policy = "[[grant]]\nwho = [\"role:bench\"]\nwrite = [\"node\", \"link\"]\n";
        let policy = file("policy.toml", policy)?;
        let flags = [
            ("--access-policy", policy.as_str()),
            ("--jwt-keys", keys.as_str()),
            ("--jwt-issuer", ISSUER),
            ("--jwt-audience", AUDIENCE),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect();
        let bearer = Some(issuer.sign(&claims("bench", &["bench"])));
        Ok(Self { flags, credentials: Credentials { tls: None, bearer }, _folder: folder })
    }
}
