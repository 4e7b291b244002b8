//! One log's changes from a position on, from whichever leader can be reached: a break is mended here, and nobody notices.

use std::time::Duration;

use bytes::Bytes;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tao_cache::stream::cluster_info;
use tao_model::{ClusterId, Error, LogId, Position, Result};
use tao_proto::internal::{self, subscribe_request::From, subscribe_response::Event};
use tao_rpc::TierGroup;
use tao_rpc::group::Follows;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Bytes that may be on their way from a leader: about a message. What a slow watcher does not take stays at the leader.
const WINDOW: u32 = 512 * 1024;
/// A stream without a heartbeat for so long is taken for dead; leaders send one every 500 ms.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the leaders may be out of reach.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts.
const RETRY: Duration = Duration::from_millis(50);

/// Where a log's changes are to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the present.
    Now,
    /// So long ago, or as far back as changes are kept.
    Back(Duration),
    /// After this position, exactly.
    After(Position),
}

/// See the module.
pub struct Feed {
    leaders: TierGroup,
    /// Chooses among the leaders: streams are spread over them.
    key: u64,
    cluster: ClusterId,
    log: LogId,
    begin: Begin,
    events: Option<(BoxStream<'static, Result<internal::SubscribeResponse>>, Follows)>,
    /// Since when nothing has come.
    failing: Option<Instant>,
    /// When the stream last told something of the log, or began.
    heard: Instant,
    /// Leaders in a row that no longer have what comes next.
    expired: usize,
}

impl Feed {
    /// Not begun.
    pub fn new(leaders: TierGroup, cluster: ClusterId, log: LogId, begin: Begin) -> Self {
        Self {
            leaders,
            key: rand::random(),
            cluster,
            log,
            begin,
            events: None,
            failing: None,
            heard: Instant::now(),
            expired: 0,
        }
    }

    /// The log.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// Begins, and says where.
    pub async fn open(&mut self) -> Result<Position> {
        loop {
            match (self.begin, &self.events) {
                (Begin::After(position), Some(_)) => return Ok(position),
                _ => self.connect().await?,
            }
        }
    }

    /// The next changes, and the position of the last of them. Fails when the stream can't go on without a gap, or when no leader
    /// was reached for [`PATIENCE`].
    pub async fn next(&mut self) -> Result<(Vec<internal::Change>, Position)> {
        loop {
            let position = self.open().await?;
            let Some((events, _)) = &mut self.events else { continue };
            let message = timeout_at(self.heard + SILENCE, events.next()).await;
            let message = message.unwrap_or_else(|_| Err(lost("silent")).into());
            // A leader that is cut off from the log says only that it lives.
            if message.as_ref().is_some_and(|m| m.as_ref().is_ok_and(tells_of_the_log)) {
                self.heard = Instant::now();
            }
            match message.unwrap_or_else(|| Err(lost("ended"))).and_then(|message| take(message, position)) {
                Ok(changes) => {
                    (self.failing, self.expired) = (None, 0);
                    if !changes.is_empty() {
                        let last = position.plus(changes.len() as u64);
                        self.begin = Begin::After(last);
                        return Ok((changes, last));
                    }
                }
                Err(error) => self.broke(error).await?,
            }
        }
    }

    /// One attempt.
    async fn connect(&mut self) -> Result<()> {
        let from = match self.begin {
            Begin::Now => None,
            Begin::Back(back) => Some(From::BackMs(back.as_millis() as u64)),
            Begin::After(position) => Some(From::Resume(position.into())),
        };
        let request = internal::SubscribeRequest {
            subscriber: "watch".to_owned(),
            log: self.log.0,
            cluster: Bytes::copy_from_slice(&self.cluster.0),
            seen: None,
            from,
        };
        let begun = async {
            let (mut events, server) = self.leaders.subscribe_within(self.key, request, WINDOW).await?;
            let first = timeout(SILENCE, events.next()).await.ok().flatten();
            Ok((first.unwrap_or_else(|| Err(lost("no start"))), events, server))
        };
        let begun: Result<_> = begun.await;
        match begun {
            Ok((first, events, server)) => {
                self.events = Some((events, server));
                self.heard = Instant::now();
                match first.and_then(|message| self.started(message)) {
                    Ok(position) => self.begin = Begin::After(position),
                    Err(error) => self.broke(error).await?,
                }
                Ok(())
            }
            Err(error) => self.broke(error).await,
        }
    }

    /// Where a stream begins, if that is where it was to.
    fn started(&self, message: internal::SubscribeResponse) -> Result<Position> {
        let Some(Event::Start(start)) = message.event else { return Err(lost("began without a start")) };
        let info = cluster_info(&start)?;
        if (info.cluster, info.log) != (self.cluster, self.log) {
            let what = format!("a leader sends log {} of cluster {}", info.log.0, info.cluster);
            return Err(Error::Internal { what });
        }
        let position = Position::from(start.position.unwrap_or_default());
        match self.begin {
            Begin::After(seen) if position.epoch > seen.epoch => {
                Err(Error::HistoryUndone { seen, epoch: position.epoch })
            }
            // It has not heard of the epoch yet.
            Begin::After(seen) if position.epoch < seen.epoch => Err(lost("of an older epoch")),
            Begin::After(seen) if position != seen => Err(Error::ChangesExpired { after: seen }),
            Begin::After(_) | Begin::Now | Begin::Back(_) => Ok(position),
        }
    }

