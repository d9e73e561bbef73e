//! Laws of membership for every backend. How leases expire is tested with the backend on which nodes can die.

use std::sync::Arc;

use phalanx_core::Generation;
use phalanx_core::backend::{Membership, NodeRecord, RegisterOutcome, Renewal};

/// Turns each law of membership into a test: `membership_laws!(memory: make())`.
#[macro_export]
macro_rules! membership_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            membership,
            $backend,
            $make,
            [
                a_node_is_listed_from_register_to_leave,
                an_unregistered_generation_has_no_lease,
                a_generation_that_was_removed_is_refused,
                earlier_generations_of_a_node_are_no_nodes,
            ]
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
    assert_eq!(membership.register(&one, false).await.expect("the backend answers"), RegisterOutcome::Registered);
    assert_eq!(membership.register(&one, false).await.expect("the backend answers"), RegisterOutcome::Registered);
    assert_eq!(membership.register(&other, false).await.expect("the backend answers"), RegisterOutcome::Registered);
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
    membership.register(&one, false).await.expect("the backend answers");
    let renewal = membership.renew(one.generation).await.expect("the backend answers");
    assert!(matches!(renewal, Renewal::Renewed(standing) if standing.expired.is_empty()));
    membership.leave(one.generation).await.expect("the backend answers");
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
}

/// It was reaped: the backend has had it, and has no record of it any more.
pub async fn a_generation_that_was_removed_is_refused(membership: Arc<dyn Membership>) {
    let one = record(Generation::random());
    membership.register(&one, false).await.expect("the backend answers");
    assert_eq!(membership.register(&one, true).await.expect("the backend answers"), RegisterOutcome::Registered);
    membership.leave(one.generation).await.expect("the backend answers");
    assert_eq!(membership.register(&one, true).await.expect("the backend answers"), RegisterOutcome::Reaped);
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
}

/// They have no lease either, if the backend came back with older data.
pub async fn earlier_generations_of_a_node_are_no_nodes(membership: Arc<dyn Membership>) {
    let one = record(Generation::random());
    membership.register(&one, false).await.expect("the backend answers");
    let renamed = NodeRecord { earlier: vec![one.generation], ..record(Generation::random()) };
    membership.register(&renamed, false).await.expect("the backend answers");
    assert_eq!(membership.nodes().await.expect("the backend answers"), [renamed]);
    assert_eq!(membership.renew(one.generation).await.expect("the backend answers"), Renewal::Gone);
}
