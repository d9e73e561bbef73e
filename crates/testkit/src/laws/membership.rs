//! Laws of membership that hold on every backend. What a lease is worth is shown where nodes can die.

use std::sync::Arc;

use phalanx_core::Generation;
use phalanx_core::backend::{Membership, NodeRecord, Renewal};

/// Makes a test of each law of membership: `membership_laws!(memory: make())`.
#[macro_export]
macro_rules! membership_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            membership,
            $backend,
            $make,
            [a_node_is_listed_from_register_to_leave, a_generation_that_is_not_registered_has_no_lease]
        );
    };
}

/// A record of a node called `n` and the generation.
#[must_use]
pub fn record(generation: Generation) -> NodeRecord {
    NodeRecord {
        generation,
        id: format!("n-{generation}"),
        version: "1.2.3".to_owned(),
        started_at: 7,
        roles: vec!["web".to_owned()],
        earlier: vec![Generation::random()],
    }
}

/// Twice is once.
pub async fn a_node_is_listed_from_register_to_leave(membership: Arc<dyn Membership>) {
    let (one, other) = (record(Generation::random()), record(Generation::random()));
    let life = membership.register(&one).await.expect("the backend answers");
    assert_eq!(membership.register(&one).await.expect("the backend answers"), life);
    assert_eq!(membership.register(&other).await.expect("the backend answers"), life);
    let mut nodes = membership.nodes().await.expect("the backend answers");
    nodes.sort_by_key(|node| node.generation != one.generation);
    assert_eq!(nodes, [one.clone(), other.clone()]);
    membership.leave(one.generation).await.expect("the backend answers");
    assert_eq!(membership.nodes().await.expect("the backend answers"), [other]);
}

/// Neither before it is, nor after it left.
pub async fn a_generation_that_is_not_registered_has_no_lease(membership: Arc<dyn Membership>) {
    let one = record(Generation::random());
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
    membership.register(&one).await.expect("the backend answers");
    let renewal = membership.renew(one.generation).await.expect("the backend answers");
    assert!(matches!(renewal, Renewal::Standing(standing) if standing.lapsed.is_empty()));
    membership.leave(one.generation).await.expect("the backend answers");
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
}
