//! A Redis that has reached its `maxmemory` and evicts nothing.

use phalanx_core::backend::{
    BackendError, CreateOutcome, HeldMember, JoinOutcome, LeaveBatch, LeaveOutcome, Membership, RegisterOutcome,
    RelistOutcome, Relisting, RoomStore,
};
use phalanx_core::{Generation, Incarnation};
use phalanx_testkit::laws::membership::record;

use crate::membership::{TestCluster, member};

impl TestCluster {
    /// From here on Redis refuses every command that may need memory.
    async fn fill(&self) {
        assert_eq!(self.redis.command("CONFIG SET maxmemory-policy noeviction").await, "+OK\r\n");
        assert_eq!(self.redis.command("CONFIG SET maxmemory 1").await, "+OK\r\n");
        assert!(self.redis.command("SET any value").await.starts_with("-OOM"));
    }
}

#[tokio::test]
async fn a_full_redis_renews_leases_and_refuses_joins_and_rooms() {
    let cluster = TestCluster::new().await;
    let node = cluster.node().await;
    cluster.fill().await;
    let before = cluster.renew(&node).await.now_us;
    assert!(cluster.renew(&node).await.now_us > before);
    assert!(matches!(cluster.join(&node, 1).await, Err(BackendError::Full)));
    assert!(matches!(cluster.rooms.create("other", 10).await, Err(BackendError::Full)));
    assert!(!cluster.rooms.exists("other").await.unwrap());
    assert_eq!(cluster.members().await, 0);
}

#[tokio::test]
async fn members_leave_joins_are_undone_and_rooms_end_on_a_full_redis() {
    let cluster = TestCluster::new().await;
    let node = cluster.node().await;
    let JoinOutcome::New(incarnation) = cluster.join(&node, 1).await.unwrap() else { panic!("the room was empty") };
    cluster.join(&node, 2).await.unwrap();
    cluster.fill().await;
    let left = cluster.rooms.leave("r", &member(1), incarnation, node.generation).await.unwrap();
    assert_eq!(left, LeaveOutcome::Removed);
    assert_eq!(cluster.members().await, 1);
    cluster.rooms.undo_join("r", &member(2), node.generation, 3).await.unwrap();
    assert_eq!(cluster.members().await, 0);
    for _ in 0..2 {
        assert_eq!(cluster.rooms.close("r").await.unwrap(), Some(incarnation));
    }
    cluster.rooms.forget("r", incarnation).await.unwrap();
    assert_eq!(cluster.rooms.close("r").await.unwrap(), None::<Incarnation>);
    cluster.membership.leave(node.generation).await.unwrap();
    assert_eq!(cluster.membership.nodes().await.unwrap(), []);
}

/// Redis came back full and without some of its data: what a node holds is listed all the same.
#[tokio::test]
async fn members_are_listed_again_on_a_full_redis() {
    let cluster = TestCluster::new().await;
    let node = cluster.node().await;
    let JoinOutcome::New(incarnation) = cluster.join(&node, 1).await.unwrap() else { panic!("the room was empty") };
    let held: Vec<HeldMember> =
        (1..=300).map(|number| HeldMember { room: "r".into(), member: member(number), incarnation }).collect();
    cluster.redis.command("DEL actionhero:chatRoom:rooms actionhero:chatRoom:members:r").await;
    cluster.fill().await;
    assert!(matches!(cluster.rooms.create("r", 10).await, Err(BackendError::Full)));
    let how = Relisting { of: node.generation, number: 9, renamed_ms: 0, creates_rooms: true };
    let listed = cluster.rooms.relist(&how, &held).await.unwrap();
    assert_eq!(listed, vec![RelistOutcome::Listed(incarnation); 300]);
    assert_eq!(cluster.rooms.relist(&how, &held).await.unwrap(), vec![RelistOutcome::Kept(incarnation); 300]);
    assert_eq!(cluster.members().await, 300);
    // Under another generation, after a reap.
    let renamed = cluster.node().await;
    let anew = Relisting { of: renamed.generation, number: 10, renamed_ms: 1000, ..how };
    cluster.redis.command("DEL actionhero:chatRoom:members:r").await;
    let listed = cluster.rooms.relist(&anew, &held).await.unwrap();
    assert_eq!(listed, vec![RelistOutcome::Rejoined(incarnation); 300]);
    cluster.rooms.remove_stored(node.generation, 0, &[]).await.unwrap();
    assert_eq!(cluster.members().await, 300);
}

#[tokio::test]
async fn a_dead_node_is_reaped_on_a_full_redis_and_may_register_again() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    for number in 0..3 {
        cluster.join(&other, number).await.unwrap();
    }
    cluster.fill().await;
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let (by, dead) = (one.generation, other.generation);
    assert!(cluster.membership.renew_claim(by, dead).await.unwrap());
    let LeaveBatch::Members(left) = cluster.membership.next_leaves(by, dead).await.unwrap() else {
        panic!("its members are announced")
    };
    assert_eq!((left.len(), cluster.members().await), (3, 0));
    assert!(cluster.membership.acknowledge_leaves(by, dead, left.len()).await.unwrap());
    assert_eq!(cluster.membership.next_leaves(by, dead).await.unwrap(), LeaveBatch::Done);
    let again = record(Generation::random());
    assert!(cluster.membership.register(&again, false).await.unwrap() != RegisterOutcome::Reaped);
    cluster.renew(&again).await;
}

#[tokio::test]
async fn a_room_is_created_as_before_once_redis_has_room_again() {
    let cluster = TestCluster::new().await;
    cluster.fill().await;
    assert!(cluster.rooms.create("other", 10).await.is_err());
    cluster.redis.command("CONFIG SET maxmemory 0").await;
    assert_eq!(cluster.rooms.create("other", 10).await.unwrap(), CreateOutcome::New);
}
