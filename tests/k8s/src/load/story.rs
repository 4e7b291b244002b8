//! What one session wrote: what must be there at the end.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tao_client::{Session, v1};

/// The writes of one session that were acknowledged, and those of which nobody knows.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// The object that the session updates, and from which its edges go out.
    pub me: i64,
    /// The last value that its field got.
    pub value: i64,
    /// What the field may have instead: writes after that one which failed and may yet have been done.
    pub perhaps: Vec<i64>,
    /// By the edge's other end, its time.
    pub edges: BTreeMap<i64, i64>,
    /// Times of edges that a failed write may have added or moved.
    pub edges_perhaps: BTreeMap<i64, Vec<i64>>,
}

impl Story {
    /// Whether the field may have this value, now that `value` was acknowledged.
    pub fn allows_value(&self, value: i64) -> bool {
        value == self.value || self.perhaps.contains(&value)
    }

    /// Whether an edge may have this time, or be absent.
    pub fn allows_edge(&self, to: i64, time: Option<i64>) -> bool {
        self.edges.get(&to).copied() == time
            || time.is_some_and(|time| self.edges_perhaps.get(&to).is_some_and(|times| times.contains(&time)))
    }

    /// The counts that the list may have.
    pub fn allows_count(&self, count: i64) -> bool {
        let sure = self.edges.len() as i64;
        let perhaps = self.edges_perhaps.keys().filter(|to| !self.edges.contains_key(to)).count() as i64;
        (sure..=sure + perhaps).contains(&count)
    }

    /// Reads all of it as it is stored; answers with what is not as it was acknowledged.
    pub async fn lost(&self, session: &Session) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        let strong = || Some(v1::ReadOptions { consistency: v1::Consistency::Strong.into(), ..Default::default() });
        let object = session.object_get(v1::ObjectGetRequest { id: self.me, options: strong() }).await?;
        let value = value_of(object.object.as_ref().context("an object that was added is gone")?);
        if !self.allows_value(value) {
            lost.push(format!("object {} has {value}, and {} was acknowledged", self.me, self.value));
        }
        let mut stored = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let request = v1::AssocRangeRequest {
                id1: self.me,
                r#type: "follows".to_owned(),
                limit: 1000,
                cursor,
                options: strong(),
                ..Default::default()
            };
            let page = session.assoc_range(request).await?;
            stored.extend(page.assocs.iter().map(|edge| (edge.id2, edge.time)));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        for to in self.edges.keys().chain(stored.keys()) {
            let time = stored.get(to).copied();
            if !self.allows_edge(*to, time) {
                let acknowledged = self.edges.get(to);
                lost.push(format!("edge {} -> {to} has time {time:?}, acknowledged was {acknowledged:?}", self.me));
            }
        }
        let request = v1::AssocCountRequest { id1: self.me, r#type: "follows".to_owned(), options: strong() };
        let count = session.assoc_count(request).await?.count;
        if count != stored.len() as i64 {
            lost.push(format!("object {} counts {count} edges and has {}", self.me, stored.len()));
        }
        Ok(lost)
    }
}

/// The field that sessions write.
pub const FIELD: &str = "step";

/// The field's value in an object; 0 if it has none.
pub fn value_of(object: &v1::Object) -> i64 {
    match object.data.get(FIELD).and_then(|value| value.kind.as_ref()) {
        Some(v1::value::Kind::Int64Value(value)) => *value,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_or_may_have_been_done_is_allowed() {
        let mut story = Story { value: 7, ..Story::default() };
        assert!(story.allows_value(7) && !story.allows_value(6) && !story.allows_value(8));
        story.perhaps.push(8);
        assert!(story.allows_value(8) && story.allows_value(7) && !story.allows_value(9));

        story.edges.insert(1, 70);
        assert!(story.allows_edge(1, Some(70)) && !story.allows_edge(1, None) && !story.allows_edge(1, Some(69)));
        assert!(story.allows_edge(2, None) && !story.allows_edge(2, Some(1)));
        assert!(story.allows_count(1) && !story.allows_count(0) && !story.allows_count(2));
        // A write that moves an edge which is there leaves its count; one that may have added another does not.
        story.edges_perhaps.insert(1, vec![71]);
        assert!(story.allows_edge(1, Some(71)) && story.allows_edge(1, Some(70)) && !story.allows_count(2));
        story.edges_perhaps.insert(2, vec![72]);
        assert!(story.allows_edge(2, Some(72)) && story.allows_edge(2, None) && story.allows_count(2));
    }
}