    /// Goes to the next leader, unless that can't help (any more).
    async fn broke(&mut self, error: Error) -> Result<()> {
        if let Some((_, server)) = self.events.take() {
            server.broke();
        }
        match &error {
            // Another leader's memory may reach back further.
            Error::ChangesExpired { .. } => {
                self.expired += 1;
                if self.expired >= self.leaders.len() {
                    return Err(error);
                }
            }
            error if error.is_retryable() => {}
            _ => return Err(error),
        }
        let since = *self.failing.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            return Err(error);
        }
        tracing::debug!(log = self.log.0, %error, "a watched change stream broke");
        metrics::counter!("tao_watch_resumes_total").increment(1);
        sleep(RETRY).await;
        Ok(())
    }
}

fn lost(what: &str) -> Error {
    Error::unavailable(format!("change stream: {what}"))
}

fn tells_of_the_log(message: &internal::SubscribeResponse) -> bool {
    !matches!(&message.event, Some(Event::Heartbeat(heartbeat)) if heartbeat.time_ms == 0)
}

/// The changes of a message, which must be those that follow `position`.
fn take(message: internal::SubscribeResponse, position: Position) -> Result<Vec<internal::Change>> {
    let (follows, changes) = match message.event {
        Some(Event::Changes(changes)) => (changes.previous, changes.changes),
        Some(Event::Heartbeat(heartbeat)) => (heartbeat.position, Vec::new()),
        Some(Event::Start(_)) | None => return Err(lost("an event out of place")),
    };
    let expected = (1..).map(|n| position.plus(n));
    let consecutive = changes.iter().zip(expected).all(|(change, at)| change.position == Some(at.into()));
    if follows.map(Position::from) != Some(position) || !consecutive {
        return Err(lost("a gap"));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tao_rpc::{CallContext, Drain, LinkOptions, Op, ServerLimits, TierHandler, TierReply, tier_server};
    use tao_stream::{History, Origin, Piece, Ring};
    use tonic::transport::server::{Server, TcpIncoming};

    const CLUSTER: ClusterId = ClusterId([5; 16]);
    const LOG: LogId = LogId(2);

    fn at(lsn: u64) -> Position {
        Position::new(1, lsn)
    }

    /// Nothing is kept but what the ring has.
    struct Nothing;

    #[async_trait::async_trait]
    impl History for Nothing {
        async fn after(&self, after: Position) -> Result<Vec<Piece>> {
            Err(Error::ChangesExpired { after })
        }
        async fn back(&self, _: Duration) -> Result<Position> {
            Err(Error::unavailable("nothing is kept"))
        }
    }

    /// A leader that has nothing but a ring.
    #[derive(Clone)]
    struct Leader(Ring);

    impl TierHandler for Leader {
        async fn call(&self, _: CallContext, _: Op) -> Result<TierReply> {
            Err(Error::unavailable("only a stream"))
        }
        async fn subscribe(
            &self,
            request: internal::SubscribeRequest,
        ) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
            tao_stream::subscribe(&self.0, Arc::new(Nothing), Origin::from(&request)).await
        }
    }

    impl Leader {
        fn new(start: Position) -> Self {
            let leader = Self(Ring::new(1 << 20));
            leader.start(start);
            leader
        }

        fn start(&self, position: Position) {
            self.0.start(internal::Start {
                position: Some(position.into()),
                cluster: CLUSTER.0.to_vec().into(),
                log: LOG.0,
                time_bits: 42,
                shard_bits: 10,
                sequence_bits: 12,
                shards: 1024,
            });
        }

        fn push(&self, from: u64, to: u64) {
            let change = |lsn| internal::Change { position: Some(at(lsn).into()), ..Default::default() };
            let changes = (from + 1..=to).map(change).collect();
            self.0.push(Piece::new(internal::Changes { previous: Some(at(from).into()), changes }).unwrap()).unwrap();
        }

        /// Serves on loopback until the drain.
        fn serve(&self, drain: &Drain) -> String {
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
            let address = incoming.local_addr().unwrap().to_string();
            let service = tier_server(self.clone(), ServerLimits::default(), drain.clone());
            tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
            address
        }
    }

    fn feed(leaders: &[String], begin: Begin) -> Feed {
        Feed::new(TierGroup::new(leaders, &LinkOptions::default()).unwrap(), CLUSTER, LOG, begin)
    }

    #[tokio::test]
    async fn a_stream_goes_on_at_whichever_leader_has_what_follows() {
        let (old, young) = (Leader::new(at(0)), Leader::new(at(6)));
        let (drain, never) = (Drain::new(), Drain::new());
        old.push(0, 6);
        let leaders = [old.serve(&drain), young.serve(&never)];
        // Whichever is asked first.
        let mut feeds: Vec<_> = (0..8).map(|_| feed(&leaders, Begin::After(at(2)))).collect();
        for feed in &mut feeds {
            assert_eq!(feed.open().await.unwrap(), at(2));
            let (changes, position) = feed.next().await.unwrap();
            assert_eq!((changes.len(), position), (4, at(6)));
        }
        drain.begin();
        young.push(6, 7);
        for feed in &mut feeds {
            assert_eq!(feed.next().await.unwrap().1, at(7));
        }
    }

    #[tokio::test]
    async fn what_no_leader_has_is_told_and_so_is_history_that_was_undone() {
        let leader = Leader::new(at(6));
        let leaders = [leader.serve(&Drain::new())];
        let expired = feed(&leaders, Begin::After(at(2))).open().await.unwrap_err();
        assert_eq!(expired, Error::ChangesExpired { after: at(2) });
        let mut feed = feed(&leaders, Begin::Now);
        assert_eq!(feed.open().await.unwrap(), at(6));
        leader.push(6, 8);
        assert_eq!(feed.next().await.unwrap().1, at(8));
        leader.start(Position::new(2, 7));
        assert_eq!(feed.next().await.unwrap_err(), Error::HistoryUndone { seen: at(8), epoch: 2 });
    }
}
