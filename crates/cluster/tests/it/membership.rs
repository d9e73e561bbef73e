use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{
    CurrentGeneration, EnvelopeVersion, Keys, PublisherLink, RedisClient, RedisClock, RedisLocks, RedisMembership,
    RedisRooms,
};
use phalanx_core::backend::{
    BackendError, JoinOutcome, LeaseStatus, LeaveBatch, LeaveOutcome, LockStore, Member, Membership, NodeRecord,
    ReapedMember, RegisterOutcome, Renewal, RoomStore,
};
use phalanx_core::{ConnectionId, Generation};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::membership::record;
use tokio::time::{Instant, sleep};

async fn membership() -> (Arc<dyn Membership>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (
        Arc::new(RedisMembership::new(
            client,
            keys,
            Arc::new(RedisClock::default()),
            EnvelopeVersion::default(),
            PublisherLink::default(),
        )),
        redis,
    )
}

phalanx_testkit::membership_laws!(redis: super::membership().await);

/// A cluster of registered nodes whose leases expire unless the test renews them.
pub(crate) struct TestCluster {
    pub(crate) membership: RedisMembership,
    pub(crate) rooms: RedisRooms,
    pub(crate) redis: Redis,
}

impl TestCluster {
    pub(crate) async fn new() -> Self {
        let (redis, client, keys) = super::redis().await;
        Self::over(redis, client, keys).await
    }

    pub(crate) async fn over(redis: Redis, client: RedisClient, keys: Keys) -> Self {
        let membership = RedisMembership::new(
            client.clone(),
            keys.clone(),
            Arc::new(RedisClock::default()),
            EnvelopeVersion::default(),
            PublisherLink::default(),
        );
        let rooms = RedisRooms::new(client, keys, "n", membership.store_epoch());
        rooms.create("r", 10).await.unwrap();
        Self { membership, rooms, redis }
    }

    pub(crate) async fn node(&self) -> NodeRecord {
        let node = record(Generation::random());
        self.membership.register(&node, false).await.unwrap();
        node
    }

    pub(crate) async fn renew(&self, node: &NodeRecord) -> LeaseStatus {
        match self.membership.renew(node.generation).await.unwrap() {
            Renewal::Renewed(standing) => standing,
            Renewal::Gone => panic!("{} has a lease", node.id),
        }
    }

