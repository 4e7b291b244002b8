//! `tao audit`: asks followers to compare what they have cached with the database.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use hyper::Method;
use hyper::header::HeaderValue;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::http::ask_as;
use super::output::{Format, show};

/// Arguments of `tao audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// The followers' admin ports, with commas between them
    #[arg(long, value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:9464")]
    admin: Vec<String>,
    /// The file of an admin's bearer token, where followers take tokens
    #[arg(long, env = "TAO_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Cached keys that each looks at, chosen at random
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    samples: u64,
    /// How long to wait for the answers
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// How to print what they found
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// What says who asks; errors don't repeat it.
fn authorization(file: &PathBuf) -> Result<HeaderValue, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::bad_input(format!("{}: {why}", file.display()));
    let token = std::fs::read_to_string(file).map_err(|why| wrong(&why))?;
    HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| wrong(&"it has no token"))
}

/// Prints what the followers found. Fails when one can't be asked; the exit code is 1 when something is inconsistent.
pub fn audit(args: &AuditArgs) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    let path = format!("/audit?samples={}", args.samples);
    let token = args.token_file.as_ref().map(authorization).transpose()?;
    let within = Duration::from_secs(args.timeout);
    let asked = args.admin.iter().map(|server| ask_as(token.as_ref(), Method::POST, server, &path, within));
    let answers = runtime.block_on(join_all(asked));
    let mut total = Report::default();
    let mut failures = Vec::new();
    for (server, answer) in args.admin.iter().zip(answers) {
        match answer.and_then(|body| Report::read(server, &body)) {
            Ok(report) => total.add(report),
            Err(failure) => failures.push(failure),
        }
    }
    show(&match args.output {
        Format::Text => total.text(),
        Format::Json => format!("{}\n", total.json()),
    })?;
    // What was found weighs more than what could not be asked.
    match failures.into_iter().next() {
        _ if total.inconsistent > 0 => Ok(ExitCode::FAILURE),
        Some(failure) => Err(failure),
        None => Ok(ExitCode::SUCCESS),
    }
}

#[derive(Debug, Default)]
struct Report {
    checked: u64,
    inconclusive: u64,
    inconsistent: u64,
    /// Each with its follower.
    examples: Vec<Json>,
}

impl Report {
    fn read(server: &str, body: &[u8]) -> Result<Self, Failure> {
        let unreadable = || Failure::other(format!("{server} is no follower of this version"));
        let mut report: Json = serde_json::from_slice(body).map_err(|_| unreadable())?;
        let number = |name: &str| report[name].as_u64().ok_or_else(unreadable);
        let (checked, inconclusive, inconsistent) =
            (number("checked")?, number("inconclusive")?, number("inconsistent")?);
        let mut examples = report["examples"].take().as_array().cloned().unwrap_or_default();
        for example in &mut examples {
            example["follower"] = server.into();
        }
        Ok(Self { checked, inconclusive, inconsistent, examples })
    }

    fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.inconclusive += other.inconclusive;
        self.inconsistent += other.inconsistent;
        self.examples.extend(other.examples);
    }

    fn json(&self) -> Json {
        json!({
            "checked": self.checked,
            "inconclusive": self.inconclusive,
            "inconsistent": self.inconsistent,
            "examples": self.examples,
        })
    }

    fn text(&self) -> String {
        let mut out = format!(
            "checked: {}\ninconclusive: {}\ninconsistent: {}\n",
            self.checked, self.inconclusive, self.inconsistent
        );
        for example in &self.examples {
            let text = |name: &str| example[name].as_str().unwrap_or_default().to_owned();
            // Writing to a string can't fail.
            let _ = writeln!(out, "\n{} at {}", text("key"), text("follower"));
            let _ = writeln!(out, "  cached, at {}: {}", text("cached_at"), text("cached"));
            let _ = writeln!(out, "  stored, at {}: {}", text("stored_at"), text("stored"));
        }
        out
    }
}
