//! What a request says about freshness, from its message and its metadata, and what its answer tells the session in turn.

use std::sync::Arc;

use tao_access::Caller;
use tao_cache::Mode;
use tao_model::limits::{MAX_IDEMPOTENCY_KEY, MAX_STALENESS_MS};
use tao_model::{Error, Position, Result, ShardId, Token, Violations};
use tao_proto::{metadata, v1};
use tao_topology::ClusterMap;
use tonic::metadata::MetadataMap;

/// What a call has seen of the graph: it becomes part of the session's token.
pub type Seen = (ShardId, Position);

/// A session as one request brings it.
#[derive(Debug, Clone)]
pub struct Session {
    caller: Arc<Caller>,
    map: ClusterMap,
    token: Token,
    mode: Mode,
    /// Whether the token is a floor for reads.
    floored: bool,
    /// Of a write; empty when the caller gave none.
    pub idempotency_key: String,
    /// Whether its token travels in metadata.
    by_metadata: bool,
}

impl Session {
    /// Of a read. Options in the message win over metadata, field by field.
    pub fn of_read(
        caller: &Arc<Caller>,
        map: &ClusterMap,
        options: Option<&v1::ReadOptions>,
        metadata: &MetadataMap,
        violations: &mut Violations,
    ) -> Result<Self> {
        let mut options = options.cloned().unwrap_or_default();
        if options.session_token.is_empty() {
            text(metadata, metadata::SESSION_TOKEN, violations)
                .unwrap_or_default()
                .clone_into(&mut options.session_token);
        }
        if options.consistency == 0
            && let Some(level) = text(metadata, metadata::CONSISTENCY, violations)
        {
            match v1::Consistency::from_str_name(&format!("CONSISTENCY_{}", level.to_ascii_uppercase())) {
                Some(level) => options.consistency = level as i32,
                None => violations.add(
                    format!("metadata {}", metadata::CONSISTENCY),
                    "one of minimize_latency, at_least_as_fresh, bounded_staleness, strong",
                ),
            }
        }
        if options.max_staleness_ms == 0
            && let Some(ms) = text(metadata, metadata::MAX_STALENESS_MS, violations)
        {
            match ms.parse() {
                Ok(ms) => options.max_staleness_ms = ms,
                Err(_) => {
                    violations.add(format!("metadata {}", metadata::MAX_STALENESS_MS), "a number of milliseconds");
                }
            }
        }
        let mut session = Self::new(caller, map, None, &options, violations)?;
        session.by_metadata = metadata.contains_key(metadata::SESSION_TOKEN);
        Ok(session)
    }

    /// Of a read in a pipeline, where `given` is the token that the call refers to.
    pub fn of_piped_read(
        caller: &Arc<Caller>,
        map: &ClusterMap,
        given: Option<&Token>,
        options: Option<&v1::ReadOptions>,
        violations: &mut Violations,
    ) -> Result<Self> {
        let none = v1::ReadOptions::default();
        let options = options.unwrap_or(&none);
        check_one_token(given, &options.session_token, violations);
        Self::new(caller, map, given, options, violations)
    }

    /// Of a write in a pipeline.
    pub fn of_piped_write(
        caller: &Arc<Caller>,
        map: &ClusterMap,
        given: Option<&Token>,
        options: Option<&v1::WriteOptions>,
        violations: &mut Violations,
    ) -> Result<Self> {
        let own = options.map_or("", |o| o.session_token.as_str());
        check_one_token(given, own, violations);
        let read = v1::ReadOptions { session_token: own.to_owned(), ..Default::default() };
        let mut session = Self::new(caller, map, given, &read, violations)?;
        session.take_key(options, &MetadataMap::new(), violations);
        Ok(session)
    }

    /// Of a write: the token is merged, and no floor.
    pub fn of_write(
        caller: &Arc<Caller>,
        map: &ClusterMap,
        options: Option<&v1::WriteOptions>,
        metadata: &MetadataMap,
        violations: &mut Violations,
    ) -> Result<Self> {
        let given = options.map_or("", |o| o.session_token.as_str());
        let token = if given.is_empty() {
            text(metadata, metadata::SESSION_TOKEN, violations).unwrap_or_default()
        } else {
            given
        };
        let read = v1::ReadOptions { session_token: token.to_owned(), ..Default::default() };
        let mut session = Self::new(caller, map, None, &read, violations)?;
        session.by_metadata = metadata.contains_key(metadata::SESSION_TOKEN);
        session.take_key(options, metadata, violations);
        Ok(session)
    }

    /// A batch's session, as one of its reads has it: the item's own options win, field by field.
    pub fn for_read(&self, own: Option<&v1::ReadOptions>, violations: &mut Violations) -> Result<Self> {
        let Some(own) = own else { return Ok(self.clone()) };
        let inherited = (own.session_token.is_empty() && !self.token.is_empty()).then_some(&self.token);
        let mut session = Self::new(&self.caller, &self.map, inherited, own, violations)?;
        if !own.session_token.is_empty() {
            session.merge(&self.token);
        }
        if own.consistency == 0 && own.max_staleness_ms == 0 {
            session.mode = self.mode;
            session.floored = self.floored || !own.session_token.is_empty();
        }
        Ok(session)
    }