    /// Renews one node until the lease of the other has expired.
    pub(crate) async fn expire(&self, live: &NodeRecord, dead: &NodeRecord) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.renew(live).await.expired.contains(&dead.generation) {
            assert!(Instant::now() < deadline, "a lease that is not renewed expires");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Claims with an observation that is recent enough.
    pub(crate) async fn claim(&self, by: &NodeRecord, dead: &NodeRecord) -> bool {
        let seen_us = self.renew(by).await.now_us;
        self.membership.claim(by.generation, dead.generation, seen_us).await.unwrap()
    }

    pub(crate) async fn join(&self, node: &NodeRecord, number: u64) -> Result<JoinOutcome, BackendError> {
        self.rooms.join("r", &member(number), node.generation, number + 1).await
    }

    pub(crate) async fn members(&self) -> usize {
        self.rooms.members("r", 1000).await.unwrap().unwrap().count
    }
}

pub(crate) fn member(number: u64) -> Member {
    Member { id: ConnectionId::parse(&format!("c-{number}")).unwrap(), joined_at: number }
}

fn departed(leaves: LeaveBatch) -> Vec<ReapedMember> {
    match leaves {
        LeaveBatch::Members(departed) => departed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_expired_lease_is_revived_by_a_renewal_before_the_claim() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.expire(&one, &other).await;
    cluster.renew(&other).await;
    assert!(!cluster.claim(&one, &other).await);
    assert_eq!(cluster.renew(&one).await.expired, []);
}

#[tokio::test]
async fn nothing_from_a_reaped_node_is_accepted() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.expire(&one, &other).await;
    assert!(matches!(cluster.join(&other, 1).await.unwrap(), JoinOutcome::New(_)), "an expired lease is not a reap");
    assert!(cluster.claim(&one, &other).await);
    assert_eq!(cluster.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
    assert!(matches!(cluster.join(&other, 2).await, Err(BackendError::Refused(_))));
    assert_eq!(cluster.membership.nodes().await.unwrap(), [one]);
}

#[tokio::test]
async fn a_reaped_node_acquires_no_lock_until_it_has_a_new_generation() {
    let (redis, client, keys) = super::redis().await;
    let current = CurrentGeneration::default();
    let locks = RedisLocks::new(client.clone(), keys.clone(), current.clone());
    let cluster = TestCluster::over(redis, client, keys).await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    current.set(other.generation);
    assert!(locks.acquire("a", "o", Duration::from_secs(9)).await.unwrap().is_some());
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    assert!(matches!(locks.acquire("b", "o", Duration::from_secs(9)).await, Err(BackendError::Refused(_))));
    current.set(one.generation);
    assert!(locks.acquire("b", "o", Duration::from_secs(9)).await.unwrap().is_some());
}

#[tokio::test]
async fn members_of_a_dead_node_leave_once_and_no_others_do() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    for number in 0..450 {
        cluster.join(&other, number).await.unwrap();
    }
    cluster.join(&one, 1000).await.unwrap();
    let (by, dead) = (one.generation, other.generation);
    cluster.redis.command(&format!("HSET phalanx:laws:links {by} 1 {dead} 1")).await;
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let links = async || cluster.redis.command("HKEYS phalanx:laws:links").await;
    assert_eq!(links().await, format!("*1\r\n$10\r\n{by}\r\n"));
    cluster.redis.command(&format!("HSET phalanx:laws:links {dead} 2")).await; // it thaws and connects once more
    // One of them is listed again by its node, which came back under another generation.
    let again = NodeRecord { earlier: vec![dead], ..record(Generation::random()) };
    cluster.membership.register(&again, false).await.unwrap();
    assert!(matches!(cluster.join(&again, 7).await.unwrap(), JoinOutcome::Replaced(_)));
    let mut left = Vec::new();
    loop {
        match cluster.membership.next_leaves(by, dead).await.unwrap() {
            LeaveBatch::Done => break,
            leaves => {
                let leaves = departed(leaves);
                let again = departed(cluster.membership.next_leaves(by, dead).await.unwrap());
                assert_eq!(leaves, again, "the same leaves until they are trimmed");
                assert!(leaves.len() <= 200, "{}", leaves.len());
                assert!(cluster.membership.acknowledge_leaves(by, dead, leaves.len()).await.unwrap());
                left.extend(leaves.into_iter().map(|departed| departed.joined_at));
            }
        }
    }
    left.sort_unstable();
    assert_eq!(left, (0..450).filter(|number| *number != 7).collect::<Vec<_>>());
    assert_eq!(cluster.members().await, 2);
    assert_eq!(cluster.renew(&one).await.expired, []);
    assert_eq!(links().await, format!("*1\r\n$10\r\n{by}\r\n"));
}

/// A reaper announces the leaves of what it removed; what Redis has lost is announced by its node.
#[tokio::test]
async fn a_leave_of_a_reaped_member_is_told_from_that_of_a_lost_one() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    let JoinOutcome::New(incarnation) = cluster.join(&other, 1).await.unwrap() else { panic!("the room is empty") };
    cluster.join(&other, 2).await.unwrap();
    let leave = async |of: &NodeRecord, number| {
        cluster.rooms.leave("r", &member(number), incarnation, of.generation).await.unwrap()
    };
    for lost in ["DEL actionhero:chatRoom:members:r", "DEL phalanx:laws:leases", "FLUSHALL"] {
        cluster.redis.command(lost).await;
        assert_eq!(leave(&other, 1).await, LeaveOutcome::Lost, "{lost}");
    }
    // Others noticed the loss first, and have restored the room.
    cluster.membership.register(&one, true).await.unwrap();
    cluster.redis.command("SADD actionhero:chatRoom:rooms r").await;
    cluster.redis.command(&format!("HSET phalanx:laws:lives r {}", incarnation.0)).await;
    assert_eq!(leave(&one, 1).await, LeaveOutcome::Lost);
    cluster.membership.register(&other, true).await.unwrap();
    cluster.join(&other, 3).await.unwrap();
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    assert_eq!(leave(&other, 3).await, LeaveOutcome::Removed, "before the reaper");
    let leaves = cluster.membership.next_leaves(one.generation, other.generation).await.unwrap();
    assert_eq!(leaves, LeaveBatch::Done, "it was announced by its node");
    assert_eq!(leave(&other, 3).await, LeaveOutcome::Reaped);
    assert_eq!(leave(&one, 3).await, LeaveOutcome::Lost);
}

