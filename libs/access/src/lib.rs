//! Who asks at the public door, and what they may do there: certificates and signed tokens say who, a policy says what.

mod access;
mod caller;
mod crypto;
mod fetched;
pub mod fuzz;
mod grants;
mod keys;
mod peer;
mod policy;
mod problem;
mod remembered;
mod rules;
mod standing;
mod token;

pub use access::Access;
pub use caller::Caller;
pub use fetched::JwksUrl;
pub use grants::{Grants, Types};
pub use peer::Peer;
pub use problem::Problem;
pub use rules::{AccessOptions, FollowsRules, JwtOptions, KeySource};
pub use standing::Standing;
pub use token::Expected;
