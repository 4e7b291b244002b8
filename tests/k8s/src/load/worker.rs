//! One session: it writes, and reads what it wrote.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rand::Rng as _;
use tao_client::{ClientError, Session, v1};

use super::story::{FIELD, Story, value_of};
use super::tally::Tally;

/// Others, to whom its edges go.
const OTHERS: usize = 50;

/// A session, and what it has written.
pub struct Worker {
    session: Session,
    tally: Arc<Mutex<Tally>>,
    story: Story,
    others: Vec<i64>,
    step: i64,
}

impl Worker {
    /// Makes the objects that it works with.
    pub async fn begin(session: Session, number: usize, tally: Arc<Mutex<Tally>>) -> Result<Self> {
        let mut ids = Vec::with_capacity(OTHERS + 1);
        for n in 0..=OTHERS {
            let name = v1::Value { kind: Some(v1::value::Kind::StringValue(format!("worker {number}, user {n}"))) };
            let request = v1::ObjectAddRequest {
                r#type: "user".to_owned(),
                data: [("name".to_owned(), name)].into(),
                ..Default::default()
            };
            let added = session.object_add(request).await.context("cannot add the load's users")?;
            ids.push(added.object.context("an answer without its object")?.id);
        }
        let story = Story { me: ids[0], ..Story::default() };
        Ok(Self { session, tally, story, others: ids.split_off(1), step: 0 })
    }

    /// What it wrote.
    pub fn story(self) -> Story {
        self.story
    }

    /// One call.
    pub async fn step(&mut self) {
        self.step += 1;
        let other = self.others[rand::rng().random_range(0..self.others.len())];
        let kind = rand::rng().random_range(0..100);
        match kind {
            0..10 => self.update().await,
            10..20 => self.follow(other).await,
            20..50 => self.read_object(self.story.me).await,
            50..65 => self.read_object(other).await,
            65..80 => self.count().await,
            80..95 => self.newest().await,
            _ => self.edge(other).await,
        }
    }

    async fn update(&mut self) {
        let value = self.step;
        let set = v1::Value { kind: Some(v1::value::Kind::Int64Value(value)) };
        let set = [(FIELD.to_owned(), set)].into();
        let request = v1::ObjectUpdateRequest { id: self.story.me, set, ..Default::default() };
        let began = Instant::now();
        match self.session.object_update(request).await {
            Ok(_) => {
                self.tally.lock().written(began.elapsed());
                self.story.value = value;
                self.story.perhaps.clear();
            }
            Err(error) => {
                if !self.failed_write("ObjectUpdate", &error) {
                    self.story.perhaps.push(value);
                }
            }
        }
    }

    async fn follow(&mut self, to: i64) {
        let time = self.step;
        let request = v1::AssocAddRequest {
            id1: self.story.me,
            r#type: "follows".to_owned(),
            id2: to,
            time: Some(time),
            ..Default::default()
        };
        let began = Instant::now();
        match self.session.assoc_add(request).await {
            Ok(_) => {
                self.tally.lock().written(began.elapsed());
                self.story.edges.insert(to, time);
                self.story.edges_perhaps.remove(&to);
            }
            Err(error) => {
                if !self.failed_write("AssocAdd", &error) {
                    self.story.edges_perhaps.entry(to).or_default().push(time);
                }
            }
        }
    }

    async fn read_object(&mut self, id: i64) {
        let request = v1::ObjectGetRequest { id, options: None };
        let Some(answer) = self.read("ObjectGet", self.session.object_get(request)).await else {
            return;
        };
        let Some(object) = &answer.object else { return self.wrong(format!("object {id} is gone")) };
        let value = value_of(object);
        if id == self.story.me && !self.story.allows_value(value) {
            self.wrong(format!("object {id} has {value} after {} was written", self.story.value));
        }
    }

    async fn count(&mut self) {
        let request = v1::AssocCountRequest { id1: self.story.me, r#type: "follows".to_owned(), options: None };
        if let Some(answer) = self.read("AssocCount", self.session.assoc_count(request)).await
            && !self.story.allows_count(answer.count)
        {
            self.wrong(format!("object {} counts {} of {} edges", self.story.me, answer.count, self.story.edges.len()));
        }
    }

    async fn newest(&mut self) {
        let request =
            v1::AssocRangeRequest { id1: self.story.me, r#type: "follows".to_owned(), limit: 10, ..Default::default() };
        let Some(answer) = self.read("AssocRange", self.session.assoc_range(request)).await else {
            return;
        };
        let expected = self.story.edges.len().min(10);
        if answer.assocs.len() < expected {
            self.wrong(format!("object {} lists {} of {expected} edges", self.story.me, answer.assocs.len()));
        }
        for edge in &answer.assocs {
            if !self.story.allows_edge(edge.id2, Some(edge.time)) {
                self.wrong(format!("edge {} -> {} has time {}", edge.id1, edge.id2, edge.time));
            }
        }
    }

    async fn edge(&mut self, to: i64) {
        let request = v1::AssocGetRequest {
            id1: self.story.me,
            r#type: "follows".to_owned(),
            id2s: vec![to],
            ..Default::default()
        };
        let Some(answer) = self.read("AssocGet", self.session.assoc_get(request)).await else {
            return;
        };
        let time = answer.assocs.first().map(|edge| edge.time);
        if !self.story.allows_edge(to, time) {
            self.wrong(format!("edge {} -> {to} has time {time:?}", self.story.me));
        }
    }

    async fn read<A>(&self, call: &str, asked: impl Future<Output = Result<A, ClientError>>) -> Option<A> {
        let began = Instant::now();
        match asked.await {
            Ok(answer) => {
                self.tally.lock().read(began.elapsed());
                Some(answer)
            }
            Err(error) => {
                self.tally.lock().failed_reads.push(format!("{call}: {error}"));
                None
            }
        }
    }

    /// Whether the write surely was not done.
    fn failed_write(&self, call: &str, error: &ClientError) -> bool {
        self.tally.lock().failed_writes.push(format!("{call}: {error}"));
        error.is_not_applied()
    }

    fn wrong(&self, what: String) {
        self.tally.lock().wrong.push(what);
    }
}