#[tokio::test]
async fn a_member_that_is_listed_again_before_its_leave_is_announced_did_not_leave() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    for number in 1..=3 {
        cluster.join(&other, number).await.unwrap();
    }
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let (by, dead) = (one.generation, other.generation);
    assert_eq!(departed(cluster.membership.next_leaves(by, dead).await.unwrap()).len(), 3);
    let renamed = cluster.node().await;
    cluster.join(&renamed, 2).await.unwrap();
    let mut left = departed(cluster.membership.next_leaves(by, dead).await.unwrap());
    left.sort_unstable_by_key(|departed| departed.joined_at);
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [1, 3]);
    assert!(cluster.membership.acknowledge_leaves(by, dead, left.len()).await.unwrap());
    assert_eq!(cluster.membership.next_leaves(by, dead).await.unwrap(), LeaveBatch::Done);
    assert_eq!(cluster.members().await, 1);
}

#[tokio::test]
async fn a_member_of_a_dead_node_that_joins_through_another_node_is_replaced_and_does_not_leave() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.join(&other, 1).await.unwrap();
    cluster.join(&other, 2).await.unwrap();
    assert!(matches!(cluster.join(&one, 1).await.unwrap(), JoinOutcome::Elsewhere(_)), "its node is alive");
    cluster.expire(&one, &other).await;
    assert!(
        matches!(cluster.join(&one, 1).await.unwrap(), JoinOutcome::Elsewhere(_)),
        "an expired lease is not a reap"
    );
    let (by, dead) = (one.generation, other.generation);
    assert!(cluster.claim(&one, &other).await);
    assert!(matches!(cluster.join(&one, 1).await.unwrap(), JoinOutcome::Replaced(_)));
    let left = departed(cluster.membership.next_leaves(by, dead).await.unwrap());
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [2]);
    assert_eq!(cluster.members().await, 1);
}

