//! What `tao load` prints at its end.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::edge_list::{EdgeList, Reason};

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is loaded.
    Complete,
    /// All was loaded before.
    CompleteBefore,
    /// Somebody asked it to stop; it can be resumed.
    Interrupted,
}

/// What a load did.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// Objects made in this run, and how long their ids and they took.
    pub objects: (usize, Duration),
    /// Edges written in this run, and how long they took.
    pub edges: (usize, Duration),
}

impl Report {
    /// A load that did nothing.
    pub const fn nothing(ended: Ended) -> Self {
        Self { ended, objects: (0, Duration::ZERO), edges: (0, Duration::ZERO) }
    }

    fn rate(&self) -> f64 {
        let (edges, took) = self.edges;
        if edges == 0 { 0.0 } else { edges as f64 / took.as_secs_f64().max(1e-9) }
    }

    /// For programs, in one object.
    pub fn json(&self, list: &EdgeList) -> Json {
        let status = match self.ended {
            Ended::Complete => "complete",
            Ended::CompleteBefore => "complete_before",
            Ended::Interrupted => "interrupted",
        };
        let skipped = Reason::ALL.map(|reason| (reason.name().to_owned(), list.skipped.tally(reason).count.into()));
        let examples = Reason::ALL.into_iter().flat_map(|reason| {
            let examples = &list.skipped.tally(reason).examples;
            examples.iter().map(move |(line, text)| json!({"reason": reason.name(), "line": line, "text": text}))
        });
        json!({
            "status": status,
            "users": list.ids.len(),
            "edges": list.edges.len(),
            "objects_written": self.objects.0,
            "object_seconds": self.objects.1.as_secs_f64(),
            "edges_written": self.edges.0,
            "seconds": self.edges.1.as_secs_f64(),
            "edges_per_second": self.rate(),
            "skipped": serde_json::Map::from_iter(skipped),
            "skipped_examples": examples.collect::<Json>(),
        })
    }

    /// For people, with line ends.
    pub fn text(&self, list: &EdgeList) -> String {
        let mut out = String::new();
        let ((objects, objects_took), (edges, edges_took)) = (self.objects, self.edges);
        // Writing to a string can't fail.
        let _ = writeln!(out, "{} users, {} edges in the file", list.ids.len(), list.edges.len());
        if self.ended != Ended::CompleteBefore {
            let (objects_took, edges_took) = (objects_took.as_secs_f64(), edges_took.as_secs_f64());
            let _ = writeln!(
                out,
                "wrote {objects} objects in {objects_took:.1} s, {edges} edges in {edges_took:.1} s: {:.0} edges/s",
                self.rate()
            );
        }
        for reason in Reason::ALL {
            let tally = list.skipped.tally(reason);
            if tally.count > 0 {
                let _ = writeln!(out, "skipped {} {}", tally.count, reason.description());
            }
            for (number, line) in &tally.examples {
                // Quoted: what a broken file has may not be fit for a terminal.
                let _ = writeln!(out, "  line {number}: {line:?}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_what_was_done_and_what_was_not_and_why() {
        let list = super::super::edge_list::read(&b"1 2\n1 2\n3 3\nx\x1by\n2 3\n"[..], false).unwrap();
        let report = Report {
            ended: Ended::Complete,
            objects: (3, Duration::from_secs(1)),
            edges: (2, Duration::from_millis(500)),
        };
        let text = report.text(&list);
        for part in ["3 users, 2 edges", "2 edges in 0.5 s: 4 edges/s", "skipped 1 edges from", "line 4: \"x\\u{1b}y\""]
        {
            assert!(text.contains(part), "{part} not in {text}");
        }
        let json = report.json(&list);
        assert_eq!((&json["users"], &json["edges"], &json["seconds"]), (&3.into(), &2.into(), &0.5.into()));
        assert_eq!((&json["status"], &json["skipped"]["repeated"]), (&"complete".into(), &1.into()));
        assert_eq!(json["skipped_examples"][0], json!({"reason": "to_itself", "line": 3, "text": "3 3"}));
    }
}