    /// A batch's session, as one of its writes has it.
    pub fn for_write(&self, own: Option<&v1::WriteOptions>, violations: &mut Violations) -> Result<Self> {
        let mut session = self.clone();
        session.idempotency_key.clear();
        if let Some(own) = own {
            if !own.session_token.is_empty() {
                session.merge(&Token::decode(&own.session_token, self.map.cluster)?);
            }
            session.take_key(Some(own), &MetadataMap::new(), violations);
        }
        Ok(session)
    }

    /// The token is the one given, else that of the options.
    fn new(
        caller: &Arc<Caller>,
        map: &ClusterMap,
        given: Option<&Token>,
        options: &v1::ReadOptions,
        violations: &mut Violations,
    ) -> Result<Self> {
        use v1::Consistency;
        let token = match given {
            Some(token) => token.clone(),
            None => decode(map, &options.session_token, violations)?,
        };
        let has_token = given.is_some() || !options.session_token.is_empty();
        let level = Consistency::try_from(options.consistency).unwrap_or_else(|_| {
            violations.add("options.consistency", format!("{} is no consistency level", options.consistency));
            Consistency::Unspecified
        });
        let bounded = level == Consistency::BoundedStaleness;
        if bounded != (options.max_staleness_ms != 0) {
            violations
                .add("options.max_staleness_ms", "set together with CONSISTENCY_BOUNDED_STALENESS, and only then");
        }
        if options.max_staleness_ms < 0 || options.max_staleness_ms as u64 > MAX_STALENESS_MS {
            let given = options.max_staleness_ms;
            violations.add("options.max_staleness_ms", format!("{given} is not within 1 to {MAX_STALENESS_MS} ms"));
        }
        if level == Consistency::AtLeastAsFresh && !has_token {
            violations.add(
                "options.session_token",
                "required by CONSISTENCY_AT_LEAST_AS_FRESH: pass the token of an earlier answer",
            );
        }
        let mode = match level {
            Consistency::Strong => Mode::Strong,
            Consistency::BoundedStaleness => Mode::MaxStaleness(options.max_staleness_ms.unsigned_abs()),
            Consistency::Unspecified | Consistency::MinimizeLatency | Consistency::AtLeastAsFresh => Mode::Cached,
        };
        let floored = has_token && level != Consistency::MinimizeLatency;
        Ok(Self {
            caller: caller.clone(),
            map: map.clone(),
            token,
            mode,
            floored,
            idempotency_key: String::new(),
            by_metadata: false,
        })
    }

    fn take_key(&mut self, options: Option<&v1::WriteOptions>, metadata: &MetadataMap, violations: &mut Violations) {
        let given = options.map_or("", |o| o.idempotency_key.as_str());
        let key = if given.is_empty() {
            text(metadata, metadata::IDEMPOTENCY_KEY, violations).unwrap_or_default()
        } else {
            given
        };
        if key.len() > MAX_IDEMPOTENCY_KEY {
            let rule = format!("{} bytes are more than {MAX_IDEMPOTENCY_KEY}", key.len());
            violations.add("options.idempotency_key", rule);
        }
        key.clone_into(&mut self.idempotency_key);
    }

    fn merge(&mut self, other: &Token) {
        self.token.merge(other);
    }

    /// Takes over what a session of one of its calls has seen.
    pub fn absorb(&mut self, other: &Self) {
        if self.token != other.token {
            self.merge(&other.token);
        }
    }

    /// The token below which its reads must not fall, if it is one.
    pub fn floor_token(&self) -> Option<&Token> {
        self.floored.then_some(&self.token)
    }

    /// Who asks.
    pub const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// How fresh its reads are.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether its caller looks for the token in metadata.
    pub const fn is_by_metadata(&self) -> bool {
        self.by_metadata
    }

    /// The cluster's shards and ids.
    pub const fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Whether two shards live in one log.
    pub fn is_together(&self, one: ShardId, other: ShardId) -> bool {
        self.map.log_of(one) == self.map.log_of(other)
    }

    /// The position below which its reads of `shard` must not fall, given the epoch that the log is in.
    pub fn floor(&self, shard: ShardId, epoch: Option<u64>) -> Result<Position> {
        if !self.floored {
            return Ok(Position::ZERO);
        }
        let floor = self.token.floor(shard, self.map.log_of(shard));
        match epoch {
            Some(epoch) if floor != Position::ZERO && floor.epoch < epoch => {
                Err(Error::HistoryUndone { seen: floor, epoch })
            }
            _ => Ok(floor),
        }
    }

    /// A token of nothing but what the call has seen; empty when that is nothing.
    pub fn token_of(&self, seen: impl IntoIterator<Item = Seen>) -> String {
        let mut token = Token::new(self.map.cluster);
        for (shard, position) in seen {
            token.see(shard, position, |shard| self.map.log_of(shard));
        }
        if token.is_empty() { String::new() } else { token.encode() }
    }