#[tokio::test]
async fn after_a_reaper_loses_its_claim_another_continues_and_the_first_changes_nothing() {
    let cluster = TestCluster::new().await;
    let (one, other, third) = (cluster.node().await, cluster.node().await, cluster.node().await);
    for number in 0..300 {
        cluster.join(&other, number).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cluster.renew(&one).await.expired.contains(&other.generation) {
        cluster.renew(&third).await;
        assert!(Instant::now() < deadline, "a lease that is not renewed expires");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(cluster.claim(&one, &other).await);
    let first_batch = departed(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap());
    assert!(!cluster.claim(&third, &other).await, "the claim has not expired");
    cluster.expire(&third, &other).await;
    assert!(cluster.claim(&third, &other).await);
    assert_eq!(
        departed(cluster.membership.next_leaves(third.generation, other.generation).await.unwrap()),
        first_batch
    );
    assert_eq!(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap(), LeaveBatch::ClaimLost);
    assert!(!cluster.membership.acknowledge_leaves(one.generation, other.generation, 200).await.unwrap());
    assert!(
        cluster.membership.acknowledge_leaves(third.generation, other.generation, first_batch.len()).await.unwrap()
    );
    let rest = departed(cluster.membership.next_leaves(third.generation, other.generation).await.unwrap());
    assert_eq!(first_batch.len() + rest.len(), 300);
}

#[tokio::test]
async fn members_of_a_dead_node_are_removed_before_the_first_leave_is_announced() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    for number in 0..450 {
        cluster.join(&other, number).await.unwrap();
    }
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    assert_eq!(departed(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap()).len(), 200);
    assert_eq!(cluster.members().await, 0);
}

#[tokio::test]
async fn a_generation_that_is_being_reaped_cannot_register_again() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    assert_eq!(cluster.membership.register(&other, false).await.unwrap(), RegisterOutcome::Reaped);
    assert_eq!(cluster.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
    assert_eq!(cluster.membership.nodes().await.unwrap(), [one]);
}

/// Another node may be reaped, registered or removed in the older data before this one comes back.
#[tokio::test]
async fn data_from_before_a_node_registered_is_told_from_a_reap() {
    let mut cluster = TestCluster::new().await;
    let one = cluster.node().await;
    cluster.redis.keep();
    let other = cluster.node().await;
    let JoinOutcome::New(incarnation) = cluster.join(&other, 1).await.unwrap() else { panic!("the room is empty") };
    cluster.redis.kill().await;
    cluster.redis.start_older().await;
    assert!(matches!(renew_after_restart(&cluster.membership, &one).await, Renewal::Renewed(_)));
    let third = cluster.node().await;
    assert_eq!(cluster.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
    let left = cluster.rooms.leave("r", &member(1), incarnation, other.generation).await.unwrap();
    assert_eq!(left, LeaveOutcome::Lost, "nobody else announces it");
    assert_eq!(cluster.membership.register(&other, true).await.unwrap(), RegisterOutcome::Lost);
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    assert_eq!(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap(), LeaveBatch::Done);
    assert_eq!(cluster.membership.register(&other, true).await.unwrap(), RegisterOutcome::Reaped);
    cluster.renew(&third).await;
}

#[tokio::test]
async fn a_reaped_generation_is_remembered_for_a_day_and_a_live_one_for_ever() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    let registered = async || cluster.redis.command("ZCARD phalanx:laws:registered").await;
    cluster.redis.command(&format!("ZADD phalanx:laws:registered 1 {} 1 {}", one.generation, other.generation)).await;
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let third = cluster.node().await;
    assert_eq!(registered().await, ":3\r\n", "it was reaped just now");
    assert_eq!(cluster.membership.register(&other, true).await.unwrap(), RegisterOutcome::Reaped);
    cluster.redis.command(&format!("ZADD phalanx:laws:registered 1 {}", other.generation)).await;
    cluster.node().await;
    assert_eq!(registered().await, ":3\r\n");
    cluster.redis.command("DEL phalanx:laws:lost").await;
    assert_eq!(cluster.membership.register(&third, true).await.unwrap(), RegisterOutcome::Registered);
    assert_eq!(cluster.membership.register(&one, true).await.unwrap(), RegisterOutcome::Registered);
}

#[tokio::test]
async fn a_room_that_is_missing_after_a_loss_is_unavailable_and_not_unknown() {
    let cluster = TestCluster::new().await;
    let node = record(Generation::random());
    cluster.membership.register(&node, false).await.unwrap();
    assert!(!cluster.rooms.exists("x").await.unwrap(), "nothing was lost");
    cluster.renew(&node).await;
    for fault in ["FLUSHALL".to_owned(), format!("HSET phalanx:laws:beats {} 0", node.generation)] {
        cluster.redis.command(&fault).await;
        if cluster.membership.renew(node.generation).await.unwrap() == Renewal::Gone {
            for reply in ["lost", "received"] {
                let outcome = cluster.membership.register(&node, true).await.unwrap();
                assert_eq!(outcome, RegisterOutcome::Lost, "{reply}");
            }
        }
        assert!(matches!(cluster.rooms.exists("x").await, Err(BackendError::Refused(_))), "{fault}");
        assert!(matches!(cluster.rooms.members("x", 10).await, Err(BackendError::Refused(_))));
        let joined = cluster.rooms.join("x", &member(1), node.generation, 1).await;
        assert!(matches!(joined, Err(BackendError::Refused(_))), "{joined:?}");
        let ttl = cluster.redis.command("PTTL phalanx:laws:lost").await;
        let ttl: u64 = ttl.trim_start_matches(':').trim().parse().unwrap();
        assert!((5_000..=10_000).contains(&ttl), "{ttl}");
        cluster.rooms.create("y", 10).await.unwrap();
        assert!(cluster.rooms.exists("y").await.unwrap());
        cluster.rooms.close("y").await.unwrap();
        cluster.redis.command("DEL phalanx:laws:lost").await; // as if ten seconds were over
        assert!(!cluster.rooms.exists("x").await.unwrap());
        assert_eq!(cluster.rooms.join("x", &member(1), node.generation, 2).await.unwrap(), JoinOutcome::NoRoom);
        cluster.renew(&node).await;
    }
}

#[tokio::test]
async fn a_node_that_lost_only_its_lease_keeps_its_generation_and_its_members() {
    let cluster = TestCluster::new().await;
    let node = record(Generation::random());
    cluster.membership.register(&node, false).await.unwrap();
    cluster.join(&node, 1).await.unwrap();
    cluster.redis.command("DEL phalanx:laws:leases").await;
    assert_eq!(cluster.membership.renew(node.generation).await.unwrap(), Renewal::Gone);
    assert_eq!(cluster.membership.register(&node, true).await.unwrap(), RegisterOutcome::Registered);
    cluster.renew(&node).await;
    assert_eq!(cluster.members().await, 1);
}

/// Older data, in which the node has the name that it had before it was reaped.
#[tokio::test]
async fn a_renamed_node_lists_its_members_over_older_data_and_none_of_them_is_reaped() {
    let cluster = TestCluster::new().await;
    let (watcher, old) = (cluster.node().await, cluster.node().await);
    for number in 0..100 {
        cluster.join(&old, number).await.unwrap();
    }
    cluster.redis.command(&format!("ZADD phalanx:laws:reaped 1 {}", old.generation)).await;
    cluster.redis.command(&format!("HSET phalanx:laws:reapers {} {}", old.generation, watcher.generation)).await;
    let node = NodeRecord { earlier: vec![old.generation], ..record(Generation::random()) };
    cluster.membership.register(&node, false).await.unwrap();
    // Another node may have brought its lease back since.
    cluster.redis.command(&format!("ZADD phalanx:laws:leases 1 {}", old.generation)).await;
    for number in 0..100 {
        assert!(matches!(cluster.join(&node, number).await.unwrap(), JoinOutcome::Replaced(_)), "{number}");
    }
    cluster.membership.register(&node, false).await.unwrap();
    assert_eq!(cluster.renew(&watcher).await.expired, []);
    assert!(!cluster.claim(&watcher, &old).await);
    assert_eq!(cluster.members().await, 100);
}

#[tokio::test]
async fn members_under_an_earlier_name_of_a_dead_node_are_reaped() {
    let cluster = TestCluster::new().await;
    let (watcher, old) = (cluster.node().await, cluster.node().await);
    cluster.join(&old, 1).await.unwrap();
    let node = NodeRecord { earlier: vec![old.generation], ..record(Generation::random()) };
    cluster.membership.register(&node, false).await.unwrap();
    cluster.join(&node, 2).await.unwrap();
    cluster.expire(&watcher, &node).await;
    for dead in [&node, &old] {
        assert!(cluster.claim(&watcher, dead).await);
        let left = departed(cluster.membership.next_leaves(watcher.generation, dead.generation).await.unwrap());
        assert_eq!(left.len(), 1);
        cluster.membership.acknowledge_leaves(watcher.generation, dead.generation, 1).await.unwrap();
        let next = cluster.membership.next_leaves(watcher.generation, dead.generation).await.unwrap();
        assert_eq!(next, LeaveBatch::Done);
    }
    assert_eq!(cluster.members().await, 0);
}

#[tokio::test]
async fn members_that_are_listed_when_their_node_leaves_are_reaped() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.join(&other, 1).await.unwrap();
    for _ in 0..2 {
        cluster.membership.leave(other.generation).await.unwrap(); // twice, as if the first reply was lost
    }
    assert_eq!(cluster.membership.nodes().await.unwrap(), std::slice::from_ref(&one), "its record is removed at once");
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    cluster.membership.leave(other.generation).await.unwrap();
    let left = departed(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap());
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [1]);
    assert_eq!(cluster.members().await, 0);
    assert_eq!(cluster.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
}

