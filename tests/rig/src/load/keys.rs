//! What is read and written: a few hot objects, some more that are not, and neighbours that edges go to.

use parking_lot::RwLock;
use rand::Rng;
use tao_model::{AssocRef, ObjectId, TypeId};

/// Users that get half of all calls.
const HOT: usize = 10;
/// An edge goes to one of so many neighbours, so that it often exists already.
const NEIGHBOURS: usize = 12;
/// Objects of the run that are still read.
const RECENT: usize = 512;

/// Numbers of the built-in schema's types.
pub(crate) mod types {
    use tao_model::TypeId;

    pub const FOLLOWS: TypeId = TypeId(1);
    pub const FOLLOWED_BY: TypeId = TypeId(2);
    pub const LIKES: TypeId = TypeId(3);
    pub const LIKED_BY: TypeId = TypeId(4);
    pub const FRIEND: TypeId = TypeId(5);
    pub const MESSAGED: TypeId = TypeId(10);
    pub const MESSAGED_BY: TypeId = TypeId(11);
    /// From user to user: an edge can be moved from one to another.
    pub const BETWEEN_USERS: [TypeId; 5] = [FOLLOWS, FOLLOWED_BY, FRIEND, MESSAGED, MESSAGED_BY];
}
use types::{BETWEEN_USERS, LIKED_BY, LIKES};

/// The ids that sessions work with.
#[derive(Debug, Default)]
pub struct Keys {
    /// Users that exist at the beginning, and some that are only allocated.
    pub users: RwLock<Vec<ObjectId>>,
    /// The same of posts.
    pub posts: RwLock<Vec<ObjectId>>,
    /// What was added last.
    recent: RwLock<Vec<ObjectId>>,
}

/// Half of the time one of the hot ones.
fn any(rng: &mut impl Rng, len: usize) -> usize {
    if rng.random_bool(0.5) { rng.random_range(0..HOT.min(len)) } else { rng.random_range(0..len) }
}

impl Keys {
    /// A user.
    pub fn user(&self, rng: &mut impl Rng) -> ObjectId {
        let users = self.users.read();
        users[any(rng, users.len())]
    }

    /// A user or a post, and its type's name.
    pub fn object(&self, rng: &mut impl Rng) -> (ObjectId, &'static str) {
        if rng.random_bool(0.75) {
            return (self.user(rng), "user");
        }
        let posts = self.posts.read();
        (posts[any(rng, posts.len())], "post")
    }

    /// An object to read: one of those, or one that was added a while ago.
    pub fn to_read(&self, rng: &mut impl Rng) -> ObjectId {
        let recent = self.recent.read();
        if !recent.is_empty() && rng.random_bool(0.1) {
            return recent[rng.random_range(0..recent.len())];
        }
        self.object(rng).0
    }

    /// Remembers an object that was added.
    pub fn added(&self, id: ObjectId, at: usize) {
        let mut recent = self.recent.write();
        if recent.len() < RECENT {
            recent.push(id);
        } else {
            recent[at % RECENT] = id;
        }
    }

    /// An edge, as seen from either end.
    pub fn edge(&self, rng: &mut impl Rng) -> AssocRef {
        let users = self.users.read();
        let from = any(rng, users.len());
        if rng.random_bool(0.25) {
            let posts = self.posts.read();
            let post = posts[(from + rng.random_range(0..NEIGHBOURS)) % posts.len()];
            return if rng.random_bool(0.7) {
                AssocRef { id1: users[from], atype: LIKES, id2: post }
            } else {
                AssocRef { id1: post, atype: LIKED_BY, id2: users[from] }
            };
        }
        let to = (from + rng.random_range(1..=NEIGHBOURS)) % users.len();
        AssocRef { id1: users[from], atype: BETWEEN_USERS[rng.random_range(0..BETWEEN_USERS.len())], id2: users[to] }
    }

    /// An edge between users, and another type that it can get.
    pub fn move_of(&self, rng: &mut impl Rng) -> (AssocRef, TypeId) {
        loop {
            let edge = self.edge(rng);
            let new = BETWEEN_USERS[rng.random_range(0..BETWEEN_USERS.len())];
            if BETWEEN_USERS.contains(&edge.atype) && new != edge.atype {
                return (edge, new);
            }
        }
    }

    /// Every object and every list that sessions work with.
    pub fn all(&self) -> (Vec<ObjectId>, Vec<(ObjectId, TypeId)>) {
        let (users, posts) = (self.users.read(), self.posts.read());
        let objects = users.iter().chain(posts.iter()).chain(self.recent.read().iter()).copied().collect();
        let of_users = users.iter().flat_map(|u| BETWEEN_USERS.iter().chain(&[LIKES]).map(|t| (*u, *t)));
        let lists = of_users.chain(posts.iter().map(|p| (*p, LIKED_BY))).collect();
        (objects, lists)
    }
}
