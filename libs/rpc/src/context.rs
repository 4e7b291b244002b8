//! A call's context from the metadata of a public request.

use std::time::Duration;

use tao_model::{Error, Result};
use tao_trace::TraceContext;
use tonic::metadata::MetadataMap;

use crate::call::CallContext;

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLimits {
    /// Of a call that doesn't say.
    pub default: Duration,
    /// Of any call; more is cut.
    pub maximum: Duration,
}

impl Default for DeadlineLimits {
    fn default() -> Self {
        Self { default: Duration::from_secs(10), maximum: Duration::from_secs(60) }
    }
}

impl CallContext {
    /// The deadline of a public request (`grpc-timeout`), and the trace context that it has here. Everything else is as in
    /// [`CallContext::new`]: whoever asks is judged at the door, and tiers behind it are not told.
    ///
    /// Fails with DEADLINE_EXCEEDED when no time is left, and with INVALID_ARGUMENT when `grpc-timeout` can't be read.
    pub fn from_metadata(metadata: &MetadataMap, limits: &DeadlineLimits, trace: TraceContext) -> Result<Self> {
        let time = match metadata.get("grpc-timeout") {
            None => limits.default,
            Some(value) => {
                let time = value.to_str().ok().and_then(parse_timeout);
                time.ok_or_else(|| {
                    Error::invalid("grpc-timeout", "must be 1 to 8 digits and a unit: H, M, S, m, u or n")
                })?
            }
        };
        if time.is_zero() {
            return Err(Error::DeadlineExceeded { not_applied: true });
        }
        let mut context = Self::within(time.min(limits.maximum));
        context.trace = trace;
        Ok(context)
    }
}

/// gRPC's form of a timeout.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3_600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn context(pairs: &[(&'static str, &str)]) -> Result<CallContext> {
        let mut metadata = MetadataMap::new();
        for (key, value) in pairs {
            metadata.insert(*key, value.parse().unwrap());
        }
        CallContext::from_metadata(&metadata, &DeadlineLimits::default(), TraceContext::NONE)
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_come_from_the_request_within_limits() {
        let left = |pairs: &[(&'static str, &str)]| context(pairs).map(|c| c.deadline - Instant::now());
        assert_eq!(left(&[]), Ok(Duration::from_secs(10)));
        for (text, ms) in
            [("250m", 250), ("2S", 2_000), ("500000u", 500), ("5000000n", 5), ("1M", 60_000), ("99999999H", 60_000)]
        {
            assert_eq!(left(&[("grpc-timeout", text)]), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(left(&[("grpc-timeout", "0m")]), Err(Error::DeadlineExceeded { not_applied: true }));
        for wrong in ["", "m", "5", "5x", "-5m", "123456789m", "5 m", "ööm"] {
            let mut metadata = MetadataMap::new();
            let value = tonic::metadata::MetadataValue::try_from(wrong.as_bytes()).unwrap();
            metadata.insert("grpc-timeout", value);
            let error =
                CallContext::from_metadata(&metadata, &DeadlineLimits::default(), TraceContext::NONE).unwrap_err();
            assert_eq!(error.reason(), "INVALID_ARGUMENT", "{wrong}");
        }
    }
}
