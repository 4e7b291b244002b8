//! What a session has seen: parts of it come with every answer, all of it goes with every call.

use std::sync::Arc;

use tao_model::Token;

/// A session's token, merged when it is learned and encoded when it is asked for.
#[derive(Debug)]
pub(crate) struct Seen {
    /// None when nothing was seen, or what can't be read here (a format of a newer server): then the text is all there is.
    token: Option<Token>,
    text: Arc<str>,
    /// Whether the token knows more than the text.
    is_ahead: bool,
    /// What was learned last: most answers in a row have seen the same.
    last: Arc<str>,
}

impl Seen {
    /// What an earlier session had seen; nothing when it is empty.
    pub fn new(text: &str) -> Self {
        let text: Arc<str> = text.into();
        Self { token: Token::parse(&text).ok(), last: text.clone(), text, is_ahead: false }
    }

    /// All of it.
    pub fn text(&mut self) -> Arc<str> {
        if let Some(token) = self.token.as_ref().filter(|_| self.is_ahead) {
            self.text = token.encode().into();
            self.is_ahead = false;
        }
        self.text.clone()
    }

    /// Adds what an answer has seen. Where it can't be merged (another cluster, a format of a newer server) the newer one counts.
    pub fn learn(&mut self, seen: &Arc<str>) {
        self.join(seen, Token::merge);
    }

    /// Adds what a stream of changes has told.
    pub fn learn_told(&mut self, told: &Arc<str>) {
        self.join(told, Token::merge_told);
    }

    fn join(&mut self, seen: &Arc<str>, merge: impl Fn(&mut Token, &Token)) {
        if seen.is_empty() || *self.last == **seen {
            return;
        }
        self.last = seen.clone();
        let new = Token::parse(seen).ok();
        match (&mut self.token, new) {
            (Some(token), Some(new)) if token.cluster() == new.cluster() => {
                merge(token, &new);
                self.is_ahead = true;
            }
            (_, new) => *self = Self { token: new, text: seen.clone(), is_ahead: false, last: seen.clone() },
        }
    }
}

/// What either token has seen. Where they can't be merged the second one counts.
pub(crate) fn merged(first: &Arc<str>, second: &str) -> Arc<str> {
    if second.is_empty() {
        return first.clone();
    }
    let mut both = Seen::new(first);
    both.learn(&second.into());
    both.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{ClusterId, LogId, Position, ShardId};

    fn token(cluster: u8, shard: u32, lsn: u64) -> Arc<str> {
        let mut token = Token::new(ClusterId([cluster; 16]));
        token.see(ShardId(shard), Position::new(1, lsn), |_| LogId(0));
        token.encode().into()
    }

    #[test]
    fn tokens_of_a_session_are_merged_whatever_their_order() {
        let (a, b) = (token(3, 1, 10), token(3, 2, 7));
        assert_eq!(merged(&a, &b), merged(&b, &a));
        let older = merged(&merged(&a, &b), &token(3, 1, 4));
        let (floor, both) = (|text: &str| Token::parse(text).unwrap().floor(ShardId(1), LogId(0)), merged(&a, &b));
        assert_eq!(floor(&older), floor(&both), "what is older takes nothing away");
        assert_eq!((merged(&"".into(), &a), merged(&a, "")), (a.clone(), a.clone()));
        for unlike in [token(4, 1, 1), "of a newer server".into()] {
            assert_eq!(merged(&a, &unlike), unlike, "the newer one counts");
            assert_eq!(merged(&unlike, &a), a);
        }
    }

    #[test]
    fn what_is_learned_again_is_known() {
        let mut seen = Seen::new("");
        seen.learn(&token(3, 1, 10));
        let first = seen.text();
        seen.learn(&token(3, 1, 10));
        assert!(Arc::ptr_eq(&first, &seen.text()), "nothing to encode");
        seen.learn(&token(3, 2, 10));
        assert_ne!(first, seen.text());
    }
}