#[tokio::test]
async fn a_claim_with_an_old_observation_is_refused() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.expire(&one, &other).await;
    let long_ago = cluster.renew(&one).await.now_us - 3_000_000;
    assert!(!cluster.membership.claim(one.generation, other.generation, long_ago).await.unwrap());
    assert!(cluster.claim(&one, &other).await);
}

#[tokio::test]
async fn a_lease_that_has_just_expired_is_not_reaped() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    let now_us = cluster.renew(&one).await.now_us;
    cluster.redis.command(&format!("ZADD phalanx:laws:leases {now_us} {}", other.generation)).await;
    assert!(!cluster.membership.claim(one.generation, other.generation, now_us).await.unwrap());
    cluster.expire(&one, &other).await;
    assert!(cluster.renew(&one).await.now_us >= now_us + 500_000);
    assert!(cluster.claim(&one, &other).await);
}

#[tokio::test]
async fn dead_nodes_are_found_after_the_clock_was_set_back() {
    let cluster = TestCluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    let in_an_hour = cluster.renew(&one).await.now_us + 3_600_000_000;
    cluster.redis.command(&format!("ZADD phalanx:laws:leases {in_an_hour} {}", other.generation)).await;
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    cluster.redis.command(&format!("ZADD phalanx:laws:reaped {in_an_hour} {}", other.generation)).await;
    cluster.expire(&one, &other).await;
}

