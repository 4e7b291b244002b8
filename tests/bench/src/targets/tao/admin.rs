//! What a tier's admin port tells.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Everything that is counted, in Prometheus' text format.
pub struct Metrics(String);

impl Metrics {
    /// Asks a tier for them.
    pub async fn scrape(admin: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(admin).await.with_context(|| format!("can't reach {admin}"))?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(Self(text))
    }

    /// The sum of a metric's series that have all of these labels, each as in `level="memory"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let of_series = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let (series, value) = rest.rsplit_once(' ')?;
            let is_it = rest.starts_with(['{', ' ']) && labels.iter().all(|label| series.contains(label));
            is_it.then(|| value.parse::<f64>().ok()).flatten()
        };
        self.0.lines().filter_map(of_series).sum::<f64>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_series_that_have_the_labels() {
        let text = "# TYPE hits counter\nhits{tier=\"a\",level=\"memory\"} 3\nhits{tier=\"a\",level=\"redis\"} 4\nhits_other{tier=\"a\"} 9\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.sum("hits", &["tier=\"a\""]), 7);
        assert_eq!(metrics.sum("hits", &["level=\"redis\""]), 4);
        assert_eq!(metrics.sum("none", &[]), 0);
    }
}