    /// The token that the answer gives: this one, and what the call has seen.
    pub fn token_with(mut self, seen: impl IntoIterator<Item = Seen>) -> String {
        for (shard, position) in seen {
            self.token.see(shard, position, |shard| self.map.log_of(shard));
        }
        self.token.encode()
    }
}

/// The token of a request that has no options: its own, or that of its metadata. Nothing is seen without one.
pub fn token(map: &ClusterMap, given: &str, metadata: &MetadataMap, violations: &mut Violations) -> Result<Token> {
    let given =
        if given.is_empty() { text(metadata, metadata::SESSION_TOKEN, violations).unwrap_or("") } else { given };
    decode(map, given, violations)
}

fn check_one_token(given: Option<&Token>, own: &str, violations: &mut Violations) {
    if given.is_some() && !own.is_empty() {
        violations.add("session", "not together with options.session_token");
    }
}

fn decode(map: &ClusterMap, text: &str, violations: &mut Violations) -> Result<Token> {
    if text.is_empty() {
        return Ok(Token::new(map.cluster));
    }
    match Token::decode(text, map.cluster) {
        Err(Error::InvalidArgument { violations: v }) => {
            v.into_iter().for_each(|v| violations.add(v.field, v.description));
            Ok(Token::new(map.cluster))
        }
        decoded => decoded,
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str, violations: &mut Violations) -> Option<&'a str> {
    let value = metadata.get(key)?.to_str();
    if value.is_err() {
        violations.add(format!("metadata {key}"), "not ASCII text");
    }
    value.ok().filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{ClusterId, ClusterInfo, IdLayout, LogId};
    use tao_topology::Topology;

    fn map() -> ClusterMap {
        let info = ClusterInfo { cluster: ClusterId([7; 16]), log: LogId(0), layout: IdLayout::STANDARD };
        ClusterMap::new(&info, Topology::single(Vec::new(), Vec::new()).into()).unwrap()
    }

    const SHARD: ShardId = ShardId(3);

    fn token(position: Position) -> String {
        let mut violations = Violations::default();
        let session =
            Session::of_read(&Caller::anybody().into(), &map(), None, &MetadataMap::new(), &mut violations).unwrap();
        session.token_with([(SHARD, position)])
    }

    fn read(options: &v1::ReadOptions, metadata: &MetadataMap) -> Result<Session> {
        let mut violations = Violations::default();
        let session = Session::of_read(&Caller::anybody().into(), &map(), Some(options), metadata, &mut violations)?;
        violations.check().map(|()| session)
    }

    #[test]
    fn a_token_is_a_floor_unless_latency_is_preferred() {
        let at = Position::new(5, 9);
        let mut options = v1::ReadOptions { session_token: token(at), ..Default::default() };
        let session = read(&options, &MetadataMap::new()).unwrap();
        assert_eq!(session.floor(SHARD, Some(5)), Ok(at));
        assert_eq!(session.floor(ShardId(4), Some(5)), Ok(Position::ZERO));
        assert!(matches!(session.floor(SHARD, Some(6)), Err(Error::HistoryUndone { .. })));
        options.set_consistency(v1::Consistency::MinimizeLatency);
        assert_eq!(read(&options, &MetadataMap::new()).unwrap().floor(SHARD, Some(5)), Ok(Position::ZERO));
    }

    #[test]
    fn metadata_serves_where_the_message_is_silent() {
        let mut metadata = MetadataMap::new();
        metadata.insert("tao-session-token", token(Position::new(5, 9)).parse().unwrap());
        metadata.insert("tao-consistency", "Strong".parse().unwrap());
        let session = read(&v1::ReadOptions::default(), &metadata).unwrap();
        assert_eq!((session.mode(), session.floor(SHARD, None)), (Mode::Strong, Ok(Position::new(5, 9))));
        let bounded = v1::ReadOptions { consistency: 3, max_staleness_ms: 20, ..Default::default() };
        assert_eq!(read(&bounded, &metadata).unwrap().mode(), Mode::MaxStaleness(20));
    }

    #[test]
    fn every_wrong_option_is_reported() {
        let options = v1::ReadOptions { consistency: 2, max_staleness_ms: -1, ..Default::default() };
        let Err(Error::InvalidArgument { violations }) = read(&options, &MetadataMap::new()) else {
            panic!("accepted")
        };
        assert_eq!(violations.len(), 3, "{violations:?}");
        let mut metadata = MetadataMap::new();
        metadata.insert("tao-consistency", "fresh".parse().unwrap());
        metadata.insert("tao-max-staleness-ms", "soon".parse().unwrap());
        metadata.insert("tao-session-token", "AAAA".parse().unwrap());
        let Err(Error::InvalidArgument { violations }) = read(&v1::ReadOptions::default(), &metadata) else {
            panic!("accepted")
        };
        assert_eq!(violations.len(), 3, "{violations:?}");
    }

    #[test]
    fn a_token_of_another_cluster_is_refused() {
        let other = Token::new(ClusterId([8; 16])).encode();
        let options = v1::ReadOptions { session_token: other, ..Default::default() };
        assert_eq!(read(&options, &MetadataMap::new()).unwrap_err(), Error::TokenOtherCluster);
    }
}
