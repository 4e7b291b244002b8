//! Answers for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};
use tao_client::v1::value::Kind;
use tao_client::v1::{Assoc, Object, Value};

use super::failure::Failure;

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
    cursor: String,
    /// Ids that were not looked at, since the answer was full.
    remaining: Vec<String>,
}

/// Prints to standard output; a reader that has seen enough is no error.
pub fn show(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::other(error)),
        Ok(()) | Err(_) => Ok(()),
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
    pub fn with_remaining(self, remaining: Vec<String>) -> Self {
        Self { remaining, ..self }
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
        if let Some(edges) = &self.edges {
            if edges.is_empty() {
                out.push_str("no edges\n");
            }
            for edge in edges {
                let _ = writeln!(out, "{:>10}  {:<20}{}", edge.time, edge.id2, fields(&edge.data));
            }
        }
        for object in &self.objects {
            let _ = writeln!(out, "{} {} version {}{}", object.id, object.r#type, object.version, fields(&object.data));
        }
        if !self.cursor.is_empty() {
            let _ = writeln!(out, "more: --cursor {}", self.cursor);
        }
        if !self.remaining.is_empty() {
            let _ = writeln!(out, "the answer was full; ask again for {}", self.remaining.join(" "));
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
            let objects = self.objects.iter().map(
                |o| json!({"id": o.id.to_string(), "type": o.r#type, "version": o.version, "data": json_data(&o.data)}),
            );
            out.insert("objects".to_owned(), objects.collect());
        }
        if !self.cursor.is_empty() {
            out.insert("next_cursor".to_owned(), self.cursor.clone().into());
        }
        if !self.remaining.is_empty() {
            out.insert("remaining".to_owned(), self.remaining.clone().into());
        }
        if let Some(token) = token {
            out.insert("session_token".to_owned(), token.into());
        }
        out.into()
    }
}

fn fields(data: &BTreeMap<String, Value>) -> String {
    data.iter().map(|(name, value)| format!("  {name}={}", json_value(value))).collect()
}

fn json_data(data: &BTreeMap<String, Value>) -> Json {
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
        Some(Kind::TimestampValue(t)) => json!({"seconds": t.seconds, "nanos": t.nanos}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_show_everything() {
        let data = BTreeMap::from([("a".to_owned(), Value { kind: Some(Kind::Int64Value(1)) })]);
        let object = Object { id: 7, r#type: "user".to_owned(), version: 2, data: data.clone(), ..Object::default() };
        let edge = Assoc { id2: 7, time: 9, data, ..Assoc::default() };
        let answer = Answer::edges(vec![edge], vec![object], "c".to_owned());
        let text = answer.print(Format::Text, Some("t"));
        for part in ["9  7", "a=1", "7 user version 2", "--cursor c", "token: t"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        let want = json!({
            "edges": [{"id2": "7", "time": 9, "data": {"a": 1}}],
            "objects": [{"id": "7", "type": "user", "version": 2, "data": {"a": 1}}],
            "next_cursor": "c",
            "session_token": "t",
        });
        assert_eq!(serde_json::from_str::<Json>(&answer.print(Format::Json, Some("t"))).unwrap(), want);
        assert_eq!(Answer::facts([("count", 3.into())]).print(Format::Json, None), "{\"count\":3}\n");
        assert_eq!(Answer::edges(vec![], vec![], String::new()).print(Format::Text, None), "no edges\n");
    }
}