#[tokio::test]
async fn corrupt_keys_are_skipped_and_the_dead_node_is_reaped() {
    let cluster = TestCluster::new().await;
    cluster.rooms.create("corrupt", 10).await.unwrap();
    let (one, other) = (cluster.node().await, cluster.node().await);
    cluster.join(&other, 1).await.unwrap();
    cluster.rooms.join("corrupt", &member(2), other.generation, 2).await.unwrap();
    cluster.redis.command(&format!("HSET phalanx:laws:held:{} nonsense nonsense", other.generation)).await;
    for key in ["actionhero:chatRoom:members:corrupt", "phalanx:laws:nodes", "phalanx:laws:names", "phalanx:laws:epoch"]
    {
        cluster.redis.command(&format!("SET {key} nonsense")).await;
    }
    for key in ["names", "leaves"] {
        cluster.redis.command(&format!("SET phalanx:laws:{key}:{} nonsense", other.generation)).await;
    }
    for number in 0..40 {
        cluster.redis.command(&format!("ZADD phalanx:laws:leases {number} nonsense-{number}")).await;
        cluster.redis.command(&format!("ZADD phalanx:laws:reaped {number} nonsense-{number}")).await;
    }
    cluster.expire(&one, &other).await;
    assert!(cluster.claim(&one, &other).await);
    let left = departed(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap());
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [1]);
    assert!(cluster.membership.acknowledge_leaves(one.generation, other.generation, 1).await.unwrap());
    assert_eq!(cluster.membership.next_leaves(one.generation, other.generation).await.unwrap(), LeaveBatch::Done);
    assert!(matches!(cluster.membership.nodes().await, Err(BackendError::WrongKind { .. })), "only this call fails");
}

#[tokio::test]
async fn a_redis_that_came_back_empty_has_a_new_epoch_and_no_leases() {
    let (mut redis, client, keys) = super::redis().await;
    let membership = RedisMembership::new(
        client,
        keys,
        Arc::new(RedisClock::default()),
        EnvelopeVersion::default(),
        PublisherLink::default(),
    );
    let node = record(Generation::random());
    assert_eq!(membership.register(&node, false).await.unwrap(), RegisterOutcome::Registered);
    redis.kill().await;
    redis.start_again().await;
    assert!(matches!(renew_after_restart(&membership, &node).await, Renewal::Renewed(_)));
    redis.kill().await;
    redis.start_empty().await;
    assert_eq!(renew_after_restart(&membership, &node).await, Renewal::Gone);
    let again = NodeRecord { earlier: vec![node.generation], ..record(Generation::random()) };
    let outcome = membership.register(&again, false).await.unwrap();
    assert_eq!(outcome, RegisterOutcome::Lost, "a new generation learns it too");
    assert_eq!(membership.register(&node, true).await.unwrap(), RegisterOutcome::Lost);
}

/// Renews; tries again while commands fail, since the first one after a restart may meet the old connection.
async fn renew_after_restart(membership: &RedisMembership, node: &NodeRecord) -> Renewal {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match membership.renew(node.generation).await {
            Ok(renewal) => return renewal,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
