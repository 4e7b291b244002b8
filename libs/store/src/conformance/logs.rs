//! The log for those who resume, and epochs.

use std::time::Duration;

use tao_model::{Error, Placement, Position, Write};
use tao_stream::Origin;

use super::{Suite, number};
use crate::listener::Listener;

const HOUR: Duration = Duration::from_secs(3_600);

impl Suite {
    /// What was committed can be read again from anywhere, in pages, and resumed.
    pub(super) async fn logs(&self) {
        let before = self.store.head().await.unwrap();
        let mut written = Vec::new();
        for _ in 0..10 {
            let (a, b) = (self.user().await, self.user().await);
            self.link(self.edge(a, "friend", b), 5).await;
            written.extend([a, b]);
        }
        let head = self.store.head().await.unwrap();
        assert_eq!(head, before.plus(40));
        for behind in 0..=40 {
            let from = before.plus(behind);
            let mut at = from;
            while at < head {
                let pieces = self.store.log_after(at, 1).await.unwrap();
                assert_eq!(pieces.len(), 1, "about as many bytes as were asked for, and at least one piece");
                assert!(pieces[0].previous <= at && pieces[0].last > at);
                at = pieces[0].last;
            }
            assert_eq!(at, head);
            assert_eq!(self.store.log_after(from, 1 << 20).await.unwrap().last().map_or(from, |p| p.last), head);
        }
        assert_eq!(self.store.log_after(head, 1 << 20).await.unwrap(), []);
        let beyond = self.store.log_after(head.plus(1), 1).await;
        assert!(matches!(beyond, Err(Error::TokenFromFuture { head: h, .. }) if h == head), "{beyond:?}");
        let other = self.store.log_after(Position::new(head.epoch - 1, head.lsn), 1).await;
        assert!(matches!(other, Err(Error::ChangesExpired { .. })), "{other:?}");

        assert_eq!(self.store.log_position_back(HOUR, 40).await.unwrap(), before);
        assert!(self.store.log_position_back(HOUR, 39).await.unwrap() > before, "not more changes than were asked for");
        assert!(self.store.log_position_back(HOUR, u64::MAX).await.unwrap() < before);
        assert_eq!(self.store.log_position_back(HOUR, 0).await.unwrap(), head);

        for origin in [Origin::After(before), Origin::After(before.plus(2)), Origin::Back(HOUR)] {
            let mut listener = Listener::open(&self.store, origin).await.unwrap();
            assert!(listener.position <= before.plus(2));
            let heard = listener.up_to(head).await.unwrap();
            assert!(heard.iter().any(|change| change.key().owner() == written[2]));
        }
    }

    /// After a new epoch the log goes on, streams begin anew, and what was is still there.
    pub(super) async fn epochs(&self) {
        let id = self.user().await;
        let head = self.store.head().await.unwrap();
        assert_eq!(self.store.begin_epoch(head).await.unwrap(), head, "it is there");
        let mut listener = Listener::open(&self.store, Origin::After(head)).await.unwrap();
        let seen = head.plus(1_000);
        let (one, two) = tokio::join!(self.store.begin_epoch(seen), self.store.begin_epoch(seen));
        let begun = one.unwrap();
        assert_eq!(begun, two.unwrap(), "one epoch for all who say the same");
        assert!(begun.epoch > head.epoch && begun.lsn == head.lsn);
        assert!(listener.changes().await.is_err(), "the stream ends");

        let mut listener = Listener::open(&self.store, Origin::After(seen)).await.unwrap();
        assert_eq!(listener.position, begun);
        let add = Write::ObjectAdd { otype: self.otype("user"), data: number(1), placement: Placement::Anywhere };
        let added = self.write(add).await.unwrap();
        assert_eq!(added.position, begun.plus(1));
        assert_eq!(listener.up_to(added.position).await.unwrap(), added.changes);
        assert!(self.object(id).await.is_some());
        let gone = self.store.log_after(head, 1).await;
        assert!(matches!(gone, Err(Error::ChangesExpired { .. })), "{gone:?}");
        // A list's chain goes over the epoch's beginning.
        let edge = self.edge(id, "friend", added.changes[0].key().owner());
        let linked = self.link(edge, 5).await;
        assert_eq!(linked.position, begun.plus(3));
    }
}
