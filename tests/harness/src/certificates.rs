//! Certificate authorities and what they issue, made when a test needs them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// An authority of a test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// What those who trust it are given, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a day, for servers and clients alike; a name is a DNS name, an IP address, or a URI with `://`.
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        let now = OffsetDateTime::now_utc();
        self.issue_between(names, now - Duration::hours(1), now + Duration::days(1))
    }

    /// One that was good until an hour ago.
    pub fn issue_expired(&self, names: &[&str]) -> Result<Issued> {
        let now = OffsetDateTime::now_utc();
        self.issue_between(names, now - Duration::days(1), now - Duration::hours(1))
    }

    fn issue_between(&self, names: &[&str], from: OffsetDateTime, to: OffsetDateTime) -> Result<Issued> {
        let (uris, hosts): (Vec<String>, Vec<String>) =
            names.iter().map(|&name| name.to_owned()).partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(hosts)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.distinguished_name.push(DnType::CommonName, "not looked at");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (from, to);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.0)?;
        Ok(Issued { cert: cert.pem(), key: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes NAME.crt and NAME.key.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let cert = write(folder, &format!("{name}.crt"), &self.cert)?;
        Ok((cert, write(folder, &format!("{name}.key"), &self.key)?))
    }
}

impl Authority {
    /// Writes NAME.crt, what others trust it by.
    pub fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        write(folder, &format!("{name}.crt"), &self.pem())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
