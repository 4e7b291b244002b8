//! Answers for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};
use tao_client::Timestamp;
use tao_client::v1::value::Kind;
use tao_client::v1::{Assoc, ItemError, Object, Value};

use super::failure::Failure;
use super::time::rfc3339;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object; ids are texts, since they are too large for some readers' numbers.
    Json,
}

/// What a call answered.
#[derive(Debug, Default)]
pub struct Answer {
    facts: Vec<(&'static str, Json)>,
    edges: Option<Vec<Assoc>>,
    objects: Vec<Object>,
    /// Ids of which there is no object to show, and why.
    errors: Vec<(i64, ItemError)>,
    cursor: String,
    /// Ids that were not looked at, since the answer was full.
    remaining: Vec<i64>,
}

/// Prints to standard output; a reader that has seen enough is no error.
pub fn show(text: &str) -> Result<(), Failure> {
    show_more(text).map(drop)
}

/// The same; says whether there is still a reader.
pub fn show_more(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::other(error)),
        written => Ok(written.is_ok()),
    }
}

impl Answer {
    /// Objects.
    pub fn objects(objects: impl IntoIterator<Item = Object>) -> Self {
        Self { objects: objects.into_iter().collect(), ..Self::default() }
    }

    /// Numbers and truths.
    pub fn facts<const N: usize>(facts: [(&'static str, Json); N]) -> Self {
        Self { facts: facts.into(), ..Self::default() }
    }

    /// Edges, perhaps the objects at their other ends, and where to go on.
    pub fn edges(edges: Vec<Assoc>, objects: Vec<Object>, cursor: String) -> Self {
        Self { edges: Some(edges), objects, cursor, ..Self::default() }
    }

    /// And what was not looked at.
    pub fn with_remaining(self, remaining: Vec<i64>) -> Self {
        Self { remaining, ..self }
    }

    /// And what could not be shown.
    pub fn with_errors(self, errors: Vec<(i64, ItemError)>) -> Self {
        Self { errors, ..self }
    }

    /// What the command fails with, though it has an answer.
    pub fn failure(&self) -> Option<Failure> {
        let (_, first) = self.errors.first()?;
        let failure = Failure::of_item(first);
        Some(match self.errors.len() {
            1 => failure,
            n => failure.within(format!("{n} objects can't be shown; the first")),
        })
    }

    /// As text, with a line end.
    pub fn print(&self, format: Format, token: Option<&str>) -> String {
        match format {
            Format::Text => self.text(token),
            Format::Json => format!("{}\n", self.json(token)),
        }
    }

    fn text(&self, token: Option<&str>) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        for (name, value) in &self.facts {
            let _ = writeln!(out, "{name}: {value}");
        }
        match self.edges.as_deref() {
            None => {}
            Some([]) => out.push_str("no edges\n"),
            Some(edges) => {
                let _ = writeln!(out, "{:<10}  {:<20}  {:<19}  DATA", "TIME", "UTC", "ID2");
                for Assoc { id2, time, data, .. } in edges {
                    let utc = rfc3339(*time, 0).unwrap_or_default();
                    let line = format!("{time:<10}  {utc:<20}  {id2:<19}  {}", fields(data));
                    let _ = writeln!(out, "{}", line.trim_end());
                }
                if !self.objects.is_empty() {
                    out.push('\n');
                }
            }
        }
        for object in &self.objects {
            let _ = writeln!(out, "{} {} version {}{}", object.id, object.r#type, object.version, ages(object));
            let width = object.data.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, value) in &object.data {
                let _ = writeln!(out, "  {name:<width$} = {}", value_text(value));
            }
        }
        for (id, error) in &self.errors {
            let _ = writeln!(out, "{id} {}", Failure::of_item(error));
        }
        if !self.cursor.is_empty() {
            let _ = writeln!(out, "more: --cursor {}", self.cursor);
        }
        if !self.remaining.is_empty() {
            let ids: String = self.remaining.iter().map(|id| format!(" {id}")).collect();
            let _ = writeln!(out, "the answer was full; ask again for{ids}");
        }
        if let Some(token) = token {
            let _ = writeln!(out, "token: {token}");
        }
        out
    }

    fn json(&self, token: Option<&str>) -> Json {
        let mut out: Map<_, _> = self.facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        if let Some(edges) = &self.edges {
            let edges =
                edges.iter().map(|e| json!({"id2": e.id2.to_string(), "time": e.time, "data": json_data(&e.data)}));
            out.insert("edges".to_owned(), edges.collect());
        }
        if !self.objects.is_empty() || (self.edges.is_none() && self.facts.is_empty()) {
            out.insert("objects".to_owned(), self.objects.iter().map(json_object).collect());
        }
        if !self.errors.is_empty() {
            let errors = self
                .errors
                .iter()
                .map(|(id, e)| json!({"id": id.to_string(), "reason": e.reason, "message": e.message}));
            out.insert("errors".to_owned(), errors.collect());
        }
        if !self.cursor.is_empty() {
            out.insert("next_cursor".to_owned(), self.cursor.clone().into());
        }
        if !self.remaining.is_empty() {
            out.insert("remaining".to_owned(), self.remaining.iter().map(i64::to_string).collect());
        }
        if let Some(token) = token {
            out.insert("session_token".to_owned(), token.into());
        }
        out.into()
    }
}

fn ages(object: &Object) -> String {
    let age = |name, at: &Option<Timestamp>| at.as_ref().and_then(time).map(|at| format!("  {name} {at}"));
    [age("created", &object.created), age("updated", &object.updated)].into_iter().flatten().collect()
}

fn time(at: &Timestamp) -> Option<String> {
    rfc3339(at.seconds, at.nanos)
}

fn fields(data: &BTreeMap<String, Value>) -> String {
    data.iter().map(|(name, value)| format!("{name}={}  ", value_text(value))).collect()
}

/// Texts are quoted and escaped: what somebody wrote into the store may not be fit for a terminal.
fn value_text(value: &Value) -> String {
    match &value.kind {
        Some(Kind::BytesValue(_)) => format!("0x{}", json_value(value).as_str().unwrap_or_default()),
        Some(Kind::TimestampValue(at)) => time(at).unwrap_or_default(),
        Some(Kind::StringValue(text)) => format!("{text:?}"),
        Some(Kind::DoubleValue(d)) => format!("{d:?}"),
        _ => json_value(value).to_string(),
    }
}

/// An object for programs.
pub fn json_object(object: &Object) -> Json {
    json!({
        "id": object.id.to_string(),
        "type": object.r#type,
        "version": object.version,
        "created": object.created.as_ref().and_then(time),
        "updated": object.updated.as_ref().and_then(time),
        "data": json_data(&object.data),
    })
}

/// Data for programs.
pub fn json_data(data: &BTreeMap<String, Value>) -> Json {
    data.iter().map(|(name, value)| (name.clone(), json_value(value))).collect()
}

fn json_value(value: &Value) -> Json {
    match &value.kind {
        None => Json::Null,
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::Int64Value(n)) => (*n).into(),
        // JSON has no word for what is not finite.
        Some(Kind::DoubleValue(d)) if !d.is_finite() => d.to_string().into(),
        Some(Kind::DoubleValue(d)) => (*d).into(),
        Some(Kind::StringValue(s)) => s.clone().into(),
        Some(Kind::BytesValue(b)) => b.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        Some(Kind::TimestampValue(at)) => time(at).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(kind: Kind) -> BTreeMap<String, Value> {
        BTreeMap::from([("a".to_owned(), Value { kind: Some(kind) })])
    }

    #[test]
    fn both_formats_show_everything() {
        let at = Some(Timestamp { seconds: 1_709_164_800, nanos: 5_000_000 });
        let data = data(Kind::Int64Value(1));
        let object =
            Object { id: 7, r#type: "user".to_owned(), version: 2, data: data.clone(), created: at, updated: None };
        let edge = Assoc { id2: 7, time: 9, data, ..Assoc::default() };
        let gone =
            ItemError { code: 5, reason: "NOT_FOUND".to_owned(), message: "no 8".to_owned(), ..Default::default() };
        let answer = Answer::edges(vec![edge], vec![object], "c".to_owned())
            .with_errors(vec![(8, gone)])
            .with_remaining(vec![3]);
        let text = answer.print(Format::Text, Some("t"));
        for part in [
            "9           1970-01-01T00:00:09Z  7                    a=1\n",
            "\n7 user version 2  created 2024-02-29T00:00:00.005Z\n  a = 1\n",
            "8 no 8 (NOT_FOUND)\n",
            "--cursor c\n",
            "again for 3\n",
            "token: t\n",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        let want = json!({
            "edges": [{"id2": "7", "time": 9, "data": {"a": 1}}],
            "objects": [{
                "id": "7", "type": "user", "version": 2, "data": {"a": 1},
                "created": "2024-02-29T00:00:00.005Z", "updated": null,
            }],
            "errors": [{"id": "8", "reason": "NOT_FOUND", "message": "no 8"}],
            "next_cursor": "c",
            "remaining": ["3"],
            "session_token": "t",
        });
        assert_eq!(serde_json::from_str::<Json>(&answer.print(Format::Json, Some("t"))).unwrap(), want);
        assert_eq!(answer.failure().unwrap().number(), 3);
        assert_eq!(Answer::facts([("count", 3.into())]).print(Format::Json, None), "{\"count\":3}\n");
        assert_eq!(Answer::edges(vec![], vec![], String::new()).print(Format::Text, None), "no edges\n");
    }

    #[test]
    fn every_kind_of_value_is_shown_and_none_reaches_the_terminal_raw() {
        for (kind, text, json) in [
            (Kind::BoolValue(true), "true", json!(true)),
            (Kind::Int64Value(i64::MIN), "-9223372036854775808", json!(i64::MIN)),
            (Kind::DoubleValue(1.0), "1.0", json!(1.0)),
            (Kind::DoubleValue(f64::NAN), "NaN", json!("NaN")),
            (Kind::StringValue("a\x1b[31m\"".to_owned()), "\"a\\u{1b}[31m\\\"\"", json!("a\x1b[31m\"")),
            (Kind::BytesValue(vec![0, 255].into()), "0x00ff", json!("00ff")),
            (
                Kind::TimestampValue(Timestamp { seconds: 1, nanos: 0 }),
                "1970-01-01T00:00:01Z",
                json!("1970-01-01T00:00:01Z"),
            ),
        ] {
            let value = Value { kind: Some(kind) };
            assert_eq!((value_text(&value).as_str(), json_value(&value)), (text, json));
        }
        assert_eq!(json_value(&Value { kind: None }), Json::Null);
    }
}
