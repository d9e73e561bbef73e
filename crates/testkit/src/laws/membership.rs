//! Laws of membership for every backend. How leases expire is tested with the backend on which nodes can die.

use std::sync::Arc;

use phalanx_core::Generation;
use phalanx_core::backend::{Membership, NodeRecord, Renewal};

/// Turns each law of membership into a test: `membership_laws!(memory: make())`.
#[macro_export]
macro_rules! membership_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            membership,
            $backend,
            $make,
            [a_node_is_listed_from_register_to_leave, an_unregistered_generation_has_no_lease]
        );
    };
}

/// A record of a node whose id is `n-` and the generation.
#[must_use]
pub fn record(generation: Generation) -> NodeRecord {
    NodeRecord {
        generation,
        boot: generation,
        id: format!("n-{generation}"),
        version: "1.2.3".to_owned(),
        started_at: 7,
        roles: vec!["web".to_owned()],
        earlier: vec![Generation::random()],
    }
}

/// Registering twice has the same effect as registering once.
pub async fn a_node_is_listed_from_register_to_leave(membership: Arc<dyn Membership>) {
    let (one, other) = (record(Generation::random()), record(Generation::random()));
    let store_epoch = membership.register(&one).await.expect("the backend answers");
    assert_eq!(membership.register(&one).await.expect("the backend answers"), store_epoch);
    assert_eq!(membership.register(&other).await.expect("the backend answers"), store_epoch);
    let mut nodes = membership.nodes().await.expect("the backend answers");
    nodes.sort_by_key(|node| node.generation != one.generation);
    assert_eq!(nodes, [one.clone(), other.clone()]);
    membership.leave(one.generation).await.expect("the backend answers");
    assert_eq!(membership.nodes().await.expect("the backend answers"), [other]);
}

/// Neither before it registers nor after it leaves.
pub async fn an_unregistered_generation_has_no_lease(membership: Arc<dyn Membership>) {
    let one = record(Generation::random());
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
    membership.register(&one).await.expect("the backend answers");
    let renewal = membership.renew(one.generation).await.expect("the backend answers");
    assert!(matches!(renewal, Renewal::Renewed(standing) if standing.expired.is_empty()));
    membership.leave(one.generation).await.expect("the backend answers");
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
}
