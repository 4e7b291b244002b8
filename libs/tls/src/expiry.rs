//! When certificates end, for whoever has to renew them.

use std::path::Path;
use std::sync::Arc;

use metrics::gauge;
use rustls_pki_types::CertificateDer;
use simple_asn1::{ASN1Block, from_der};

/// What was made of some files, and when its certificate ends.
#[derive(Debug)]
pub(crate) struct Made<C> {
    pub config: Arc<C>,
    pub expiry: Option<Expiry>,
}

/// The end of the first of a file's certificates to end.
#[derive(Debug)]
pub(crate) struct Expiry {
    file: String,
    /// Seconds since 1970.
    ends: i64,
}

impl<C> Made<C> {
    /// With a certificate of its own, or without.
    pub fn new(config: C, own: Option<(&Path, &[CertificateDer<'_>])>) -> Self {
        let expiry = own.and_then(|(file, chain)| {
            let ends = chain.iter().filter_map(ends).min()?;
            Some(Expiry { file: file.display().to_string(), ends })
        });
        let made = Self { config: config.into(), expiry };
        made.show();
        made
    }

    /// As a metric, for the recorder that there is now.
    pub fn show(&self) {
        if let Some(Expiry { file, ends }) = &self.expiry {
            gauge!("tls_certificate_expiry_timestamp_seconds", "file" => file.clone()).set(*ends as f64);
        }
    }
}

/// The end of a certificate's validity (RFC 5280): of the part that is signed, the one sequence of two times.
fn ends(certificate: &CertificateDer<'_>) -> Option<i64> {
    let parts = |block: ASN1Block| match block {
        ASN1Block::Sequence(_, parts) => parts,
        _ => Vec::new(),
    };
    let whole = from_der(certificate).ok()?.into_iter().next()?;
    let signed = parts(whole).into_iter().next()?;
    parts(signed).into_iter().find_map(|part| match parts(part).as_slice() {
        [
            ASN1Block::UTCTime(..) | ASN1Block::GeneralizedTime(..),
            ASN1Block::UTCTime(_, until) | ASN1Block::GeneralizedTime(_, until),
        ] => Some(until.assume_utc().unix_timestamp()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use rustls_pki_types::pem::PemObject as _;
    use tao_harness::Authority;

    use super::*;

    #[test]
    fn the_end_is_read_from_the_certificate() {
        let issued = Authority::new("test").unwrap().issue(&["localhost"]).unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let left = ends(&certificate).unwrap() - now;
        assert!((86_000..=86_400).contains(&left), "issued for a day: {left}");
        assert_eq!(ends(&CertificateDer::from(vec![0x30, 0x03, 0x01, 0x01, 0xff])), None);
    }
}
